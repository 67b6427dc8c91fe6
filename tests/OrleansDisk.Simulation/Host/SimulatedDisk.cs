namespace OrleansDisk.Simulation.Host;

/// <summary>
/// What a file is to the machine: bytes as programs see them, bytes on stable storage, and the writes between the two.
/// A flush covers the writes that completed before it was asked for; at a power loss any subset of the others may have
/// reached stable storage. A dead process leaves everything that it wrote.
/// </summary>
internal sealed class SimulatedDisk
{
    /// <summary>Completed writes in the order in which they took effect, then those under way.</summary>
    private readonly List<FileWrite> _unflushed = [];
    private int _completedCount;

    public SimulatedDisk(ReadOnlySpan<byte> bytes)
    {
        Visible = new ByteStore(bytes);
        Durable = new ByteStore(bytes);
    }

    public ByteStore Visible { get; }

    public ByteStore Durable { get; }

    /// <summary>Length of the first of two files on the disk, which has room behind it.</summary>
    public long FirstFileBytes { get; set; }

    public IReadOnlyList<FileWrite> Unflushed => _unflushed;

    /// <summary>Called when a flush has done its work and has told nobody: the moment with the most crash states.</summary>
    public Action<SimulatedDisk>? AtBarrier { get; set; }

    /// <summary>The last handle whose write took effect.</summary>
    public long LastWriter { get; private set; }

    public FileWrite Issue(long offset, byte[] data, string target, long generation)
    {
        var write = new FileWrite(offset, data, target) { Generation = generation };
        _unflushed.Add(write);
        return write;
    }

    /// <summary>The write takes effect.</summary>
    public void Complete(FileWrite write)
    {
        _unflushed.Remove(write);
        _unflushed.Insert(_completedCount++, write);
        write.Widen(Visible);
        write.ApplyTo(Visible);
        LastWriter = Math.Max(LastWriter, write.Generation);
    }

    /// <summary>The write will never take effect.</summary>
    public void Drop(FileWrite write) => _unflushed.Remove(write);

    public bool HasCompleted(FileWrite write) => _unflushed.IndexOf(write) < _completedCount;

    /// <summary>What a flush that begins now covers.</summary>
    public FileWrite[] Completed() => [.. _unflushed.Take(_completedCount)];

    /// <summary>Puts writes on stable storage; who is gone already stays so.</summary>
    public void MakeDurable(IEnumerable<FileWrite> writes)
    {
        foreach (FileWrite write in writes)
        {
            if (Forget(write))
                write.ApplyTo(Durable);
        }
    }

    /// <summary>
    /// A flush failed: the system takes the pages for clean, so what did not reach stable storage never will, though
    /// programs still see it.
    /// </summary>
    public void LoseAtFlush(IEnumerable<FileWrite> writes, Random random)
    {
        foreach (FileWrite write in writes)
        {
            if (Forget(write) && random.Next(2) == 0)
                write.ApplyTo(Durable);
        }
    }

    /// <summary>Programs see again what is on stable storage, or still on its way there: see <see cref="LoseAtFlush"/>.</summary>
    public void DropLost()
    {
        Visible.CopyFrom(Durable);
        foreach (FileWrite write in Completed())
        {
            write.Widen(Visible);
            write.ApplyTo(Visible);
        }
    }

    public void SetLength(long bytes)
    {
        Visible.SetLength((int)bytes);
        Durable.SetLength((int)bytes);
    }

    /// <summary>The process that wrote is dead: each write that was under way took effect or did not.</summary>
    /// <param name="random">Decides.</param>
    /// <param name="generation">The handle that the process had, or null for all.</param>
    public void EndWritesUnderWay(Random random, long? generation = null)
    {
        foreach (FileWrite write in _unflushed.Skip(_completedCount).ToArray())
        {
            if (generation is not null && write.Generation != generation)
                continue;
            if (random.Next(2) == 0)
                Complete(write);
            else
                Drop(write);
        }
    }

    private bool Forget(FileWrite write)
    {
        int index = _unflushed.IndexOf(write);
        if (index < 0)
            return false;
        _unflushed.RemoveAt(index);
        if (index < _completedCount)
            _completedCount--;
        return true;
    }
}
