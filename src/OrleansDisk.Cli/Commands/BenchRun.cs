using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Commands;

/// <summary>The requests of odisk bench, all in one turn of the image and its continuations.</summary>
internal sealed class BenchRun(BenchOptions options, IBenchDisk disk)
{
    /// <summary>Requests that did not complete at once, as those do that need no table and no other request to end.</summary>
    private readonly List<Task> _pending = [];

    /// <summary>Buffers that no request is using. Written data never changes, so all writes share one.</summary>
    private readonly Stack<byte[]> _free = new();

    private readonly byte[] _pattern = options.Writes ? Filled(options.RequestBytes, options.Pattern) : [];

    /// <exception cref="CommandFailedException">A request failed.</exception>
    public async Task RunAsync()
    {
        long offset = options.Offset;
        for (int sent = 0; sent < options.Count;)
        {
            while (_pending.Count >= options.Depth)
                await EndOneAsync();
            ValueTask request = SendAsync(offset);
            if (request.IsCompletedSuccessfully)
                request.GetAwaiter().GetResult();
            else
                _pending.Add(request.AsTask());
            offset = Next(offset);
            sent++;
            if (options.FlushInterval > 0 && sent % options.FlushInterval == 0 && !options.IgnoresFlush)
                await StartFlushAsync();
        }
        await DrainAsync();
    }

    private long Next(long offset)
    {
        // Exact: the sum can't reach 2^64.
        ulong next = (ulong)offset + (ulong)options.StepBytes;
        return disk.Bytes <= options.StepBytes ? 0 : (long)(next % (ulong)disk.Bytes);
    }

    private async ValueTask SendAsync(long offset)
    {
        if (offset > disk.Bytes - options.RequestBytes)
            throw Failure("Input/output error");
        try
        {
            if (options.Writes)
                await disk.WriteAsync(offset, _pattern, options.Fua);
            else
                await ReadAsync(offset);
        }
        catch (IOException e)
        {
            throw Failure(ReasonOf(e));
        }
    }

    private async ValueTask ReadAsync(long offset)
    {
        byte[] buffer = _free.TryPop(out byte[]? free) ? free : new byte[options.RequestBytes];
        await disk.ReadAsync(offset, buffer);
        _free.Push(buffer);
    }

    /// <summary>A flush that waits for the writes before it, or one that is under way beside those that follow.</summary>
    private async Task StartFlushAsync()
    {
        if (!options.DrainsBeforeFlush)
        {
            _pending.Add(FlushAsync());
            return;
        }
        await DrainAsync();
        await FlushAsync();
    }

    private async Task FlushAsync()
    {
        try
        {
            await disk.FlushAsync();
        }
        catch (IOException e)
        {
            throw new CommandFailedException($"Failed flush: {ReasonOf(e)}");
        }
    }

    private async Task EndOneAsync()
    {
        Task ended = await Task.WhenAny(_pending);
        _pending.Remove(ended);
        await ended;
    }

    private async Task DrainAsync()
    {
        await Task.WhenAll(_pending);
        _pending.Clear();
    }

    private static CommandFailedException Failure(string reason) => new($"Failed request: {reason}");

    private static string ReasonOf(IOException e) =>
        e is NoSpaceException or BlockFileException { IsNoSpace: true } ? "No space left on device" : "Input/output error";

    private static byte[] Filled(int bytes, byte value)
    {
        byte[] buffer = GC.AllocateUninitializedArray<byte>(bytes);
        Array.Fill(buffer, value);
        return buffer;
    }
}
