using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>The image that a create command asks for.</summary>
internal sealed class NewImage
{
    private readonly string _name;
    private readonly string _path;
    private readonly string _format;
    private readonly CreationOptions _values;
    private readonly bool _looksAtBacking;
    private readonly Secrets _secrets;
    private long _virtualBytes;

    /// <param name="name">The file to make.</param>
    /// <param name="format">"qcow2", "luks" or "raw".</param>
    /// <param name="options">What the command was given.</param>
    /// <param name="size">The size operand in bytes, or null.</param>
    public NewImage(string name, string format, ParsedOptions options, long? size)
    {
        (_name, _path, _format) = (name, FileOpener.PathOf(name), format);
        RequireFormat(format);
        _values = CreationOptions.Parse(options.Values("o"), FormatOptions.InFile(FormatOptions.Create(format)).Select(option => option.Name));
        foreach ((string option, string property) in (ReadOnlySpan<(string, string)>)[("b", "backing_file"), ("F", "backing_fmt")])
        {
            if (options.Value(option) is not { } value)
                continue;
            if (format != "qcow2")
                throw new CommandFailedException($"Backing file not supported for file format '{format}'");
            _values.Set(property, value);
        }
        _looksAtBacking = !options.Has("u");
        _secrets = Secrets.Parse(options.Values("object"));
        if (_values["backing_file"] == "")
            throw new CommandFailedException("Expected backing file name, got empty string");
        if (size is not null && _values["size"] is not null)
            throw new CommandFailedException("The image size must be specified only once");
        if (size is not null)
            _values.Set("size", $"{size}");
        _ = _values.Size("cluster_size");
        _ = _values.Number("refcount_bits");
        _ = _values.Switch("lazy_refcounts");
        _ = _values.Switch("extended_l2");
        _ = _values.Switch("data_file_raw");
        _ = _values.Switch("encryption");
        _ = _values.Number(EncryptionOptions.Qcow2Prefix + EncryptionOptions.IterationTime);
        _ = _values.Number(EncryptionOptions.IterationTime);
        _ = _values.Switch("nocow");
        _ = _values.Size("extent_size_hint");
    }

    /// <exception cref="CommandFailedException">There is no such format to make images of.</exception>
    public static void RequireFormat(string format)
    {
        if (format is not ("qcow2" or "luks" or "raw"))
            throw new CommandFailedException($"Unknown file format '{format}'");
    }

    /// <summary>The image that is to hold what another disk holds, whose size it gets whatever the options say.</summary>
    /// <param name="path">The file to make.</param>
    /// <param name="format">"qcow2", "luks" or "raw".</param>
    /// <param name="given">The command's options, for the lists of -o and the secrets.</param>
    /// <param name="backing">Name and format of the backing file, or nulls; it is not looked at.</param>
    public static NewImage OfSource(string path, string format, ParsedOptions given, (string? Name, string? Format) backing)
    {
        var options = new ParsedOptions([]);
        foreach (string list in given.Values("o"))
            options.Add(new OptionSpec('o', null, HasValue: true), CreationOptions.Without("size", list));
        foreach (string secret in given.Values("object"))
            options.Add(Command.ObjectOption, secret);
        if (backing.Name is not null)
            options.Add(new OptionSpec('b', null, HasValue: true), backing.Name);
        if (backing.Format is not null)
            options.Add(new OptionSpec('F', null, HasValue: true), backing.Format);
        return new NewImage(path, format, options, size: null);
    }

    /// <summary>The value of an option of -o, or null.</summary>
    public string? this[string name] => _values[name];

    private string? BackingFile => _values["backing_file"] is { Length: > 0 } name ? name : null;

    /// <summary>Finds the size: as given, or the backing file's.</summary>
    public async Task ResolveSizeAsync()
    {
        ulong? size = _values.Size("size");
        if (BackingFile is { } backing)
        {
            string backingPath = ImageInfo.ResolveBackingFile(_path, backing);
            if (backing == _name || Path.GetFullPath(backingPath) == Path.GetFullPath(_path))
                throw new CommandFailedException("Error: Trying to create an image with the same filename as the backing file");
            if (_looksAtBacking)
            {
                long backingBytes = await BackingBytesAsync(backingPath);
                size ??= (ulong)backingBytes;
            }
        }
        if (size is null)
            throw new CommandFailedException("Image creation needs a size parameter");
        if (size > long.MaxValue)
            throw new CommandFailedException("The image size is too large for file format 'qcow2' (try using a larger cluster size)");
        _virtualBytes = (long)size;
    }

    /// <summary>What is being made, in qemu-img's words.</summary>
    public string Describe()
    {
        var parts = new List<string> { $"Formatting '{_name}', fmt={_format}" };
        if (_format != "qcow2")
        {
            parts.Add($"size={_virtualBytes}");
            if (_format == "raw")
                Add("nocow");
            foreach (string name in EncryptionOptions.PlainNames)
                Add(name);
            Add("preallocation");
            AddSize("extent_size_hint");
            return string.Join(' ', parts);
        }
        foreach (string name in EncryptionOptions.Names)
            Add(name);
        parts.Add($"cluster_size={_values.Size("cluster_size") ?? 65536}");
        parts.Add($"extended_l2={_values["extended_l2"] ?? "off"}");
        Add("preallocation");
        parts.Add($"compression_type={_values["compression_type"] ?? "zlib"}");
        parts.Add($"size={_virtualBytes}");
        Add("compat");
        Add("backing_file");
        Add("backing_fmt");
        Add("data_file");
        Add("data_file_raw");
        parts.Add($"lazy_refcounts={_values["lazy_refcounts"] ?? "off"}");
        parts.Add($"refcount_bits={_values.Number("refcount_bits") ?? 16}");
        Add("nocow");
        AddSize("extent_size_hint");
        return string.Join(' ', parts);

        void Add(string name)
        {
            if (_values[name] is { } value)
                parts.Add($"{name}={value.Replace(",", ",,", StringComparison.Ordinal)}");
        }

        void AddSize(string name)
        {
            if (_values.Size(name) is { } value)
                parts.Add($"{name}={value}");
        }
    }

    /// <summary>Makes it. Options are checked before a file that is there is emptied.</summary>
    public async Task CreateAsync()
    {
        if (FileOpener.ProtocolOf(_name) is var protocol and not "file")
            throw new CommandFailedException($"Protocol driver '{protocol}' does not support image creation");
        if (_format == "raw")
        {
            Preallocation preallocation = ParsePreallocation();
            await using var raw = new RawImage(LocalBlockFile.Create(_path));
            await raw.FormatAsync(_virtualBytes, preallocation);
            return;
        }
        if (_format == "luks")
        {
            await CreateLuksAsync();
            return;
        }
        NewEncryption? encryption = ToEncryption();
        using Secret? secret = encryption?.Secret;
        await CreateOperation.CreateAsync(_path, ToCreateOptions() with { Encryption = encryption });
    }

    /// <summary>How the image is to be encrypted, or null. The caller wipes the secret.</summary>
    public NewEncryption? ToEncryption() => _format switch
    {
        "qcow2" => EncryptionOptions.Parse(_values, _secrets),
        "luks" => EncryptionOptions.ParseLuks(_values, _secrets, prefix: ""),
        _ => null,
    };

    /// <summary>What the image is to be, with a size of its own.</summary>
    public CreateOptions ToCreateOptions(long virtualBytes)
    {
        _virtualBytes = virtualBytes;
        return ToCreateOptions();
    }

    /// <summary>Makes it with a size of its own.</summary>
    public Task CreateAsync(long virtualBytes)
    {
        _virtualBytes = virtualBytes;
        return CreateAsync();
    }

    private async Task CreateLuksAsync()
    {
        Preallocation preallocation = ParsePreallocation();
        NewEncryption encryption = ToEncryption()!;
        using Secret secret = encryption.Secret;
        await CreateLuksOperation.CreateAsync(_path, _virtualBytes, encryption, preallocation);
    }

    private CreateOptions ToCreateOptions()
    {
        return new CreateOptions
        {
            VirtualBytes = _virtualBytes,
            Version = ParseVersion(),
            ClusterBytes = (long)Math.Min(_values.Size("cluster_size") ?? 65536, long.MaxValue),
            RefcountBits = _values.Number("refcount_bits") ?? 16,
            BackingFile = BackingFile,
            BackingFormat = _values["backing_fmt"],
            LazyRefcounts = _values.Switch("lazy_refcounts"),
            DataFile = _values["data_file"] is { Length: > 0 } dataFile ? dataFile : null,
            DataFileRaw = _values.Switch("data_file_raw"),
            ExtendedL2 = _values.Switch("extended_l2"),
            Preallocation = ParsePreallocation(),
            CompressionType = ParseCompressionType(),
        };
    }

    private int ParseVersion() => _values["compat"] switch
    {
        null or "1.1" or "v3" => 3,
        "0.10" or "v2" => 2,
        { } other => throw new CommandFailedException($"Parameter 'version' does not accept value '{other}'"),
    };

    private Preallocation ParsePreallocation() => _values["preallocation"] switch
    {
        null or "off" => Preallocation.Off,
        "metadata" when _format == "qcow2" => Preallocation.Metadata,
        "metadata" when _format == "luks" => Preallocation.Off,
        "falloc" => Preallocation.Falloc,
        "full" => Preallocation.Full,
        { } other => throw new CommandFailedException($"Parameter 'preallocation' does not accept value '{other}'"),
    };

    private CompressionType ParseCompressionType() => _values["compression_type"] switch
    {
        null or "zlib" => CompressionType.Zlib,
        "zstd" => CompressionType.Zstd,
        { } other => throw new CommandFailedException($"Parameter 'compression-type' does not accept value '{other}'"),
    };

    /// <summary>The size of the backing file's disk; a file that is not there fails the create.</summary>
    private async Task<long> BackingBytesAsync(string backingPath)
    {
        bool isOpen = false;
        try
        {
            string? format = _values["backing_fmt"];
            DiskRequest request = DiskRequest.Of(backingPath, isOptionList: false, format) with { Access = ImageAccess.ReadShared };
            await using OpenedFile opened = await DiskOpener.OpenFileAsync(request);
            ImageInfo info = await ImageInfo.ReadAsync(opened.File, opened.Format);
            isOpen = true;
            if (format is null)
            {
                throw new CommandFailedException(
                    $"Backing file specified without backing format\nDetected format of {info.Format}.");
            }
            return info.VirtualBytes;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException || e is CommandFailedException && !isOpen)
        {
            throw new CommandFailedException($"{e.Message}\nCould not open backing image.");
        }
    }
}
