namespace OrleansDisk.Nbd.Server;

/// <summary>The free requests of one connection, last used first: their memory is warm.</summary>
internal sealed class RequestPool(BufferPool buffers)
{
    private const int MaxKept = 256;
    private const int MaxKeptBuffers = 64;

    private readonly Lock _gate = new();
    private readonly Stack<PooledRequest> _free = new();

    public PooledRequest Rent(IReplyTarget target)
    {
        lock (_gate)
        {
            if (_free.TryPop(out PooledRequest? free))
                return free;
        }
        return new PooledRequest(target, buffers);
    }

    /// <summary>Takes back requests whose replies are sent; returns what they had charged, in bytes.</summary>
    public long Recycle(List<PooledRequest> requests, int start, int end)
    {
        long bytes = 0;
        lock (_gate)
        {
            for (int i = start; i < end; i++)
            {
                bytes += requests[i].ChargedBytes;
                if (requests[i].Recycle(keepsBuffer: _free.Count < MaxKeptBuffers) && _free.Count < MaxKept)
                    _free.Push(requests[i]);
            }
        }
        return bytes;
    }
}
