using System.Net.Sockets;

namespace OrleansDisk.Nbd.Server;

/// <summary>One client, from accept to close, on a thread of its own.</summary>
internal sealed class Connection : IDisposable
{
    // A client that does nothing but break rules must not fill a disk with lines.
    private const int MaxLoggedViolations = 8;

    private readonly NbdServer _server;
    private readonly StreamSocket _socket;
    private readonly ConnectionBudget _budget;
    private readonly CancellationTokenSource _ending = new();
    private readonly Action<Connection> _ended;
    private string _exportName = "";
    private int _violations;
    private volatile bool _isStopping;

    /// <param name="server">The server this belongs to.</param>
    /// <param name="socket">The accepted socket; owned by the connection from here on.</param>
    /// <param name="id">Number of the connection, for people.</param>
    /// <param name="ended">Called once after everything of the connection is gone.</param>
    public Connection(NbdServer server, Socket socket, long id, Action<Connection> ended)
    {
        _server = server;
        _ended = ended;
        _socket = new StreamSocket(socket);
        _budget = new ConnectionBudget(server.Budget, server.Options.MaxBytesInFlightPerConnection);
        Name = $"nbd connection {id}";
    }

    public string Name { get; }

    public NbdServerOptions Options => _server.Options;

    public IReadOnlyCollection<INbdExport> Exports => _server.Exports;

    /// <inheritdoc cref="NbdServer.FindExport"/>
    public INbdExport? FindExport(string name) => _server.FindExport(name);

    /// <summary>Whether new requests are refused because the server is shutting down.</summary>
    public bool IsStopping => _isStopping;

    public void Start() => new Thread(Run) { IsBackground = true, Name = Name }.Start();

    /// <summary>Ends the connection once the requests it has received are answered.</summary>
    public void Stop()
    {
        _isStopping = true;
        _socket.ShutDownReceive();
        Cancel();
    }

    /// <summary>Ends the connection once the requests that were started have completed; replies are dropped.</summary>
    public void Abort()
    {
        _isStopping = true;
        _socket.ShutDownBoth();
        _budget.Abandon();
        Cancel();
    }

    public void LogViolation(string what)
    {
        int count = ++_violations;
        if (count < MaxLoggedViolations)
            Log($"protocol violation: {what}");
        else if (count == MaxLoggedViolations)
            Log($"protocol violation: {what} (further ones are not logged)");
    }

    public void LogFault(string what, Exception fault) => Log($"{what}: {fault.GetType().Name}: {fault.Message}");

    public void Log(string line) =>
        Options.Log(_exportName.Length == 0 ? $"{Name}: {line}" : $"{Name} (export '{_exportName}'): {line}");

    public void DisposeSession(INbdExportSession session)
    {
        try
        {
            session.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }
        catch (Exception e)
        {
            LogFault("the export failed to close", e);
        }
    }

    public void Dispose()
    {
        _socket.Dispose();
        lock (_ending)
            _ending.Dispose();
    }

    private void Run()
    {
        try
        {
            if (Negotiate() is { } export)
                Serve(export);
        }
        catch (ConnectionEndedException)
        {
            // The client left during the handshake, as it may.
        }
        catch (Exception e)
        {
            // One connection must never take the others with it.
            LogFault("it was closed by a fault", e);
        }
        finally
        {
            Dispose();
            _ended(this);
        }
    }

    private NegotiatedExport? Negotiate()
    {
        using var deadline = new HandshakeDeadline(Options.HandshakeTimeout, Options.TimeProvider, _socket.ShutDownBoth);
        try
        {
            return new Handshake(this, _socket, deadline, _ending.Token).Run();
        }
        finally
        {
            if (deadline.HasPassed)
                LogViolation($"the handshake took longer than {Options.HandshakeTimeout.TotalSeconds} s");
        }
    }

    private void Serve(NegotiatedExport export)
    {
        _exportName = export.Name;
        try
        {
            using var transmission = new Transmission(this, _socket, export, _budget, _server.Buffers);
            transmission.Run();
        }
        finally
        {
            DisposeSession(export.Session);
        }
    }

    private void Cancel()
    {
        lock (_ending)
        {
            try
            {
                _ending.Cancel();
            }
            catch (ObjectDisposedException)
            {
                // Already over.
            }
        }
    }
}
