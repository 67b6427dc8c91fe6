using System.Net;
using System.Net.Sockets;

namespace OrleansDisk.Nbd.Server;

/// <summary>
/// Serves exports to NBD clients: fixed newstyle handshake, simple and structured replies, the base:allocation meta
/// context. A connection has a thread of its own; see docs/nbd.md for why.
/// </summary>
public sealed class NbdServer : IAsyncDisposable
{
    private readonly IReadOnlyCollection<NbdListenAddress> _addresses;
    private readonly Func<IReadOnlyCollection<INbdExport>> _exports;
    private readonly CancellationTokenSource _stopping = new();
    private readonly SemaphoreSlim _places;
    private readonly Lock _gate = new();
    private readonly HashSet<Connection> _connections = [];
    private readonly TaskCompletionSource _allEnded = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly List<Socket> _listeners = [];
    private readonly List<Task> _accepting = [];
    private long _lastId;
    private bool _isStopping;
    private bool _isDisposed;

    /// <param name="addresses">Where to listen.</param>
    /// <param name="exports">
    /// What there is to serve, asked for at each option of a handshake, on any thread. Of one name there is one
    /// export object at a time, so that the answers to a client that asks twice agree.
    /// </param>
    /// <param name="options">Limits; null for the defaults.</param>
    public NbdServer(
        IReadOnlyCollection<NbdListenAddress> addresses, Func<IReadOnlyCollection<INbdExport>> exports,
        NbdServerOptions? options = null)
    {
        Options = options ?? new NbdServerOptions();
        Options.Check();
        _addresses = addresses;
        _exports = exports;
        _places = new SemaphoreSlim(Options.MaxConnections);
        Budget = new SharedBudget(Options.MaxBytesInFlight);
    }

    /// <summary>
    /// Called with the number of connections after it has changed: on the thread of the connection that came or went,
    /// in order. Must not block or throw.
    /// </summary>
    public event Action<int>? ConnectionCountChanged;

    /// <summary>Where the server listens, once started.</summary>
    public IReadOnlyList<EndPoint> EndPoints { get; private set; } = [];

    /// <summary>Clients connected now.</summary>
    public int ConnectionCount
    {
        get
        {
            lock (_gate)
                return _connections.Count;
        }
    }

    /// <summary>Finds exports that are not listed, by names of some form; null when there is none of a name.</summary>
    public Func<string, INbdExport?>? FindUnlisted { get; init; }

    internal NbdServerOptions Options { get; }

    internal IReadOnlyCollection<INbdExport> Exports => _exports();

    /// <summary>
    /// The export of that name. The empty name also finds the only export there is (NBD protocol,
    /// "NBD_OPT_EXPORT_NAME": the default export).
    /// </summary>
    internal INbdExport? FindExport(string name)
    {
        IReadOnlyCollection<INbdExport> exports = Exports;
        foreach (INbdExport export in exports)
        {
            if (export.Name == name)
                return export;
        }
        return name.Length > 0 ? FindUnlisted?.Invoke(name) : exports.Count == 1 ? exports.First() : null;
    }

    internal SharedBudget Budget { get; }

    internal BufferPool Buffers { get; } = new();

    /// <summary>Listens and begins to accept.</summary>
    /// <exception cref="IOException">An address can't be had; the message names it.</exception>
    public async Task StartAsync(CancellationToken cancellation = default)
    {
        try
        {
            foreach (NbdListenAddress address in _addresses)
                _listeners.AddRange(await address.ListenAsync(cancellation));
        }
        catch
        {
            _listeners.ForEach(listener => listener.Dispose());
            throw;
        }
        EndPoints = [.. _listeners.Select(listener => listener.LocalEndPoint!)];
        // On the pool, not on the scheduler of a caller that may be a grain.
        foreach (Socket listener in _listeners)
        {
            Task<Task> accepting = Task.Factory.StartNew(
                () => AcceptAsync(listener), CancellationToken.None, TaskCreationOptions.None, TaskScheduler.Default);
            _accepting.Add(accepting.Unwrap());
        }
    }

    /// <summary>
    /// Stops accepting, lets the requests that were received complete and sends their replies, then closes every
    /// connection. Unix sockets are removed.
    /// </summary>
    /// <param name="drain">How long clients may take to read their replies before they are cut off.</param>
    /// <param name="cancellation">Cuts them off at once.</param>
    public async Task StopAsync(TimeSpan drain, CancellationToken cancellation = default)
    {
        Connection[] open;
        lock (_gate)
        {
            _isStopping = true;
            open = [.. _connections];
            if (open.Length == 0)
                _allEnded.TrySetResult();
        }
        await _stopping.CancelAsync();
        _listeners.ForEach(listener => listener.Dispose());
        await Task.WhenAll(_accepting);
        Array.ForEach(open, connection => connection.Stop());
        try
        {
            await _allEnded.Task.WaitAsync(drain, Options.TimeProvider, cancellation);
        }
        catch (Exception e) when (e is TimeoutException or OperationCanceledException)
        {
            Array.ForEach(open, connection => connection.Abort());
            await _allEnded.Task;
        }
    }

    /// <summary>Stops without waiting for clients; requests that were started complete first.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_isDisposed)
            return;
        _isDisposed = true;
        await StopAsync(TimeSpan.Zero);
        _places.Dispose();
        _stopping.Dispose();
    }

    private async Task AcceptAsync(Socket listener)
    {
        while (!_stopping.IsCancellationRequested)
        {
            try
            {
                if (Options.WaitAtConnectionLimit)
                    await _places.WaitAsync(_stopping.Token);
                Add(await listener.AcceptAsync(_stopping.Token));
            }
            catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException)
            {
                return;
            }
            catch (SocketException e)
            {
                // Out of descriptors, or a client that left before it was accepted: the next one may do better.
                if (Options.WaitAtConnectionLimit)
                    _places.Release();
                Options.Log($"nbd: a connection could not be accepted: {e.Message}");
                await Task.Delay(TimeSpan.FromMilliseconds(100), Options.TimeProvider, CancellationToken.None);
            }
        }
    }

    private void Add(Socket socket)
    {
        if (!Options.WaitAtConnectionLimit && !_places.Wait(0))
        {
            Options.Log($"nbd: a connection was refused: {Options.MaxConnections} are open, which is the limit");
            socket.Dispose();
            return;
        }
        Connection? connection = null;
        try
        {
            lock (_gate)
            {
                if (_isStopping)
                {
                    socket.Dispose();
                    return;
                }
                connection = new Connection(this, socket, ++_lastId, Remove);
                _connections.Add(connection);
                ConnectionCountChanged?.Invoke(_connections.Count);
            }
            connection.Start();
        }
        catch (Exception e)
        {
            // The client left already, or there is no memory for a thread: the others must not suffer from it.
            Options.Log($"nbd: a connection could not be served: {e.Message}");
            socket.Dispose();
            if (connection is not null)
                Remove(connection);
            else
                _places.Release();
        }
    }

    private void Remove(Connection connection)
    {
        lock (_gate)
        {
            _connections.Remove(connection);
            ConnectionCountChanged?.Invoke(_connections.Count);
            if (_isStopping && _connections.Count == 0)
                _allEnded.TrySetResult();
            if (!_isStopping)
                _places.Release();
        }
    }
}
