using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening.Blkdebug;
using OrleansDisk.Cli.Opening.Drivers;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Opening;

/// <summary>
/// Opens disks by what people write on a command line: names with their protocols, json:{...}, lists of options. Only
/// they choose drivers: a name that stands in an image is that of a file, or nothing is opened.
/// </summary>
internal sealed class DiskOpener
{
    private const int SectorBytes = 512;

    /// <summary>Deeper chains are refused: they are loops or attacks.</summary>
    private const int MaxDepth = 200;

    private readonly DiskRequest _request;
    private readonly Dictionary<string, IBlockFile> _files = new(StringComparer.Ordinal);
    private readonly FileOpener _fileOpener;
    private Qcow2Image? _image;
    private byte[] _password = [];
    private int _depth;
    private BlkdebugRules? _blkdebug;

    private DiskOpener(DiskRequest request)
    {
        _request = request;
        _fileOpener = new FileOpener(OpenNodeAsync) { IsDirect = request.Cache.Direct };
    }

    /// <summary>Opens a disk with everything below it; call it in the turn in which the disk is to be used.</summary>
    /// <exception cref="IOException">A file can't be had.</exception>
    /// <exception cref="CommandFailedException">An option can't be had.</exception>
    public static async Task<OpenedDisk> OpenAsync(DiskRequest request)
    {
        var opener = new DiskOpener(request);
        ImageAccess access = request.IsTemporary ? ImageAccess.Read : request.Access;
        IDiskSource source = await opener.OpenNodeAsync(request.Name, request.Options.Copy(), access);
        try
        {
            if (request.IsTemporary)
                source = opener._image = await TemporaryOverlay.CreateAsync(source);
            if (request.CopyOnRead)
                source = opener.CopyOnRead(source);
        }
        catch
        {
            await source.DisposeAsync();
            throw;
        }
        return new OpenedDisk
        {
            Source = source,
            Image = opener._image,
            Request = request,
            Files = opener._files,
            Blkdebug = opener._blkdebug,
            Password = opener._password,
        };
    }

    /// <summary>Opens the file of an image and finds its format, without opening the image.</summary>
    public static async Task<OpenedFile> OpenFileAsync(DiskRequest request)
    {
        var opener = new DiskOpener(request);
        BlockOptions options = request.Options.Copy();
        string? name = TakeName(request.Name, options);
        ImageAccess access = TakeAccess(options, request.Access);
        _ = opener.TakeCommonOptions(options);
        string? driver = options.Take("driver");
        if (driver is not null && FileOpener.IsProtocol(driver))
        {
            options["driver"] = driver;
            IBlockFile file = await opener._fileOpener.OpenAsync(name, options, access);
            return new OpenedFile(file, "raw", new BlockOptions(), IsProbed: false) { Protocol = driver };
        }
        return await opener.OpenFileAsync(name, options, access, driver);
    }

    private async Task<IDiskSource> OpenNodeAsync(string? name, BlockOptions options, ImageAccess access)
    {
        name = TakeName(name, options);
        access = TakeAccess(options, access);
        bool inherited = _fileOpener.IsDirect;
        (bool passDiscard, string detectZeroes) = TakeCommonOptions(options);
        IDiskSource disk;
        try
        {
            disk = await OpenDriverAsync(name, options, access, passDiscard);
        }
        finally
        {
            _fileOpener.IsDirect = inherited; // what this node says is for those below it
        }
        return detectZeroes != "off" && disk is IWritableDisk { IsReadOnly: false } writable
            ? new DetectZeroesDisk(writable, detectZeroes == "unmap") : disk;
    }

    private async Task<IDiskSource> OpenDriverAsync(string? name, BlockOptions options, ImageAccess access, bool passDiscard)
    {
        string? driver = options.Take("driver");
        switch (driver)
        {
            case "copy-on-read":
                if (access != ImageAccess.Write)
                    throw new CommandFailedException("Block node is read-only");
                return CopyOnRead(await OpenChildAsync("file", name, options, access, driver));
            case "compress":
                return await OpenChildAsync("file", name, options, access, driver) is Qcow2Image image ? new CompressDisk(image)
                    : throw new CommandFailedException("Compression is not supported for the given image format");
            case "throttle":
                _ = options.Take("throttle-group");
                return await OpenChildAsync("file", name, options, access, driver);
            case "blkdebug":
                long zeroUnit = options.TakeSize("opt-write-zero") ?? 0;
                BlkdebugRules rules = _blkdebug = TakeBlkdebug(ref name, options);
                if (!options.Has("image.driver"))
                    options["image.driver"] = FileOpener.ProtocolOf(name);
                return new BlkdebugDisk(await OpenChildAsync("image", name, options, access, driver), await StartAsync(rules), zeroUnit);
            case "null-co" or "null-aio":
                return FileOpener.OpenNull(driver, options, access);
            case "nbd":
                return await NbdAddress.Take(name ?? options.Take("filename"), options, _request.Secrets).OpenAsync(access != ImageAccess.Write);
        }
        if (driver is not null && FileOpener.IsProtocol(driver))
        {
            options["driver"] = driver;
            return new RawImage(await _fileOpener.OpenAsync(name, options, access));
        }
        return await OpenFormatAsync(await OpenFileAsync(name, options, access, driver), access, passDiscard);
    }

    private CopyOnReadDisk CopyOnRead(IDiskSource below) => below is IWritableDisk { IsReadOnly: false } disk
        ? new CopyOnReadDisk(disk, _image?.Header.Geometry.ClusterBytes ?? SectorBytes, _blkdebug)
        : throw new CommandFailedException("Can't use copy-on-read on read-only device");

    /// <summary>The one disk below a driver that only passes on.</summary>
    private async Task<IWritableDisk> OpenChildAsync(string child, string? name, BlockOptions options, ImageAccess access, string driver)
    {
        BlockOptions below = options.TakeChild(child);
        options.RefuseRestOfFormat(driver);
        return (IWritableDisk)await OpenNodeAsync(name, below, access);
    }

    private async Task<OpenedFile> OpenFileAsync(string? name, BlockOptions options, ImageAccess access, string? driver)
    {
        if (driver is not (null or "qcow2" or "luks" or "raw"))
            throw new CommandFailedException($"Unknown driver '{driver}'");
        if (options.Take("file") is { } node)
            throw new CommandFailedException($"Cannot find device='' nor node-name='{node}'");
        BlockOptions below = options.TakeChild("file");
        if (name is null && below.IsEmpty)
        {
            throw new CommandFailedException(driver is null ? "Must specify either driver or file"
                : "A block device must be specified for \"file\"");
        }
        IBlockFile file = await _fileOpener.OpenAsync(name, below, access);
        try
        {
            string format = driver ?? await HeaderReader.ProbeFormatAsync(file);
            _blkdebug = _fileOpener.Rules ?? _blkdebug;
            return new OpenedFile(file, format, options, IsProbed: driver is null) { Blkdebug = file as BlkdebugFile };
        }
        catch
        {
            await file.DisposeAsync();
            throw;
        }
    }

    private async Task<IDiskSource> OpenFormatAsync(OpenedFile opened, ImageAccess access, bool passDiscard)
    {
        try
        {
            return opened.Format switch
            {
                "qcow2" => await OpenQcow2Async(opened, access, passDiscard),
                "luks" => await OpenLuksAsync(opened),
                _ => OpenRaw(opened),
            };
        }
        catch
        {
            await opened.DisposeAsync();
            throw;
        }
    }

    private async Task<IDiskSource> OpenLuksAsync(OpenedFile opened)
    {
        byte[]? password = opened.Options.Take("key-secret") is { } id ? _request.Secrets.Find(id) : null;
        opened.Options.RefuseRestOfFormat("luks");
        using Secret? secret = password is null ? null : new Secret(password);
        LuksImage disk = await LuksImage.OpenAsync(opened.File, secret);
        _password = password!;
        return disk;
    }

    private static IDiskSource OpenRaw(OpenedFile opened)
    {
        IWritableDisk disk = opened.File is DiskFile { Disk: var below } ? new RawFilter(below) : new RawImage(opened.File);
        if (opened.Blkdebug is { } blkdebug)
            blkdebug.MetadataAt = _ => null;
        long? offset = opened.Options.TakeSize("offset");
        long? bytes = opened.Options.TakeSize("size");
        opened.Options.RefuseRestOfFormat("raw");
        if (offset is not null || bytes is not null)
            return new RawWindow(disk, offset ?? 0, bytes);
        if (!opened.IsProbed || disk.IsReadOnly)
            return disk;
        Terminal.WriteError($"WARNING: Image format was not specified for '{disk.FileName}' and probing guessed raw.\n"
            + "         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n"
            + "         Specify the 'raw' format explicitly to remove the restrictions.");
        return new ProbedRawDisk(disk);
    }

    private async Task<IDiskSource> OpenQcow2Async(OpenedFile opened, ImageAccess access, bool passDiscard)
    {
        bool isTop = _depth == 0;
        (IDiskSource? backing, bool opensBacking) = await OpenBackingAsync(opened, access);
        IBlockFile? dataFile = null;
        try
        {
            dataFile = await OpenDataFileAsync(opened.Options, access);
            string? encryptionFormat = opened.Options.Take("encrypt.format");
            byte[]? password = opened.Options.Take("encrypt.key-secret") is { } id ? _request.Secrets.Find(id) : null;
            using Secret? secret = password is null ? null : new Secret(password);
            var defaults = new Qcow2OpenOptions
            {
                Access = access,
                PassDiscard = passDiscard,
                NotesAllZeroes = true,
                Snapshot = isTop ? _request.Snapshot : null,
                OpenBacking = opensBacking,
                Backing = backing,
                DataFile = dataFile,
                OpenFile = OpenBackingFile,
                EncryptionFormat = encryptionFormat,
                Secret = secret,
                Repairing = finding => Terminal.WriteError(finding.Message),
            };
            Qcow2OpenOptions options = Qcow2RuntimeOptions.Parse(opened.Options.TakeAll(), defaults);
            Qcow2Image image = await Qcow2Image.OpenAsync(opened.File, options);
            (_image, _password) = (image, password ?? []); // the last one: what lies below was opened before
            _files[image.FileName] = opened.File;
            if (opened.Blkdebug is { } blkdebug)
                await blkdebug.FollowAsync(image);
            return image;
        }
        catch when (backing is not null || dataFile is not null)
        {
            if (backing is not null)
                await backing.DisposeAsync();
            if (dataFile is not null)
                await dataFile.DisposeAsync();
            throw;
        }
    }

    /// <summary>The external data file, when the user says where it is; without that, the image itself says it.</summary>
    private async Task<IBlockFile?> OpenDataFileAsync(BlockOptions options, ImageAccess access)
    {
        if (options.Take("data-file") is { } node)
            throw new CommandFailedException($"Cannot find device='' nor node-name='{node}'");
        BlockOptions below = options.TakeChild("data-file");
        return below.IsEmpty ? null : await _fileOpener.OpenAsync(name: null, below, access);
    }

    /// <summary>What the user says lies below an image; without that, the image itself says it.</summary>
    private async Task<(IDiskSource? Backing, bool OpensOther)> OpenBackingAsync(OpenedFile opened, ImageAccess access)
    {
        string? node = opened.Options.Take("backing");
        if (node is { Length: > 0 })
            throw new CommandFailedException($"Cannot find device='' nor node-name='{node}'");
        if (node is not null && !_request.IsJson)
            Terminal.Warn("Use of \"backing\": \"\" is deprecated; use \"backing\": null instead");
        BlockOptions below = opened.Options.TakeChild("backing");
        if (node is not null || !_request.WithBacking)
            return (null, false);
        string? name = null;
        if (!below.HasChild("file") && !below.Has("filename"))
        {
            Qcow2.Format.Header header = await HeaderReader.ReadAsync(opened.File);
            if (below.IsEmpty && !BackingName.IsOptions(header) && (_depth >= _request.WritableDepth || header.BackingFile is null))
                return (null, true);
            name = BackingName.Of(opened.File.Name, header, below);
        }
        try
        {
            if (++_depth > MaxDepth)
                throw new CommandFailedException($"the chain is deeper than {MaxDepth} images, or a loop");
            ImageAccess belowAccess = _depth == _request.WritableDepth ? ImageAccess.Write
                : access == ImageAccess.ReadShared ? access : ImageAccess.Read;
            return (await OpenNodeAsync(name, below, belowAccess), false);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CommandFailedException)
        {
            throw new CommandFailedException($"Could not open backing file: {e.Message}");
        }
    }

    private LocalBlockFile OpenBackingFile(string path, ImageAccess access)
    {
        var file = LocalBlockFile.Open(path, access, _fileOpener.IsDirect);
        _files[path] = file;
        return file;
    }

    private static async Task<BlkdebugRules> StartAsync(BlkdebugRules rules)
    {
        await rules.TriggerAsync(BlkdebugEvents.None);
        return rules;
    }

    /// <summary>The rules of a blkdebug driver, whose own name may hold those of its files.</summary>
    internal static BlkdebugRules TakeBlkdebug(ref string? name, BlockOptions options)
    {
        const string prefix = "blkdebug:";
        if (name?.StartsWith(prefix, StringComparison.Ordinal) == true)
        {
            int colon = name.IndexOf(':', prefix.Length);
            if (colon < 0)
                throw new CommandFailedException("blkdebug requires both config file and image path");
            if (colon > prefix.Length)
                options["config"] = name[prefix.Length..colon];
            name = name[(colon + 1)..];
        }
        name = options.Take("x-image") ?? name;
        // Alignments and other limits are promises of the driver to those above it; nothing here needs them.
        foreach (string limit in (ReadOnlySpan<string>)["align", "max-transfer", "opt-write-zero", "max-write-zero", "opt-discard", "max-discard"])
            _ = options.TakeSize(limit);
        return BlkdebugConfiguration.Read(options.Take("config"), options);
    }

    /// <summary>The name, with the options that it holds when it is json:{...}.</summary>
    private static string? TakeName(string? name, BlockOptions options)
    {
        if (name is not null && BlockOptionText.IsJson(name))
        {
            BlockOptions read = BlockOptionText.ParseJson(name);
            foreach (string option in read.Names)
                options[option] = options[option] ?? read[option]!;
            name = null;
        }
        string? own = options.Has("driver") ? null : options.Take("filename");
        return name ?? own;
    }

    private static ImageAccess TakeAccess(BlockOptions options, ImageAccess access)
    {
        if (options.TakeSwitch("read-only") == true && access == ImageAccess.Write)
            access = ImageAccess.Read;
        _ = options.TakeSwitch("auto-read-only");
        if (options.TakeSwitch("force-share") != true)
            return access;
        return access == ImageAccess.Write
            ? throw new CommandFailedException("force-share=on can only be used with read-only images") : ImageAccess.ReadShared;
    }

    private (bool PassDiscard, string DetectZeroes) TakeCommonOptions(BlockOptions options)
    {
        _ = options.Take("node-name");
        _fileOpener.IsDirect = options.TakeSwitch("cache.direct") ?? _fileOpener.IsDirect;
        _ = options.TakeSwitch("cache.no-flush");
        string? discard = options.Take("discard");
        bool passDiscard = discard switch
        {
            null => _request.PassDiscard,
            "unmap" or "on" => true,
            "ignore" or "off" => false,
            _ => throw new CommandFailedException("Invalid discard option"),
        };
        string detectZeroes = options.Take("detect-zeroes") ?? "off";
        if (detectZeroes is not ("off" or "on" or "unmap"))
            throw new CommandFailedException($"Parameter 'detect-zeroes' does not accept value '{detectZeroes}'");
        if (detectZeroes == "unmap" && !passDiscard)
            throw new CommandFailedException("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
        return (passDiscard, detectZeroes);
    }
}
