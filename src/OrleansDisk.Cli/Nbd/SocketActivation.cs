using System.Globalization;
using System.Net.Sockets;
using OrleansDisk.Nbd.Server;

namespace OrleansDisk.Cli.Nbd;

/// <summary>Sockets that systemd has opened and passes on (sd_listen_fds).</summary>
internal static class SocketActivation
{
    private const int FirstDescriptor = 3;

    /// <summary>The sockets that were passed to this process; empty when there are none.</summary>
    public static IReadOnlyList<NbdListenAddress> Addresses()
    {
        bool isMeant = Environment.GetEnvironmentVariable("LISTEN_PID") == Environment.ProcessId.ToString(CultureInfo.InvariantCulture);
        if (!isMeant || !int.TryParse(Environment.GetEnvironmentVariable("LISTEN_FDS"), out int count) || count <= 0)
            return [];
        return [.. Enumerable.Range(FirstDescriptor, count).Select(descriptor => NbdListenAddress.Existing(
            new Socket(new SafeSocketHandle(descriptor, ownsHandle: true))))];
    }
}
