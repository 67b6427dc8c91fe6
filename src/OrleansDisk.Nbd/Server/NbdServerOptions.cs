using OrleansDisk.Nbd.Tls;

namespace OrleansDisk.Nbd.Server;

/// <summary>Limits of an <see cref="NbdServer"/> and where its messages go.</summary>
public sealed class NbdServerOptions
{
    /// <summary>Connections served at once, at least 1; see <see cref="WaitAtConnectionLimit"/>.</summary>
    public int MaxConnections { get; init; } = 256;

    /// <summary>
    /// What happens to a client beyond <see cref="MaxConnections"/>: it is closed at once (false), or waits in the
    /// listener's backlog until another one leaves (true, as <c>qemu-nbd --shared</c> does).
    /// </summary>
    public bool WaitAtConnectionLimit { get; init; }

    /// <summary>Time a client has for the whole handshake, without the time the export takes to open.</summary>
    public TimeSpan HandshakeTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>
    /// Longest read or write in bytes, told to clients as the maximum payload: 64 KiB to 1 GiB. The protocol expects
    /// at least 32 MiB ("Size constraints").
    /// </summary>
    public uint MaxRequestBytes { get; init; } = 32 << 20;

    /// <summary>
    /// Bytes of requests received and not yet answered that one connection may hold before the server stops
    /// reading from it. One request is always let in, whatever its size.
    /// </summary>
    public long MaxBytesInFlightPerConnection { get; init; } = 64 << 20;

    /// <summary>
    /// The same for all connections together. Every connection keeps 1 MiB, or one request, of its own, so that
    /// clients that do not read their replies can't starve the others.
    /// </summary>
    public long MaxBytesInFlight { get; init; } = 512L << 20;

    /// <summary>What every client must use TLS with, before anything else; null: no client can.</summary>
    public NbdTlsCredentials? Tls { get; init; }

    /// <summary>Where time comes from.</summary>
    public TimeProvider TimeProvider { get; init; } = TimeProvider.System;

    /// <summary>
    /// Takes one line for each protocol violation, refused connection or failed export. Called on any thread; must
    /// not throw.
    /// </summary>
    public Action<string> Log { get; init; } = static _ => { };

    internal void Check()
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(MaxConnections, 1);
        ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(HandshakeTimeout, TimeSpan.Zero);
        ArgumentOutOfRangeException.ThrowIfLessThan(MaxRequestBytes, 64u << 10);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(MaxRequestBytes, 1u << 30);
        ArgumentOutOfRangeException.ThrowIfLessThan(MaxBytesInFlightPerConnection, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(MaxBytesInFlight, 1);
    }
}
