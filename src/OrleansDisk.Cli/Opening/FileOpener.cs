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
    public static bool IsProtocol(string driver) => driver is "file" or "host_device" or "nbd";

    /// <summary>The driver that a name asks for by what stands before its first colon.</summary>
    /// <exception cref="CommandFailedException">There is no such driver.</exception>
    public static string ProtocolOf(string? name)
    {
        if (name is null || name.IndexOf(':', StringComparison.Ordinal) is not (> 0 and int colon) || name.AsSpan(0, colon).Contains('/'))
            return "file";
        string protocol = name[..colon];
        return protocol switch
        {
            "file" or "blkdebug" or "null-co" or "null-aio" => protocol,
            "nbd" or "nbd+tcp" or "nbd+unix" or "nbds" or "nbds+tcp" or "nbds+unix" => "nbd",
            "host_device" => "file",
            _ => throw new CommandFailedException($"Unknown protocol '{protocol}'"),
        };
    }

    /// <summary>Opens a file by its name or by options.</summary>
    public async Task<IBlockFile> OpenAsync(string? name, BlockOptions options, ImageAccess access)
    {
        if (name is not null && BlockOptionText.IsJson(name))
            return new DiskFile((IWritableDisk)await openDisk(name, options, access));
        string driver = options.Take("driver") ?? ProtocolOf(name ?? options["filename"]);
        switch (driver)
        {
            case "file" or "host_device":
                return OpenLocal(driver, name, options, access);
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

    private LocalBlockFile OpenLocal(string driver, string? name, BlockOptions options, ImageAccess access)
    {
        string path = name ?? options.Take("filename")
            ?? throw new CommandFailedException("The 'file' block driver requires a file name");
        if (path.StartsWith("file:", StringComparison.Ordinal))
            path = path["file:".Length..];
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
        return LocalBlockFile.Open(path, access, isDirect);
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
