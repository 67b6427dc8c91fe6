using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Concurrency;

/// <summary>
/// Guest clusters whose mapping is about to change because data for them is on its way to the file. Who wants to write,
/// zero or discard such a cluster waits until the change is done (docs/consistency.md, W6).
/// </summary>
internal sealed class ClusterReservations
{
    private readonly List<Reservation> _reservations = [];
    private readonly Stack<Reservation> _unused = new();

    /// <summary>The reservation that covers a cluster, or null.</summary>
    public Reservation? Find(GuestCluster cluster)
    {
        foreach (Reservation reservation in _reservations)
        {
            if (cluster.Index >= reservation.First.Index && cluster.Index < reservation.First.Index + reservation.Count)
                return reservation;
        }
        return null;
    }

    /// <summary>How many of the <paramref name="count"/> clusters from <paramref name="first"/> are free of reservations.</summary>
    public int CountFree(GuestCluster first, int count)
    {
        foreach (Reservation reservation in _reservations)
        {
            if (reservation.First.Index < first.Index + count && reservation.First.Index + reservation.Count > first.Index)
                count = (int)Math.Max(0, reservation.First.Index - first.Index);
        }
        return count;
    }

    /// <summary>Reserves clusters of which none is reserved; disposing the result lets the next one in.</summary>
    public Reservation Reserve(GuestCluster first, int count)
    {
        Invariant.Assert(CountFree(first, count) == count, "a guest cluster has one reservation at a time");
        if (!_unused.TryPop(out Reservation? reservation))
            reservation = new Reservation(this);
        reservation.Begin(first, count);
        _reservations.Add(reservation);
        return reservation;
    }

    /// <summary>Serves again after its disposal: who waits keeps the task, not the reservation.</summary>
    internal sealed class Reservation(ClusterReservations owner) : IDisposable
    {
        /// <summary>Made when somebody waits: mostly nobody does.</summary>
        private TaskCompletionSource? _ended;

        public GuestCluster First { get; private set; }

        public int Count { get; private set; }

        /// <summary>Completes when the change is done or given up.</summary>
        public Task Ended => (_ended ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)).Task;

        public void Begin(GuestCluster first, int count) => (First, Count) = (first, count);

        /// <summary>Keeps only the first clusters.</summary>
        public void Shrink(int count)
        {
            Invariant.Assert(count > 0 && count <= Count, "a reservation only shrinks");
            Count = count;
        }

        public void Dispose()
        {
            Invariant.Assert(owner._reservations.Remove(this), "a reservation ends once");
            _ended?.SetResult();
            _ended = null;
            owner._unused.Push(this);
        }
    }
}
