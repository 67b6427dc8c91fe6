using System.Net.Security;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace OrleansDisk.Nbd.Tls;

/// <summary>
/// Carries bytes between a client that speaks TLS and a server connection that knows nothing of it: the connection gets
/// one end of a pair of sockets, and what goes in there goes out encrypted. So a plain connection pays nothing for TLS.
/// </summary>
internal sealed partial class TlsRelay : IDisposable
{
    private const int BufferBytes = 64 << 10;
    private const int UnixFamily = 1;
    private const int StreamTypeCloseOnExec = 0x80001;

    private readonly SslStream _tls;
    private readonly Socket _client;
    private readonly Socket _server;
    private readonly Task _ended;

    /// <param name="tls">The client's stream, after its handshake; owned.</param>
    /// <param name="client">The socket below it.</param>
    /// <param name="connection">The end for the server's connection, whose owner the caller is.</param>
    public TlsRelay(SslStream tls, Socket client, out Socket connection)
    {
        (_tls, _client) = (tls, client);
        int[] pair = new int[2];
        if (SocketPairCall(UnixFamily, StreamTypeCloseOnExec, 0, pair) != 0)
            throw new IOException($"no sockets for TLS: {Marshal.GetLastPInvokeErrorMessage()}");
        connection = new Socket(new SafeSocketHandle(pair[0], ownsHandle: true));
        _server = new Socket(new SafeSocketHandle(pair[1], ownsHandle: true));
        _ended = Task.Run(RunAsync);
    }

    /// <summary>Ends it at once; what is under way is lost. Any thread, any time.</summary>
    public void Abort() => _client.Dispose();

    /// <summary>Waits until all that the connection sent before it closed its end has gone out, or the client has.</summary>
    public void Dispose()
    {
        _ended.GetAwaiter().GetResult();
        _tls.Dispose();
        _server.Dispose();
    }

    private async Task RunAsync()
    {
        Task receiving = ReceiveAsync();
        await SendAsync();
        // The connection has closed its end: there is no one to receive for.
        _client.Dispose();
        await receiving;
    }

    private async Task ReceiveAsync()
    {
        byte[] buffer = new byte[BufferBytes];
        try
        {
            for (int received; (received = await _tls.ReadAsync(buffer)) > 0;)
            {
                for (int sent = 0; sent < received;)
                    sent += await _server.SendAsync(buffer.AsMemory(sent, received - sent));
            }
        }
        catch (Exception e) when (IsEnd(e))
        {
            // The client or the connection is gone, which the connection learns from the end of its input.
        }
        TryShutDown(SocketShutdown.Send);
    }

    private async Task SendAsync()
    {
        byte[] buffer = new byte[BufferBytes];
        try
        {
            for (int received; (received = await _server.ReceiveAsync(buffer)) > 0;)
                await _tls.WriteAsync(buffer.AsMemory(0, received));
            await _tls.ShutdownAsync();
        }
        catch (Exception e) when (IsEnd(e))
        {
            // The client is gone. Whatever the connection sends from now on must not wait for it.
            TryShutDown(SocketShutdown.Both);
        }
    }

    private void TryShutDown(SocketShutdown how)
    {
        try
        {
            _server.Shutdown(how);
        }
        catch (SocketException)
        {
            // The connection has closed its end already.
        }
    }

    private static bool IsEnd(Exception e) => e is IOException or SocketException or ObjectDisposedException or InvalidOperationException;

    [LibraryImport("libc", EntryPoint = "socketpair", SetLastError = true)]
    private static partial int SocketPairCall(int family, int type, int protocol, [Out] int[] pair);
}
