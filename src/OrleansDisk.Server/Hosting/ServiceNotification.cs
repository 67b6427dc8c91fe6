using System.Net.Sockets;
using System.Text;

namespace OrleansDisk.Server.Hosting;

/// <summary>
/// Tells a service manager what the process is at: one datagram to the socket named by NOTIFY_SOCKET (sd_notify(3)).
/// Without that variable it does nothing.
/// </summary>
internal static class ServiceNotification
{
    public const string Ready = "READY=1";
    public const string Stopping = "STOPPING=1";

    public static void Send(string state)
    {
        if (Environment.GetEnvironmentVariable("NOTIFY_SOCKET") is not { Length: > 1 } address)
            return;
        if (address[0] == '@')
            address = '\0' + address[1..]; // a name in the abstract namespace
        try
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
            socket.SendTo(Encoding.UTF8.GetBytes(state), new UnixDomainSocketEndPoint(address));
        }
        catch (Exception e) when (e is SocketException or ArgumentException)
        {
            // Nobody there to be told; serving matters more.
        }
    }
}
