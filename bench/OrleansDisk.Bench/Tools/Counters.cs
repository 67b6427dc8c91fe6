using System.Globalization;
using System.Net.Sockets;
using System.Text;

namespace OrleansDisk.Bench.Tools;

/// <summary>The counters of a server that was started with the probe.</summary>
/// <param name="Allocated">Bytes that were ever allocated on the managed heap.</param>
/// <param name="Heap">Bytes of objects on the managed heap.</param>
/// <param name="Committed">Bytes of memory that the managed heap holds.</param>
/// <param name="Large">Bytes of the large object heap after the last collection.</param>
/// <param name="Pinned">Bytes of the pinned object heap after the last collection.</param>
internal readonly record struct Counters(long Allocated, long Heap, long Committed, long Large, long Pinned)
{
    /// <summary>Asks a server.</summary>
    /// <param name="socketPath">The probe's socket.</param>
    /// <param name="afterCollection">Whether the server collects its garbage before it answers.</param>
    /// <param name="cancellation">Gives up.</param>
    public static async Task<Counters> ReadAsync(string socketPath, bool afterCollection, CancellationToken cancellation)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(socketPath), cancellation);
        await socket.SendAsync(Encoding.ASCII.GetBytes(afterCollection ? "g" : "-"), cancellation);
        using var reader = new StreamReader(new NetworkStream(socket));
        string answer = await reader.ReadToEndAsync(cancellation);
        var values = answer.Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(line => line.Split(' ')).ToDictionary(words => words[0], words => long.Parse(words[1], CultureInfo.InvariantCulture));
        return new Counters(values["allocated"], values["heap"], values["committed"], values["large"], values["pinned"]);
    }
}
