using System.Collections.Concurrent;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;

namespace OrleansDisk.Nbd.Tests.Fixtures;

/// <summary>An export of 4 TiB without bytes: its second quarter is data and the rest a hole, and it keeps what it was asked.</summary>
internal sealed class HugeExport : INbdExport
{
    public const long Quarter = 1L << 40;

    public string Name => "";

    public string Description => "";

    public IReadOnlyList<string> MetaContexts { get; } = ["qemu:allocation-depth", "qemu:dirty-bitmap:changes"];

    public ConcurrentQueue<SeenRequest> Seen { get; } = new();

    public ValueTask<INbdExportSession> ConnectAsync(CancellationToken cancellation) => new(new Session(this));

    private sealed class Session(HugeExport export) : INbdExportSession
    {
        public NbdExportInfo Info => MemoryExport.FullInfo(4 * Quarter);

        public void Submit(ReadOnlySpan<NbdRequest> batch)
        {
            foreach (NbdRequest request in batch)
            {
                export.Seen.Enqueue(new SeenRequest(request.Command, request.Flags, request.Offset, request.Length));
                if (request.Command == NbdCommand.BlockStatus)
                    Describe(request);
                request.Complete(NbdError.None);
            }
        }

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;

        private static void Describe(NbdRequest request)
        {
            for (long at = request.Offset; at < 4 * Quarter && request.WantsAllocation;)
            {
                long end = (at / Quarter + 1) * Quarter;
                if (!request.AddExtent(end - at, at / Quarter == 1 ? NbdExtentState.Data : NbdExtentState.Hole | NbdExtentState.Zero))
                    break;
                at = end;
            }
            foreach (int context in request.WantedContexts)
                request.AddExtent(context, 4 * Quarter - request.Offset, (uint)(7 + context));
        }
    }
}
