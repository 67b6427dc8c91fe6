using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Server.Configuration;
using OrleansDisk.Server.Exports;

namespace OrleansDisk.Server.Hosting;

/// <summary>The NBD server as a part of the host. It starts after the silo and stops before it.</summary>
internal sealed class NbdService : IHostedService, IAsyncDisposable
{
    private readonly DaemonOptions _options;
    private readonly ILogger _logger;
    private readonly NbdServer _server;

    public NbdService(DaemonOptions options, ExportCatalog exports, TimeProvider time, ILogger<NbdService> logger)
    {
        (_options, _logger) = (options, logger);
        List<NbdListenAddress> addresses =
        [
            .. options.UnixSockets.Select(NbdListenAddress.Unix),
            .. options.TcpAddresses.Select(address => NbdListenAddress.Tcp(address.Host, address.Port)),
        ];
        _server = new NbdServer(addresses, exports.List, new NbdServerOptions
        {
            MaxConnections = options.MaxConnections,
            MaxBytesInFlight = options.MaxBytesInFlight,
            HandshakeTimeout = options.HandshakeTime,
            Tls = options.Tls,
            TimeProvider = time,
            Log = line => Log.OfConnection(logger, line),
        })
        {
            FindUnlisted = exports.FindSnapshot,
        };
        _server.ConnectionCountChanged += count => Log.Connections(logger, count);
    }

    /// <exception cref="IOException">An address can't be had.</exception>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        await _server.StartAsync(cancellationToken);
        foreach (System.Net.EndPoint address in _server.EndPoints)
            Log.Listening(_logger, address);
    }

    public Task StopAsync(CancellationToken cancellationToken)
    {
        Log.Draining(_logger, _server.ConnectionCount);
        return _server.StopAsync(_options.DrainTime, cancellationToken);
    }

    public ValueTask DisposeAsync() => _server.DisposeAsync();
}
