using BenchmarkDotNet.Attributes;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;

namespace OrleansDisk.MicroBenchmarks;

/// <summary>Requests and replies as they lie on the wire.</summary>
public class NbdMessages
{
    private readonly byte[] _request = new byte[RequestHeader.HeaderBytes];
    private readonly ReplyBuffer _reply = new(new BufferPool());

    [GlobalSetup]
    public void Setup() =>
        new RequestHeader(NbdMagic.Request, NbdCommandFlags.Fua, NbdCommand.Write, 1234, 1 << 30, 4096).WriteTo(_request);

    [Benchmark]
    public long ParseRequest()
    {
        var header = RequestHeader.Parse(_request);
        return (long)(header.Offset + header.PayloadBytes);
    }

    [Benchmark]
    public int SimpleReply()
    {
        _reply.Start(ReplyBuffer.SimpleReplyBytes);
        _reply.AddSimple(1234, NbdError.None);
        int pieces = _reply.PieceCount;
        _reply.End();
        return pieces;
    }
}
