namespace Orleans.Runtime;

/// <summary>Something that an activation does as one request: a grain call or the tick of a timer.</summary>
internal abstract class Request
{
    /// <summary>Neighbours in the activation's list that holds this request; guarded by the activation's lock.</summary>
    public Request? Next, Previous;

    /// <summary>The activation that runs this request.</summary>
    public Activation Target = null!;

    /// <summary>The timestamp by which the caller wants its response.</summary>
    public long Deadline = long.MaxValue;

    /// <summary>How many activations ended before this request could start there.</summary>
    public int Forwards;

    /// <summary>Interleaves with every other request.</summary>
    public bool Interleaves { get; protected init; }

    /// <summary>Counts as activity of the grain.</summary>
    public bool KeepsAlive { get; protected init; } = true;

    /// <summary>The first turn. The request tells its target when it has ended.</summary>
    public abstract void Start();

    /// <summary>Gives the caller an error instead of a response.</summary>
    public abstract void Fail(Exception exception);
}

/// <summary>Requests in order of arrival, linked through the requests themselves.</summary>
internal struct RequestList
{
    public Request? First { get; private set; }

    private Request? _last;

    public void Add(Request request)
    {
        (request.Previous, request.Next) = (_last, null);
        if (_last is null)
            First = request;
        else
            _last.Next = request;
        _last = request;
    }

    public void Remove(Request request)
    {
        if (request.Previous is { } previous)
            previous.Next = request.Next;
        else
            First = request.Next;
        if (request.Next is { } next)
            next.Previous = request.Previous;
        else
            _last = request.Previous;
        (request.Previous, request.Next) = (null, null);
    }
}
