using OrleansDisk.Abstractions;
using OrleansDisk.Client;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;

namespace OrleansDisk.Server.Exports;

/// <summary>NBD requests on their way to a grain; used again and again.</summary>
internal sealed class NbdBatch : ImageBatch
{
    /// <summary>The longest range that a grain is asked about at once, which bounds its answer: the client asks again for the rest.</summary>
    public const long MaxStatusBytes = 1L << 32;

    private NbdRequest?[] _nbdRequests = new NbdRequest?[8];
    private SectorRequest[] _sectorRequests = new SectorRequest[8];
    private int _count;

    public void Add(NbdRequest request)
    {
        if (_count == _nbdRequests.Length)
        {
            Array.Resize(ref _nbdRequests, _count * 2);
            Array.Resize(ref _sectorRequests, _count * 2);
        }
        _nbdRequests[_count] = request;
        _sectorRequests[_count++] = new SectorRequest
        {
            Command = CommandOf(request.Command),
            Flags = FlagsOf(request),
            Offset = request.Offset,
            Bytes = request.Command == NbdCommand.BlockStatus ? Math.Min(request.Length, MaxStatusBytes) : request.Length,
            Payload = request.Command == NbdCommand.Write ? request.Buffer : default,
        };
    }

    /// <summary>Ends the adding; whether there is anything to send.</summary>
    public bool Close()
    {
        Requests = _sectorRequests.AsMemory(0, _count);
        return _count > 0;
    }

    public void Clear()
    {
        Array.Clear(_sectorRequests, 0, _count);
        _count = 0;
    }

    protected override Memory<byte> ReadTarget(int index) => _nbdRequests[index]!.Buffer;

    protected override bool AddExtent(int index, SectorExtent extent)
    {
        NbdExtentState state = (extent.IsHole ? NbdExtentState.Hole : NbdExtentState.Data)
            | (extent.IsZero ? NbdExtentState.Zero : NbdExtentState.Data);
        NbdRequest request = _nbdRequests[index]!;
        return request.AddExtent(extent.Bytes, state);
    }

    protected override void OnCompleted(int index, SectorError error, string? message)
    {
        NbdRequest request = _nbdRequests[index]!;
        _nbdRequests[index] = null;
        request.Complete(ErrorOf(error), message);
    }

    private static SectorCommand CommandOf(NbdCommand command) => command switch
    {
        NbdCommand.Read => SectorCommand.Read,
        NbdCommand.Write => SectorCommand.Write,
        NbdCommand.Trim => SectorCommand.Discard,
        NbdCommand.WriteZeroes => SectorCommand.WriteZeroes,
        NbdCommand.BlockStatus => SectorCommand.Status,
        _ => SectorCommand.Flush,
    };

    private static SectorFlags FlagsOf(NbdRequest request)
    {
        NbdCommandFlags flags = request.Flags;
        return ((flags & NbdCommandFlags.Fua) != 0 ? SectorFlags.Fua : 0)
            | ((flags & NbdCommandFlags.NoHole) != 0 ? SectorFlags.KeepAllocated : 0)
            | ((flags & NbdCommandFlags.RequestOne) != 0 ? SectorFlags.OneExtent : 0)
            | (request.WantsHoles ? SectorFlags.ReportHoles : 0);
    }

    internal static NbdError ErrorOf(SectorError error) => error switch
    {
        SectorError.None => NbdError.None,
        SectorError.NoSpace => NbdError.NoSpace,
        SectorError.InvalidArgument => NbdError.InvalidArgument,
        SectorError.ReadOnly or SectorError.Locked => NbdError.NotPermitted,
        SectorError.NotSupported => NbdError.NotSupported,
        SectorError.Unavailable => NbdError.ShuttingDown,
        _ => NbdError.InputOutput,
    };
}
