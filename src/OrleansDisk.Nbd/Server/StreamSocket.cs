using System.Net.Security;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using OrleansDisk.Nbd.Tls;

namespace OrleansDisk.Nbd.Server;

/// <summary>One piece of a vectored send or receive: <c>struct iovec</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct IoVector(byte* start, nint bytes)
{
    public byte* Start = start;
    public nint Bytes = bytes;
}

/// <summary>The peer is gone, or the connection was shut down from our side, in the middle of a message.</summary>
internal sealed class ConnectionEndedException() : IOException("the connection ended");

/// <summary>
/// A connected stream socket (unix or TCP) with the few system calls of the server, by libc: blocking receive, and
/// a send that never blocks. <see cref="Socket"/> has no vectored send of pointers and no per-call MSG_DONTWAIT, and
/// its non-blocking mode would apply to the receiving side too.
/// </summary>
internal sealed unsafe partial class StreamSocket : IDisposable
{
    private const int Interrupted = 4;
    private const int TryAgain = 11;
    private const int DontWaitFlag = 0x40;
    private const int NoSignalFlag = 0x4000;
    private const short PollIn = 1;
    private const short PollOut = 4;

    private readonly Lock _closing = new();
    private Socket _socket;
    private int _descriptor;
    private TlsRelay? _relay;
    private bool _closed;

    public StreamSocket(Socket socket)
    {
        socket.Blocking = true;
        if (socket.AddressFamily != AddressFamily.Unix)
        {
            socket.NoDelay = true;
            socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
        }
        _socket = socket;
        _descriptor = (int)socket.Handle;
    }

    /// <summary>Waits for bytes; 0 when there will be none any more.</summary>
    public int Receive(Span<byte> target)
    {
        fixed (byte* start = target)
        {
            while (true)
            {
                nint received = ReceiveCall(_descriptor, start, (nuint)target.Length, 0);
                if (received >= 0)
                    return (int)received;
                if (Marshal.GetLastPInvokeError() != Interrupted)
                    return 0;
            }
        }
    }

    /// <summary>The bytes that are there; 0 when there will be none any more, -1 when there are none yet.</summary>
    public int TryReceive(Span<byte> target)
    {
        fixed (byte* start = target)
        {
            nint received = ReceiveCall(_descriptor, start, (nuint)target.Length, DontWaitFlag);
            if (received >= 0)
                return (int)received;
            return Marshal.GetLastPInvokeError() is TryAgain or Interrupted ? -1 : 0;
        }
    }

    /// <summary>Waits for bytes, which fill the first piece before the second; 0 when there will be none any more.</summary>
    public int Receive(IoVector first, IoVector second)
    {
        IoVector* pieces = stackalloc IoVector[2] { first, second };
        while (true)
        {
            nint received = ReadVectorCall(_descriptor, pieces, 2);
            if (received >= 0)
                return (int)received;
            if (Marshal.GetLastPInvokeError() != Interrupted)
                return 0;
        }
    }

    /// <exception cref="ConnectionEndedException">The peer closed before all of it came.</exception>
    public void ReceiveExactly(Span<byte> target)
    {
        while (target.Length > 0)
        {
            int received = Receive(target);
            if (received == 0)
                throw new ConnectionEndedException();
            target = target[received..];
        }
    }

    /// <summary>Sends what the socket takes without waiting: bytes sent, 0 if it would block, -1 if the peer is gone.</summary>
    public nint TrySend(IoVector* pieces, int count)
    {
        var message = new MessageHeader { Pieces = pieces, PieceCount = (nuint)count };
        while (true)
        {
            nint sent = SendMessageCall(_descriptor, &message, DontWaitFlag | NoSignalFlag);
            if (sent >= 0)
                return sent;
            int error = Marshal.GetLastPInvokeError();
            if (error == TryAgain)
                return 0;
            if (error != Interrupted)
                return -1;
        }
    }

    /// <summary>Waits until the socket takes bytes or is broken.</summary>
    public void WaitWritable() => Wait(PollOut);

    /// <summary>Waits until there are bytes, or the socket takes some, or it is broken, which counts as both.</summary>
    public (bool IsReadable, bool IsWritable) WaitEitherWay()
    {
        short ready = Wait(PollIn | PollOut);
        bool isBroken = (ready & ~(PollIn | PollOut)) != 0;
        return (isBroken || (ready & PollIn) != 0, isBroken || (ready & PollOut) != 0);
    }

    /// <exception cref="ConnectionEndedException">The peer is gone.</exception>
    public void Send(ReadOnlySpan<byte> source)
    {
        fixed (byte* start = source)
        {
            nint done = 0;
            while (done < source.Length)
            {
                var piece = new IoVector(start + done, source.Length - done);
                nint sent = TrySend(&piece, 1);
                if (sent < 0)
                    throw new ConnectionEndedException();
                if (sent == 0)
                    WaitWritable();
                done += sent;
            }
        }
    }

    /// <summary>Goes on encrypted, after a TLS handshake; on the thread that receives and sends, with nothing under way.</summary>
    /// <exception cref="IOException">The handshake failed; the message says why.</exception>
    public void StartTls(NbdTlsCredentials credentials)
    {
        Socket client = _socket;
        SslStream tls = credentials.Accept(new NetworkStream(client, ownsSocket: true));
        var relay = new TlsRelay(tls, client, out Socket inner);
        lock (_closing)
        {
            (_socket, _descriptor, _relay) = (inner, (int)inner.Handle, relay);
        }
    }

    /// <summary>Ends a receive under way, now or later; any thread, any time.</summary>
    public void ShutDownReceive() => ShutDown(SocketShutdown.Receive);

    /// <summary>Ends a receive and a send under way, now or later; any thread, any time.</summary>
    public void ShutDownBoth()
    {
        ShutDown(SocketShutdown.Both);
        _relay?.Abort();
    }

    public void Dispose()
    {
        // Under the lock, so that no one shuts down a descriptor that already belongs to another connection.
        lock (_closing)
        {
            _closed = true;
            _socket.Dispose();
        }
        _relay?.Dispose();
    }

    /// <summary>What of it came about; nothing when a signal came first.</summary>
    private short Wait(short events)
    {
        var wanted = new PollDescriptor { Descriptor = _descriptor, Events = events };
        return PollCall(&wanted, 1, -1) > 0 ? wanted.Returned : (short)0;
    }

    private void ShutDown(SocketShutdown how)
    {
        lock (_closing)
        {
            if (_closed)
                return;
            try
            {
                _socket.Shutdown(how);
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // Not connected any more, or given up with a TLS handshake that failed: nothing waits on it.
            }
        }
    }

    [LibraryImport("libc", EntryPoint = "recv", SetLastError = true)]
    private static partial nint ReceiveCall(int descriptor, byte* target, nuint bytes, int flags);

    [LibraryImport("libc", EntryPoint = "readv", SetLastError = true)]
    private static partial nint ReadVectorCall(int descriptor, IoVector* pieces, int count);

    [LibraryImport("libc", EntryPoint = "sendmsg", SetLastError = true)]
    private static partial nint SendMessageCall(int descriptor, MessageHeader* message, int flags);

    [LibraryImport("libc", EntryPoint = "poll", SetLastError = true)]
    private static partial int PollCall(PollDescriptor* descriptors, nuint count, int milliseconds);

    /// <summary><c>struct msghdr</c> of 64-bit Linux.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct MessageHeader
    {
        public void* Name;
        public nuint NameBytes;
        public IoVector* Pieces;
        public nuint PieceCount;
        public void* Control;
        public nuint ControlBytes;
        public int Flags;
    }

    /// <summary><c>struct pollfd</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct PollDescriptor
    {
        public int Descriptor;
        public short Events;
        public short Returned;
    }
}
