using OrleansDisk.Cli.Opening.Blkdebug;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Opening;

/// <summary>The file of an image, with its format known: what commands need that work on the file itself.</summary>
/// <param name="File">The file.</param>
/// <param name="Format">"qcow2" or "raw".</param>
/// <param name="Options">The options that are left: those of the format.</param>
/// <param name="IsProbed">Whether nobody gave the format.</param>
internal sealed record OpenedFile(IBlockFile File, string Format, BlockOptions Options, bool IsProbed) : IAsyncDisposable
{
    /// <summary>The decorator that injects errors into the file, or null.</summary>
    public BlkdebugFile? Blkdebug { get; init; }

    /// <summary>The driver of files that was asked for in place of a format, or null.</summary>
    public string? Protocol { get; init; }

    public ValueTask DisposeAsync() => File.DisposeAsync();
}
