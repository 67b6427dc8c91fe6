using System.Threading.Tasks.Sources;

namespace OrleansDisk.Qcow2.Io;

/// <summary>Fills <paramref name="target"/> from <paramref name="offset"/>; may wait for the disk.</summary>
internal delegate void ReadBytes(long offset, Span<byte> target);

/// <summary>
/// The reads of one file that wait for the disk. Their operations are used again, so that a read costs no allocation.
/// </summary>
/// <param name="lane">Where they run.</param>
/// <param name="readBytes">Reads and may block; what it throws, the read fails with.</param>
internal sealed class BlockingReads(IoLane lane, ReadBytes readBytes)
{
    /// <summary>Operations that are kept; a disk rarely has more to do at once.</summary>
    private const int MaxKept = 256;

    private readonly Lock _gate = new();
    private readonly Stack<BlockingRead> _free = new();

    /// <summary>Fills <paramref name="buffer"/>, which is not touched any more once the read is completed.</summary>
    /// <exception cref="ObjectDisposedException">The file is closed.</exception>
    public ValueTask StartAsync(long offset, Memory<byte> buffer)
    {
        BlockingRead? read;
        lock (_gate)
        {
            if (!_free.TryPop(out read))
                read = new BlockingRead(this);
        }
        return read.Start(offset, buffer);
    }

    private void Start(BlockingRead read) => lane.Start(read);

    private void Run(long offset, Span<byte> buffer)
    {
        try
        {
            readBytes(offset, buffer);
        }
        finally
        {
            lane.LetGo();
        }
    }

    private void Keep(BlockingRead read)
    {
        lock (_gate)
        {
            if (_free.Count < MaxKept)
                _free.Push(read);
        }
    }

    private sealed class BlockingRead(BlockingReads owner) : IValueTaskSource, IThreadPoolWorkItem
    {
        // What follows a read must not keep its thread from the next one.
        private ManualResetValueTaskSourceCore<bool> _completion = new() { RunContinuationsAsynchronously = true };
        private Memory<byte> _buffer;
        private long _offset;

        public ValueTask Start(long offset, Memory<byte> buffer)
        {
            (_offset, _buffer) = (offset, buffer);
            var read = new ValueTask(this, _completion.Version);
            owner.Start(this);
            return read;
        }

        void IThreadPoolWorkItem.Execute()
        {
            Exception? failure = null;
            try
            {
                owner.Run(_offset, _buffer.Span);
            }
            catch (Exception e)
            {
                failure = e;
            }
            _buffer = default;
            if (failure is null)
                _completion.SetResult(true);
            else
                _completion.SetException(failure);
        }

        void IValueTaskSource.GetResult(short token)
        {
            try
            {
                _completion.GetResult(token);
            }
            finally
            {
                _completion.Reset();
                owner.Keep(this);
            }
        }

        ValueTaskSourceStatus IValueTaskSource.GetStatus(short token) => _completion.GetStatus(token);

        void IValueTaskSource.OnCompleted(
            Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
            _completion.OnCompleted(continuation, state, token, flags);
    }
}
