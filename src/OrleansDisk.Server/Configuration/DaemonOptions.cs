using OrleansDisk.Nbd.Tls;

namespace OrleansDisk.Server.Configuration;

/// <summary>A setting is wrong; the message names it.</summary>
internal sealed class ConfigurationException(string setting, string what) : Exception($"{setting}: {what}");

/// <summary>What the daemon was told to do.</summary>
internal sealed record DaemonOptions
{
    public required IReadOnlyList<PoolSetting> Pools { get; init; }

    public required IReadOnlyList<ExportSetting> Exports { get; init; }

    /// <summary>Paths of unix sockets.</summary>
    public required IReadOnlyList<string> UnixSockets { get; init; }

    public required IReadOnlyList<TcpSetting> TcpAddresses { get; init; }

    /// <summary>What every client must use TLS with, or null: the connections are plain.</summary>
    public required NbdTlsCredentials? Tls { get; init; }

    /// <summary>Whether every image of a pool is an export.</summary>
    public required bool ExportsPools { get; init; }

    /// <summary>How long an image that nobody uses stays open.</summary>
    public required TimeSpan IdleTime { get; init; }

    /// <summary>How long clients may take to read their last replies when the daemon stops.</summary>
    public required TimeSpan DrainTime { get; init; }

    /// <summary>How long an image may take to close.</summary>
    public required TimeSpan CloseTime { get; init; }

    /// <summary>How long a client may take for the handshake.</summary>
    public required TimeSpan HandshakeTime { get; init; }

    public required int MaxConnections { get; init; }

    /// <summary>Bytes of requests that all clients together may have under way.</summary>
    public required long MaxBytesInFlight { get; init; }

    /// <summary>Memory for the L2 tables of one open image, in bytes.</summary>
    public required long L2CacheBytes { get; init; }

    /// <summary>Memory for the refcount blocks of one open image, in bytes.</summary>
    public required long RefcountCacheBytes { get; init; }
}

internal sealed record PoolSetting(string Name, string Directory, bool IsReadOnly);

/// <param name="Name">The name that clients ask for.</param>
/// <param name="Image">Key of the image.</param>
/// <param name="IsReadOnly">Whether clients can only read.</param>
/// <param name="Description">Free text for people.</param>
/// <param name="Bitmaps">The image's bitmaps that clients are told of; each of them must be there and sound.</param>
internal sealed record ExportSetting(string Name, string Image, bool IsReadOnly, string Description, IReadOnlyList<string> Bitmaps)
{
    /// <summary>The id or name of the internal snapshot that is exported, or null: the disk.</summary>
    public string? Snapshot { get; init; }
}

internal sealed record TcpSetting(string Host, int Port);
