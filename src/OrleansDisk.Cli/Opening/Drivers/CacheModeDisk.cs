using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>A disk in a cache mode that is not writeback: every write is flushed (writethrough), or none (unsafe).</summary>
internal sealed class CacheModeDisk(IWritableDisk below, CacheMode mode) : FilterDisk(below)
{
    public override ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false) =>
        base.WriteAsync(offset, data, IsThrough(fua));

    public override ValueTask WriteZeroesAsync(long offset, long bytes, bool mayUnmap, bool fua = false) =>
        base.WriteZeroesAsync(offset, bytes, mayUnmap, IsThrough(fua));

    public override ValueTask DiscardAsync(long offset, long bytes, bool fua = false) => base.DiscardAsync(offset, bytes, IsThrough(fua));

    public override ValueTask FlushAsync() => mode.NoFlush ? ValueTask.CompletedTask : base.FlushAsync();

    private bool IsThrough(bool fua) => (fua || mode.Writethrough) && !mode.NoFlush;
}
