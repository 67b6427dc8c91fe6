using OrleansDisk.Cli.CommandLine;

namespace OrleansDisk.Cli.Opening;

/// <summary>How writes come to stable storage: QEMU's cache modes.</summary>
/// <param name="Direct">Whether the host's page cache is passed by (cache.direct).</param>
/// <param name="NoFlush">Whether flushes are ignored (cache.no-flush).</param>
/// <param name="Writethrough">Whether each write is followed by a flush.</param>
internal readonly record struct CacheMode(bool Direct, bool NoFlush, bool Writethrough)
{
    public static CacheMode Writeback => default;

    /// <exception cref="CommandFailedException">There is no such mode; QEMU's tools differ in the words.</exception>
    public static CacheMode Parse(string name, Func<string, string> complaint) => name switch
    {
        "none" or "off" => new CacheMode(Direct: true, NoFlush: false, Writethrough: false),
        "directsync" => new CacheMode(Direct: true, NoFlush: false, Writethrough: true),
        "writeback" => Writeback,
        "unsafe" => new CacheMode(Direct: false, NoFlush: true, Writethrough: false),
        "writethrough" => new CacheMode(Direct: false, NoFlush: false, Writethrough: true),
        _ => throw new CommandFailedException(complaint(name)),
    };
}
