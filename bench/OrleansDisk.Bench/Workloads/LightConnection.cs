using System.Buffers.Binary;
using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using OrleansDisk.Bench.Servers;
using OrleansDisk.Bench.Tools;
using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Bench.Workloads;

/// <summary>
/// One connection of the light load: a thread that keeps a number of requests under way with as few system calls as it
/// can. What one receive brings is answered with one send.
/// </summary>
internal sealed class LightConnection : IDisposable
{
    private const int SimpleReplyBytes = 16;
    private const int GreetingBytes = 18;
    private const int ExportInfoBytes = 10;

    private readonly LightShape _shape;
    private readonly Socket _socket;
    private readonly Random _random;
    private readonly byte[] _sending;
    private readonly byte[] _received;
    private readonly bool[] _isWrite;
    private int _sendingBytes;
    private int _receivedBytes;

    public LightConnection(Endpoint server, LightShape shape, int seed)
    {
        (_shape, _random) = (shape, new Random(seed));
        _isWrite = new bool[shape.Depth];
        _sending = new byte[shape.Depth * (RequestHeader.HeaderBytes + LightShape.BlockBytes)];
        _received = new byte[shape.Depth * (SimpleReplyBytes + LightShape.BlockBytes)];
        _socket = server.Connect();
        try
        {
            Negotiate();
        }
        catch
        {
            _socket.Dispose();
            throw;
        }
    }

    /// <summary>Sends requests over a range until the time is over or their number is reached; returns the number.</summary>
    /// <exception cref="BenchException">A request failed, or the server went.</exception>
    public long Run(long firstByte, long bytes, TimeSpan time, long limit)
    {
        long blockCount = bytes / LightShape.BlockBytes;
        long end = time == Timeout.InfiniteTimeSpan ? long.MaxValue : Stopwatch.GetTimestamp() + (long)(time.TotalSeconds * Stopwatch.Frequency);
        long started = 0;
        long answered = 0;
        for (; started < Math.Min(_shape.Depth, limit); started++)
            Add((int)started, firstByte + (_random.NextInt64(blockCount) * LightShape.BlockBytes));
        Send();
        while (answered < started)
        {
            Receive();
            bool goesOn = Stopwatch.GetTimestamp() < end;
            int at = 0;
            while (TryTakeReply(ref at, out int slot))
            {
                answered++;
                if (!goesOn || started == limit)
                    continue;
                started++;
                Add(slot, firstByte + (_random.NextInt64(blockCount) * LightShape.BlockBytes));
            }
            _received.AsSpan(at, _receivedBytes - at).CopyTo(_received);
            _receivedBytes -= at;
            Send();
        }
        return answered;
    }

    public void Dispose() => _socket.Dispose();

    /// <summary>NBD_OPT_EXPORT_NAME: the shortest handshake, which leaves the replies simple.</summary>
    private void Negotiate()
    {
        ReceiveExactly(GreetingBytes);
        byte[] name = Encoding.UTF8.GetBytes(Endpoint.Export);
        byte[] message = new byte[20 + name.Length];
        BinaryPrimitives.WriteUInt32BigEndian(message, (uint)(NbdClientFlags.FixedNewstyle | NbdClientFlags.NoZeroes));
        BinaryPrimitives.WriteUInt64BigEndian(message.AsSpan(4), NbdMagic.Option);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(12), (uint)NbdOption.ExportName);
        BinaryPrimitives.WriteUInt32BigEndian(message.AsSpan(16), (uint)name.Length);
        name.CopyTo(message, 20);
        _socket.Send(message);
        ReceiveExactly(ExportInfoBytes);
    }

    private void ReceiveExactly(int bytes)
    {
        for (int done = 0; done < bytes;)
        {
            int received = _socket.Receive(_received.AsSpan(done, bytes - done));
            if (received == 0)
                throw new BenchException("the server ended the handshake");
            done += received;
        }
    }

    private void Add(int slot, long offset)
    {
        bool isWrite = _shape.IsWrite;
        _isWrite[slot] = isWrite;
        NbdCommand command = isWrite ? NbdCommand.Write : NbdCommand.Read;
        new RequestHeader(NbdMagic.Request, NbdCommandFlags.None, command, (ulong)slot, (ulong)offset, LightShape.BlockBytes)
            .WriteTo(_sending.AsSpan(_sendingBytes));
        _sendingBytes += RequestHeader.HeaderBytes + (isWrite ? LightShape.BlockBytes : 0);
    }

    private void Send()
    {
        for (int done = 0; done < _sendingBytes;)
            done += _socket.Send(_sending.AsSpan(done, _sendingBytes - done));
        _sendingBytes = 0;
    }

    private void Receive()
    {
        int received = _socket.Receive(_received.AsSpan(_receivedBytes));
        if (received == 0)
            throw new BenchException("the server ended the connection");
        _receivedBytes += received;
    }

    private bool TryTakeReply(ref int at, out int slot)
    {
        slot = 0;
        ReadOnlySpan<byte> reply = _received.AsSpan(at, _receivedBytes - at);
        if (reply.Length < SimpleReplyBytes)
            return false;
        if (BinaryPrimitives.ReadUInt64BigEndian(reply) != (ulong)NbdMagic.SimpleReply << 32)
            throw new BenchException("a request failed, or the server broke the protocol");
        slot = (int)BinaryPrimitives.ReadUInt64BigEndian(reply[8..]);
        int bytes = SimpleReplyBytes + (_isWrite[slot] ? 0 : LightShape.BlockBytes);
        if (reply.Length < bytes)
            return false;
        at += bytes;
        return true;
    }
}
