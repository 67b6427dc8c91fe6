namespace OrleansDisk.Nbd.Client;

/// <summary>The requests of a connection that are not answered, by their cookies. Safe from any thread.</summary>
internal sealed class PendingRequests
{
    private readonly Dictionary<ulong, PendingRequest> _byCookie = [];
    private NbdConnectionException? _failure;
    private ulong _lastCookie;

    public bool HasFailed
    {
        get
        {
            lock (_byCookie)
                return _failure is not null;
        }
    }

    /// <summary>Whether nothing is under way on a connection that could take it.</summary>
    public bool AreNone
    {
        get
        {
            lock (_byCookie)
                return _failure is null && _byCookie.Count == 0;
        }
    }

    /// <summary>Gives a request its cookie.</summary>
    /// <exception cref="NbdConnectionException">The connection has failed.</exception>
    public void Add(PendingRequest request)
    {
        lock (_byCookie)
        {
            if (_failure is not null)
                throw new NbdConnectionException(_failure.Message, _failure);
            request.Cookie = ++_lastCookie;
            _byCookie.Add(request.Cookie, request);
        }
    }

    /// <summary>The request that a reply belongs to.</summary>
    /// <param name="cookie">The reply's cookie.</param>
    /// <param name="isLast">Whether nothing more comes for it.</param>
    /// <exception cref="NbdConnectionException">There is no such request.</exception>
    public PendingRequest Find(ulong cookie, bool isLast)
    {
        lock (_byCookie)
        {
            if (_byCookie.TryGetValue(cookie, out PendingRequest? request) && isLast)
                _byCookie.Remove(cookie);
            return request ?? throw new NbdConnectionException("the server broke the protocol: a reply to no request");
        }
    }

    /// <summary>Fails what is pending and whatever comes; the first failure counts.</summary>
    public void Fail(NbdConnectionException failure)
    {
        PendingRequest[] requests;
        lock (_byCookie)
        {
            _failure ??= failure;
            requests = [.. _byCookie.Values];
            _byCookie.Clear();
        }
        foreach (PendingRequest request in requests)
            request.Fail(failure);
    }
}
