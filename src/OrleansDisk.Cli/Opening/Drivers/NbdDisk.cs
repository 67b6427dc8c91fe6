using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Nbd.Client;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>An export of an NBD server as a disk. Requests are under way side by side.</summary>
/// <param name="connection">The connection, owned by the disk.</param>
/// <param name="name">What messages call the disk.</param>
/// <param name="isReadOnly">Whether the disk is only read.</param>
internal sealed class NbdDisk(NbdConnection connection, string name, bool isReadOnly) : IWritableDisk
{
    /// <summary>Longest range of one request that has no data.</summary>
    private const long MaxRangeBytes = 1 << 30;

    private const uint Hole = 1;
    private const uint Zero = 2;
    private const int InputOutput = 5; // EIO

    private static readonly ReadOnlyMemory<byte> _zeros = new byte[256 << 10];

    /// <summary>The connection on which something was written that no flush has covered since, or null.</summary>
    private NbdClient? _unflushed;

    public string FileName => name;

    public string Format => "nbd";

    public long VirtualBytes => Client.Bytes;

    public IDiskSource? Backing => null;

    public bool IsReadOnly => isReadOnly || Client.IsReadOnly;

    /// <summary>Whether block status tells how deep in the server's chain data lies: more than 2 counts as 2.</summary>
    public bool TellsDepth { private get; init; }

    private NbdClient Client => connection.Client;

    public async ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        int inside = (int)Math.Clamp(VirtualBytes - offset, 0, buffer.Length);
        buffer.Span[inside..].Clear();
        await RunAsync("reading", client => client.ReadAsync(offset, buffer[..inside]));
    }

    public async ValueTask<DiskExtent> GetExtentAsync(long offset, long bytes)
    {
        if (!Client.HasBlockStatus)
            return new DiskExtent(bytes, DiskExtentState.Data, offset);
        NbdExtent extent = default;
        await RunAsync("asking", async client =>
            extent = (await client.GetBlockStatusAsync(offset, (uint)Math.Min(bytes, MaxRangeBytes), onlyFirst: true))[0]);
        uint flags = (TellsDepth ? Math.Min(extent.Flags, 2) : extent.Flags) & (Hole | Zero);
        DiskExtentState state = flags switch
        {
            Hole | Zero => DiskExtentState.Zero,
            Zero => DiskExtentState.DataOfZeros,
            Hole => DiskExtentState.Unknown,
            _ => DiskExtentState.Data,
        };
        return new DiskExtent(Math.Min(bytes, extent.Bytes), state, state == DiskExtentState.Unknown ? null : offset);
    }

    public async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false)
    {
        await RunAsync("writing", client => NotingAsync(client, client.WriteAsync(offset, data, fua && client.CanFua)));
        if (fua && !Client.CanFua)
            await FlushAsync();
    }

    public async ValueTask WriteZeroesAsync(long offset, long bytes, bool mayUnmap, bool fua = false)
    {
        long part = Client.CanWriteZeroes ? MaxRangeBytes : _zeros.Length;
        for (long done = 0; done < bytes; done += part)
        {
            long at = offset + done;
            int length = (int)Math.Min(bytes - done, part);
            await RunAsync("writing zeros to", client => NotingAsync(client, client.CanWriteZeroes
                ? client.WriteZeroesAsync(at, (uint)length, mayUnmap, fua && client.CanFua)
                : client.WriteAsync(at, _zeros[..length], fua && client.CanFua)));
        }
        if (fua && !Client.CanFua)
            await FlushAsync();
    }

    public async ValueTask DiscardAsync(long offset, long bytes, bool fua = false)
    {
        for (long done = 0; Client.CanTrim && done < bytes; done += MaxRangeBytes)
        {
            long at = offset + done;
            await RunAsync("discarding in", client =>
                NotingAsync(client, client.TrimAsync(at, (uint)Math.Min(offset + bytes - at, MaxRangeBytes))));
        }
        if (fua)
            await FlushAsync();
    }

    /// <summary>
    /// Puts on stable storage what was written; fails once when some of that went over a connection that has broken: its
    /// server may have died with it.
    /// </summary>
    public async ValueTask FlushAsync()
    {
        if (IsReadOnly || !Client.CanFlush)
            return;
        await RunAsync("flushing", async client =>
        {
            NbdClient? written = Interlocked.Exchange(ref _unflushed, null);
            if (written is not null && written != client)
                throw Failure("flushing", InputOutput, "the connection broke after writes that were not flushed");
            try
            {
                await client.FlushAsync();
            }
            catch
            {
                _unflushed ??= written;
                throw;
            }
        });
    }

    public Task ResizeAsync(long virtualBytes) => throw new CommandFailedException($"'{name}' is an export, which keeps its size");

    public ValueTask DisposeAsync() => connection.DisposeAsync();

    /// <summary>Waits for a change, and notes that a flush has to cover it.</summary>
    private async Task NotingAsync(NbdClient client, Task change)
    {
        await change;
        // What a broken connection took before stays noted until a flush has told of it.
        Interlocked.CompareExchange(ref _unflushed, client, null);
    }

    private async Task RunAsync(string operation, Func<NbdClient, Task> request)
    {
        try
        {
            await connection.RunAsync(request);
        }
        catch (NbdRequestException e)
        {
            throw Failure(operation, (int)e.Error, e.Message);
        }
        catch (NbdConnectionException e)
        {
            throw Failure(operation, InputOutput, e.Message);
        }
    }

    private BlockFileException Failure(string operation, int error, string reason) => new(operation, name, error, reason);
}
