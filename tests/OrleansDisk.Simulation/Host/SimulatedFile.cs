using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Simulation.Host;

/// <summary>
/// A handle on a simulated disk. Its operations take the turns that the seed gives them, fail as the fault plan says, and
/// never end once their process is dead.
/// </summary>
internal sealed class SimulatedFile(SimulatedHost host, string name, SimulatedDisk disk, ImageAccess access) : IBlockFile
{
    private const int InputOutputError = 5;
    private const int NoSpaceError = 28;
    private const int SlowTurns = 3000;
    private int _underWay;
    private bool _flushFailed;

    public string Name => name;

    public bool IsReadOnly => access != ImageAccess.Write;

    public ImageAccess Access => access;

    public SimulatedDisk Disk => disk;

    /// <summary>Counts the handles that could write, on this host.</summary>
    public long Generation { get; set; }

    public FileEvents Events { get; } = new();

    /// <summary>The part of the disk that is the file, or null: all of it.</summary>
    public FileRegion? Region { get; init; }

    public FaultPlan Faults { get; init; } = new([]);

    /// <summary>Whether the simulated file system has holes.</summary>
    public bool CanPunchHoles { get; init; } = true;

    /// <summary>Called before a read looks at the file: where a test holds a read up.</summary>
    public Func<long, Task>? Reading { get; set; }

    /// <summary>Called with each write before it takes effect.</summary>
    public Action<long, int>? Writing { get; set; }

    /// <summary>The process that had the handle is no more: nothing that it asked for ends, nothing new happens.</summary>
    public bool IsDead { get; private set; }

    public bool IsClosed { get; private set; }

    public long LengthBytes => Region switch
    {
        null => disk.Visible.Length,
        { Start: 0 } => disk.FirstFileBytes,
        { Bytes: var bytes } => bytes,
    };

    public void Kill() => IsDead = true;

    public async ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        await EndIfDeadAsync();
        string what = access == ImageAccess.Write ? Events.OfRead(offset) : FileEvents.BackingRead;
        using Operation operation = Begin(what, offset, buffer.Length);
        if (Reading is not null)
            await Reading(offset);
        // A slow read is one that sees what became of its clusters meanwhile.
        FaultKind? fault = await StartAsync(what, longOneIn: 3);
        await EndIfDeadAsync();
        if (fault is FaultKind.InputOutput or FaultKind.NoSpace or FaultKind.ShortWrite)
            throw Failure("reading", InputOutputError);
        disk.Visible.Read(OnDisk(offset), buffer.Span);
    }

    /// <summary>A session's thread reads: it may be slow, and turns of the image run meanwhile.</summary>
    public bool TryRead(long offset, Span<byte> buffer)
    {
        if (IsDead)
            return false;
        using Operation operation = Begin(FileEvents.SessionRead, offset, buffer.Length);
        FaultKind? fault = Faults.Next(FileEvents.SessionRead);
        host.TakeTurns();
        if (fault is FaultKind.InputOutput)
            throw Failure("reading", InputOutputError);
        disk.Visible.Read(OnDisk(offset), buffer);
        return host.Random.Next(8) != 0;
    }

    /// <summary>A session's thread writes, and turns of the image run before and after it takes effect.</summary>
    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        if (IsDead)
            return;
        using Operation operation = Begin(FileEvents.SessionWrite, offset, data.Length);
        FaultKind? fault = Faults.Next(FileEvents.SessionWrite);
        if (fault is FaultKind.InputOutput or FaultKind.NoSpace)
            throw Failure("writing", fault == FaultKind.NoSpace ? NoSpaceError : InputOutputError);
        FileWrite write = disk.Issue(OnDisk(offset), data.ToArray(), FileEvents.SessionWrite, Generation);
        host.TakeTurns();
        if (IsDead)
            return;
        BeforeEffect(offset, data.Length);
        disk.Complete(write);
        host.TakeTurns();
    }

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data) => WriteAsync(offset, [data]);

    public ValueTask WriteAsync(long offset, IReadOnlyList<ReadOnlyMemory<byte>> pieces)
    {
        byte[] data = new byte[pieces.Sum(piece => piece.Length)];
        int at = 0;
        foreach (ReadOnlyMemory<byte> piece in pieces)
        {
            piece.Span.CopyTo(data.AsSpan(at));
            at += piece.Length;
        }
        return WriteAsync(offset, data, Events.OfWrite(offset, pieces.Count));
    }

    public async ValueTask FlushAsync()
    {
        await EndIfDeadAsync();
        FileWrite[] covered = [.. disk.Completed().Where(write => Region is not { } region || region.Holds(write.Offset))];
        string what = Events.OfFlush(covered);
        using Operation operation = Begin(what, covered.Length, 0);
        FaultKind? fault = await StartAsync(what);
        await EndIfDeadAsync();
        host.AtBarrier(disk);
        if (fault is FaultKind.InputOutput or FaultKind.NoSpace or FaultKind.ShortWrite)
        {
            disk.LoseAtFlush(covered, host.Random);
            _flushFailed = true;
            throw Failure("flushing", fault == FaultKind.NoSpace ? NoSpaceError : InputOutputError);
        }
        disk.MakeDurable(covered);
        await PauseAsync();
    }

    public async ValueTask<bool> PunchHoleAsync(long offset, long bytes)
    {
        if (!CanPunchHoles)
            return false;
        // To the file a hole is a write of zeros that does not make it longer.
        int inside = (int)Math.Clamp(LengthBytes - offset, 0, bytes);
        if (inside > 0)
            await WriteAsync(offset, new byte[inside], FileEvents.PunchHole);
        return true;
    }

    /// <summary>The length is taken to be durable at once.</summary>
    public ValueTask SetLengthAsync(long bytes)
    {
        using Operation operation = Begin(FileEvents.SetLength, bytes, 0);
        if (Faults.Next(FileEvents.SetLength) is FaultKind.InputOutput or FaultKind.NoSpace)
            throw Failure("resizing", NoSpaceError);
        if (Region is null)
            disk.SetLength(bytes);
        else if (bytes > Region.Value.Bytes)
            throw host.Failed("region", $"'{name}' has {Region.Value.Bytes} bytes of its disk, not {bytes}");
        else if (Region.Value.Start == 0)
            disk.FirstFileBytes = bytes;
        return ValueTask.CompletedTask;
    }

    /// <summary>What reads as zeros in a part of a disk may be a hole.</summary>
    public FileExtent GetExtent(long offset, long limit)
    {
        byte[] bytes = new byte[limit - offset];
        disk.Visible.Read(OnDisk(offset), bytes);
        return new FileExtent(limit - offset, IsData: Region is null || bytes.AsSpan().IndexOfAnyExcept((byte)0) >= 0);
    }

    public ValueTask DisposeAsync()
    {
        if (!IsClosed && !IsDead && _underWay > 0)
            throw host.Failed("F1", $"'{name}' was let go with {_underWay} operations under way");
        IsClosed = true;
        if (_flushFailed && !IsDead)
            disk.DropLost(); // as LocalBlockFile does
        host.Release(this);
        return ValueTask.CompletedTask;
    }

    private long OnDisk(long offset) => offset + (Region?.Start ?? 0);

    private async ValueTask WriteAsync(long offset, byte[] data, string what)
    {
        if (IsReadOnly)
            throw host.Failed("I8", $"a write at {offset} of '{name}', which is open for reading");
        if (Region is { Start: 0 } first && offset < first.Bytes)
            disk.FirstFileBytes = Math.Max(disk.FirstFileBytes, offset + data.Length);
        if (offset + data.Length > Region?.Bytes)
            throw host.Failed("region", $"'{name}' has {Region.Value.Bytes} bytes of its disk, and {what} at {offset} is not in them");
        await EndIfDeadAsync();
        using Operation operation = Begin(what, offset, data.Length);
        FaultKind? fault = Faults.Next(what);
        if (fault is FaultKind.InputOutput or FaultKind.NoSpace)
        {
            await PauseAsync();
            throw Failure("writing", fault == FaultKind.NoSpace ? NoSpaceError : InputOutputError);
        }
        FileWrite write = disk.Issue(OnDisk(offset), data, what, Generation);
        await (fault == FaultKind.Slow ? host.WaitAsync(SlowTurns) : PauseAsync());
        await EndIfDeadAsync();
        BeforeEffect(offset, data.Length);
        if (fault == FaultKind.ShortWrite)
            write.Shorten(host.Random.Next(write.SectorCount));
        disk.Complete(write);
        await PauseAsync();
        if (fault == FaultKind.ShortWrite)
            throw Failure("writing", InputOutputError);
    }

    /// <summary>To be awaited right before an effect: between two awaits of an operation its process may have died.</summary>
    private ValueTask EndIfDeadAsync() => IsDead ? new ValueTask(new TaskCompletionSource().Task) : ValueTask.CompletedTask;

    private void BeforeEffect(long offset, int bytes)
    {
        if (Generation < disk.LastWriter)
            throw host.Failed("F1", $"a write at {offset} of owner {Generation} of '{name}' takes effect after one of owner {disk.LastWriter}");
        Writing?.Invoke(offset, bytes);
    }

    private Operation Begin(string what, long offset, long bytes)
    {
        if (IsClosed)
            throw host.Failed("F1", $"{what} at {offset} of '{name}' after the file was let go");
        host.Trace.Add(what, offset, bytes);
        _underWay++;
        return new Operation(this);
    }

    private async ValueTask<FaultKind?> StartAsync(string what, int longOneIn = 16)
    {
        FaultKind? fault = Faults.Next(what);
        await (fault == FaultKind.Slow ? host.WaitAsync(SlowTurns) : PauseAsync(longOneIn));
        return fault;
    }

    private ValueTask PauseAsync(int longOneIn = 16) => host.PauseAsync(longOneIn);

    private BlockFileException Failure(string operation, int errorNumber)
    {
        string reason = errorNumber == NoSpaceError ? "No space left on device" : "Input/output error";
        var failure = new BlockFileException(operation, name, errorNumber, reason);
        Faults.NoteError(failure);
        return failure;
    }

    private readonly struct Operation(SimulatedFile file) : IDisposable
    {
        public void Dispose() => file._underWay--;
    }
}
