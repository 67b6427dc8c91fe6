using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening.Blkdebug;
using OrleansDisk.Cli.Opening.Drivers;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Opening;

/// <summary>Opens what an image lies in: a file, or what its name or its driver says.</summary>
/// <param name="openDisk">Opens a disk that is to serve as a file.</param>
internal sealed class FileOpener(Func<string?, BlockOptions, ImageAccess, Task<IDiskSource>> openDisk)
{
    /// <summary>Whether files pass the host's page cache by, unless their own options say otherwise.</summary>
    public bool IsDirect { get; set; }

    /// <summary>The rules of the last blkdebug driver that was opened, or null.</summary>
    public BlkdebugRules? Rules { get; private set; }

    /// <summary>Whether a driver is one of files, and not of a format or a filter.</summary>
    public static bool IsProtocol(string driver) => driver is "file" or "host_device" or "host_cdrom" or "nbd";

    /// <summary>The driver that a name asks for by what stands before its first colon.</summary>
    /// <exception cref="CommandFailedException">There is no such driver.</exception>
    public static string ProtocolOf(string? name)
    {
        string? protocol = ProtocolPart(name);
        return protocol switch
        {
            null => "file",
            "file" or "blkdebug" or "null-co" or "null-aio" => protocol,
            "nbd" or "nbd+tcp" or "nbd+unix" or "nbds" or "nbds+tcp" or "nbds+unix" => "nbd",
            "host_device" or "host_cdrom" => "file",
            _ => throw new CommandFailedException($"Unknown protocol '{protocol}'"),
        };
    }

    /// <summary>Opens a file by its name or by options.</summary>
    public async Task<IBlockFile> OpenAsync(string? name, BlockOptions options, ImageAccess access)
    {
        if (name is not null && BlockOptionText.IsJson(name))
            return new DiskFile((IWritableDisk)await openDisk(name, options, access));
        string? given = options.Take("driver");
        string driver = given ?? ProtocolOf(name ?? options["filename"]);
        switch (driver)
        {
            case "file" or "host_device" or "host_cdrom":
                return OpenLocal(driver, isGiven: given is not null, name, options, access);
            case "blkdebug":
                return await OpenBlkdebugAsync(name, options, access);
            default:
                options["driver"] = driver;
                return new DiskFile((IWritableDisk)await openDisk(name, options, access));
        }
    }

    /// <summary>The disk of a null driver.</summary>
    public static NullDisk OpenNull(string driver, BlockOptions options, ImageAccess access)
    {
        long bytes = options.TakeSize("size") ?? NullDisk.DefaultBytes;
        _ = options.TakeSwitch("read-zeroes");
        _ = options.Take("latency-ns");
        options.RefuseRestOfProtocol(driver);
        return new NullDisk(bytes, access != ImageAccess.Write);
    }

    /// <summary>The path of a local file that a name means: without its protocol, and in a form that has none.</summary>
    public static string PathOf(string name)
    {
        foreach (string protocol in (ReadOnlySpan<string>)["file:", "host_device:", "host_cdrom:"])
        {
            if (!name.StartsWith(protocol, StringComparison.Ordinal))
                continue;
            string path = name[protocol.Length..];
            return ProtocolPart(path) is null ? path : $"./{path}";
        }
        return name;
    }

    /// <summary>What stands before a colon that comes before any slash, or null.</summary>
    private static string? ProtocolPart(string? name) =>
        name?.IndexOf(':', StringComparison.Ordinal) is > 0 and int colon && !name.AsSpan(0, colon).Contains('/') ? name[..colon] : null;

    private IBlockFile OpenLocal(string driver, bool isGiven, string? name, BlockOptions options, ImageAccess access)
    {
        string path = PathOf(name ?? options.Take("filename")
            ?? throw new CommandFailedException("The 'file' block driver requires a file name"));
        _ = options.TakeSwitch("read-only");
        _ = options.TakeSwitch("auto-read-only");
        foreach (string tuning in (ReadOnlySpan<string>)["aio", "aio-max-batch", "pr-manager", "drop-cache", "x-check-cache-dropped",
            "cache.no-flush", "discard", "detect-zeroes", "node-name", "force-share"])
        {
            _ = options.Take(tuning);
        }
        bool isDirect = options.TakeSwitch("cache.direct") ?? IsDirect;
        string locking = options.Take("locking") ?? "auto";
        if (locking is not ("auto" or "on" or "off"))
            throw new CommandFailedException($"Parameter 'locking' does not accept value '{locking}'");
        if (locking == "off" && access == ImageAccess.Read)
            access = ImageAccess.ReadShared;
        options.RefuseRestOfProtocol(driver);
        if (driver != "file" && FileSpace.IsCharacterDevice(path))
            return new DiskFile(new NullDisk(0, access != ImageAccess.Write)); // none holds a disk
        RefuseOtherKinds(path, driver, isGiven, access);
        return LocalBlockFile.Open(path, access, isDirect);
    }

    /// <summary>Who names a driver means it: files are not devices. Without it, both will do.</summary>
    private static void RefuseOtherKinds(string path, string driver, bool isGiven, ImageAccess access)
    {
        if (Directory.Exists(path) && access == ImageAccess.Write)
            return; // refused where it is opened, as the system puts it
        if (driver == "file" && FileSpace.IsIrregular(path) && (isGiven || FileSpace.IsNoDevice(path)))
            throw new CommandFailedException($"'file' driver requires '{path}' to be a regular file");
        if (driver != "file" && FileSpace.IsNoDevice(path))
            throw new CommandFailedException($"'{driver}' driver requires '{path}' to be either a character or block device");
    }

    private async Task<IBlockFile> OpenBlkdebugAsync(string? name, BlockOptions options, ImageAccess access)
    {
        name ??= options.Take("filename");
        BlkdebugRules rules = DiskOpener.TakeBlkdebug(ref name, options);
        BlockOptions below = options.TakeChild("image");
        options.RefuseRestOfProtocol("blkdebug");
        IBlockFile file = await OpenAsync(name, below, access);
        Rules = rules;
        await rules.TriggerAsync(BlkdebugEvents.None);
        return new BlkdebugFile(file, rules);
    }
}
