using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>
/// A file on which sessions linger: others run between a session's look-up and its reading or writing. What turns do is
/// as fast as the file.
/// </summary>
internal sealed class LingeringFile(IBlockFile file) : IBlockFile
{
    private int _calls;

    public string Name => file.Name;

    public bool IsReadOnly => file.IsReadOnly;

    public long LengthBytes => file.LengthBytes;

    public ValueTask ReadAsync(long offset, Memory<byte> buffer) => file.ReadAsync(offset, buffer);

    public bool TryRead(long offset, Span<byte> buffer)
    {
        Linger();
        return file.TryRead(offset, buffer);
    }

    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        Linger();
        file.Write(offset, data);
    }

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data) => file.WriteAsync(offset, data);

    public ValueTask WriteAsync(long offset, IReadOnlyList<ReadOnlyMemory<byte>> pieces) => file.WriteAsync(offset, pieces);

    public ValueTask FlushAsync() => file.FlushAsync();

    public ValueTask<bool> PunchHoleAsync(long offset, long bytes) => file.PunchHoleAsync(offset, bytes);

    public ValueTask SetLengthAsync(long bytes) => file.SetLengthAsync(bytes);

    public FileExtent GetExtent(long offset, long limit) => file.GetExtent(offset, limit);

    public ValueTask DisposeAsync() => file.DisposeAsync();

    private void Linger()
    {
        // Mostly a little, now and then for as long as many turns take.
        int call = Interlocked.Increment(ref _calls);
        for (int yields = call % 32 == 0 ? 200 : call % 4; yields > 0; yields--)
            Thread.Yield();
    }
}
