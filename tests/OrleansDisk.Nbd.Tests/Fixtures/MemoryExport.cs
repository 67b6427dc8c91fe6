using System.Collections.Concurrent;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;

namespace OrleansDisk.Nbd.Tests.Fixtures;

/// <summary>A request as the export saw it.</summary>
internal readonly record struct SeenRequest(NbdCommand Command, NbdCommandFlags Flags, long Offset, long Length);

/// <summary>An export in memory that knows which 4 KiB blocks were written and reports the others as holes.</summary>
internal sealed class MemoryExport(string name, NbdExportInfo info) : INbdExport
{
    private const int BlockBytes = 4096;

    private readonly byte[] _bytes = new byte[info.Bytes];
    private readonly bool[] _allocated = new bool[(info.Bytes + BlockBytes - 1) / BlockBytes];
    private readonly Lock _gate = new();
    private int _sessionCount;

    public string Name { get; } = name;

    public string Description { get; init; } = "";

    public IReadOnlyList<string> MetaContexts { get; init; } = [];

    public NbdExportInfo Info { get; } = info;

    /// <summary>Every request, when set before the first connection.</summary>
    public ConcurrentQueue<SeenRequest>? Seen { get; init; }

    /// <summary>Takes a request over from the export: whoever sets this completes those for which it returns true.</summary>
    public Func<NbdRequest, bool>? Intercept { get; set; }

    /// <summary>Makes connecting fail with this message.</summary>
    public string? ConnectError { get; init; }

    /// <summary>Completes requests on other threads and out of order.</summary>
    public bool IsAsynchronous { get; init; }

    /// <summary>Sessions open now.</summary>
    public int SessionCount => Volatile.Read(ref _sessionCount);

    public byte[] Contents => _bytes;

    public static NbdExportInfo FullInfo(long bytes) => new(bytes)
    {
        CanTrim = true,
        CanWriteZeroes = true,
        CanFastZero = true,
        CanCache = true,
        CanMultiConnect = true,
    };

    public ValueTask<INbdExportSession> ConnectAsync(CancellationToken cancellation)
    {
        if (ConnectError is not null)
            throw new NbdExportException(ConnectError);
        Interlocked.Increment(ref _sessionCount);
        return ValueTask.FromResult<INbdExportSession>(new Session(this));
    }

    public void Allocate()
    {
        lock (_gate)
            Array.Fill(_allocated, true);
    }

    private void Execute(NbdRequest request)
    {
        Seen?.Enqueue(new SeenRequest(request.Command, request.Flags, request.Offset, request.Length));
        if (Intercept?.Invoke(request) == true)
            return;
        lock (_gate)
        {
            Span<byte> range = _bytes.AsSpan((int)request.Offset, (int)request.Length);
            switch (request.Command)
            {
                case NbdCommand.Read:
                    Read(request, range);
                    break;
                case NbdCommand.Write:
                    request.Buffer.Span.CopyTo(range);
                    Mark(request, true);
                    break;
                case NbdCommand.WriteZeroes:
                    range.Clear();
                    Mark(request, (request.Flags & NbdCommandFlags.NoHole) != 0);
                    break;
                case NbdCommand.Trim:
                    range.Clear();
                    Mark(request, false);
                    break;
                case NbdCommand.BlockStatus:
                    AddExtents(request);
                    break;
            }
        }
        request.Complete(NbdError.None);
    }

    private void Read(NbdRequest request, Span<byte> range)
    {
        if (request.WantsHoles)
        {
            // Garbage under the holes shows whether the server minds the extents.
            request.Buffer.Span.Fill(0xee);
            AddExtents(request);
            long end = request.Offset + request.Length;
            for (long at = request.Offset; at < end;)
            {
                long next = Math.Min(end, (at / BlockBytes + 1) * BlockBytes);
                int start = (int)(at - request.Offset);
                if (_allocated[at / BlockBytes])
                    range[start..(int)(next - request.Offset)].CopyTo(request.Buffer.Span[start..]);
                at = next;
            }
            return;
        }
        range.CopyTo(request.Buffer.Span);
    }

    private void AddExtents(NbdRequest request)
    {
        long end = request.Offset + request.Length;
        for (long at = request.Offset; at < end;)
        {
            long next = Math.Min(end, (at / BlockBytes + 1) * BlockBytes);
            bool isData = _allocated[at / BlockBytes];
            NbdExtentState state = isData ? NbdExtentState.Data : NbdExtentState.Hole | NbdExtentState.Zero;
            if (!request.AddExtent(next - at, state))
                return;
            at = next;
        }
    }

    private void Mark(NbdRequest request, bool allocated)
    {
        long end = request.Offset + request.Length;
        // Discards whole blocks only: the rest of a block keeps its zeros.
        long first = allocated ? request.Offset / BlockBytes : (request.Offset + BlockBytes - 1) / BlockBytes;
        long last = allocated ? (end + BlockBytes - 1) / BlockBytes : end / BlockBytes;
        for (long i = first; i < last; i++)
            _allocated[i] = allocated;
    }

    private sealed class Session(MemoryExport export) : INbdExportSession
    {
        private readonly List<NbdRequest> _later = [];

        public NbdExportInfo Info => export.Info;

        public void Submit(ReadOnlySpan<NbdRequest> batch)
        {
            if (!export.IsAsynchronous)
            {
                foreach (NbdRequest request in batch)
                    export.Execute(request);
                return;
            }
            lock (_later)
                _later.AddRange(batch);
            for (int i = 0; i < batch.Length; i++)
                ThreadPool.UnsafeQueueUserWorkItem(_ => ExecuteLast(), null);
        }

        public ValueTask DisposeAsync()
        {
            Interlocked.Decrement(ref export._sessionCount);
            return ValueTask.CompletedTask;
        }

        private void ExecuteLast()
        {
            NbdRequest request;
            lock (_later)
            {
                request = _later[^1];
                _later.RemoveAt(_later.Count - 1);
            }
            export.Execute(request);
        }
    }
}
