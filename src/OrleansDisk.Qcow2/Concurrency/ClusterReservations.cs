using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Concurrency;

/// <summary>
/// Guest clusters whose mapping is about to change because data for them is on its way to the file. Who wants to write,
/// zero or discard such a cluster waits until the change is done (docs/consistency.md, W6).
/// </summary>
internal sealed class ClusterReservations
{
    private readonly List<Reservation> _reservations = [];

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
        var reservation = new Reservation(this, first, count);
        _reservations.Add(reservation);
        return reservation;
    }

    internal sealed class Reservation(ClusterReservations owner, GuestCluster first, int count) : IDisposable
    {
        private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public GuestCluster First { get; } = first;

        public int Count { get; private set; } = count;

        /// <summary>Completes when the change is done or given up.</summary>
        public Task Ended => _ended.Task;

        /// <summary>Keeps only the first clusters.</summary>
        public void Shrink(int count)
        {
            Invariant.Assert(count > 0 && count <= Count, "a reservation only shrinks");
            Count = count;
        }

        public void Dispose()
        {
            owner._reservations.Remove(this);
            _ended.TrySetResult();
        }
    }
}
