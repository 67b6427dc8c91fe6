using OrleansDisk.Qcow2;

namespace OrleansDisk.Grains;

/// <summary>
/// The images that grains of this process hold open, and how the last ones were closed. It routes nothing and decides
/// nothing; it remembers what would be lost with an activation, and lends what needs no message.
/// </summary>
public sealed class OpenImages
{
    private const int RememberedCount = 4096;

    private readonly Lock _gate = new();
    private readonly Dictionary<Guid, SharedDisk> _open = [];
    private readonly HashSet<Guid> _closedWithoutError = [];
    private readonly Queue<Guid> _order = [];

    /// <summary>Images open now.</summary>
    public int Count
    {
        get
        {
            lock (_gate)
                return _open.Count;
        }
    }

    /// <summary>How many images could not write everything back when they were closed.</summary>
    public long FailedCloseCount { get; private set; }

    /// <summary>Whether that opening was closed with everything written back, as far as is remembered.</summary>
    public bool WasClosedWithoutError(Guid generation)
    {
        lock (_gate)
            return _closedWithoutError.Contains(generation);
    }

    /// <summary>An image that is open in this process, for sessions in this process; null when it is not.</summary>
    /// <param name="generation">The opening, as <see cref="Abstractions.IImageGrain.OpenAsync"/> named it.</param>
    public SharedDisk? Find(Guid generation)
    {
        lock (_gate)
            return _open.GetValueOrDefault(generation);
    }

    internal void Add(Guid generation, SharedDisk disk)
    {
        lock (_gate)
            _open.Add(generation, disk);
    }

    internal void Remove(Guid generation, bool withoutError)
    {
        lock (_gate)
        {
            _open.Remove(generation);
            if (!withoutError)
            {
                FailedCloseCount++;
                return;
            }
            if (_order.Count == RememberedCount)
                _closedWithoutError.Remove(_order.Dequeue());
            _order.Enqueue(generation);
            _closedWithoutError.Add(generation);
        }
    }
}
