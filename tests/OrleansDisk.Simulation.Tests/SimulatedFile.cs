using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Simulation.Tests;

/// <summary>
/// A file in memory whose writes reach stable storage only at a flush, and in any subset before it. A flush covers the
/// writes that completed before it was asked for, and no others.
/// </summary>
internal sealed class SimulatedFile(byte[] durable, SeededScheduler? scheduler = null) : IBlockFile
{
    private readonly List<Write> _pending = [];
    private byte[] _visible = (byte[])durable.Clone();
    private byte[] _durable = durable;

    public string Name => "simulated.qcow2";

    public bool IsReadOnly { get; init; }

    /// <summary>Whether the simulated file system has holes.</summary>
    public bool CanPunchHoles { get; init; } = true;

    public long LengthBytes => _visible.Length;

    /// <summary>Called when a flush has done its work and has not told anyone: the moment with the most crash states.</summary>
    public Func<Task>? Flushing { get; set; }

    /// <summary>Called before a read looks at the file: where a test holds a read up.</summary>
    public Func<long, Task>? Reading { get; set; }

    public IReadOnlyList<Write> Pending => _pending;

    /// <summary>What stable storage holds if just these writes reached it, each in the parts that tearing leaves.</summary>
    public byte[] CrashState(IEnumerable<Write> reached, Random random)
    {
        byte[] state = (byte[])_durable.Clone();
        foreach (Write write in reached)
            Apply(ref state, random.Next(8) == 0 ? write.Torn(random) : write);
        return state;
    }

    public async ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        if (Reading is not null)
            await Reading(offset);
        // A slow read is one that sees what became of its clusters meanwhile.
        await PauseAsync(longOneIn: 3);
        TryRead(offset, buffer.Span);
    }

    public bool TryRead(long offset, Span<byte> buffer)
    {
        int inside = (int)Math.Clamp(_visible.Length - offset, 0, buffer.Length);
        _visible.AsSpan((int)Math.Min(offset, _visible.Length), inside).CopyTo(buffer);
        buffer[inside..].Clear();
        return true;
    }

    void IBlockFile.Write(long offset, ReadOnlySpan<byte> data)
    {
        Assert.False(IsReadOnly, "nothing writes to a file that is open read-only");
        var write = new Write(offset, data.ToArray()) { IsComplete = true };
        _pending.Add(write);
        Apply(ref _visible, write);
    }

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data) => WriteAsync(offset, [data]);

    public async ValueTask WriteAsync(long offset, IReadOnlyList<ReadOnlyMemory<byte>> pieces)
    {
        Assert.False(IsReadOnly, "nothing writes to a file that is open read-only");
        var write = new Write(offset, pieces.SelectMany(piece => piece.ToArray()).ToArray());
        _pending.Add(write);
        await PauseAsync();
        Apply(ref _visible, write);
        write.IsComplete = true;
        await PauseAsync();
    }

    public async ValueTask FlushAsync()
    {
        Write[] covered = _pending.Where(write => write.IsComplete).ToArray();
        await PauseAsync();
        if (Flushing is not null)
            await Flushing();
        foreach (Write write in covered)
        {
            if (_pending.Remove(write))
                Apply(ref _durable, write);
        }
        await PauseAsync();
    }

    public async ValueTask<bool> PunchHoleAsync(long offset, long bytes)
    {
        if (!CanPunchHoles)
            return false;
        // To the file a hole is a write of zeros that does not make it longer.
        long inside = Math.Clamp(_visible.Length - offset, 0, bytes);
        if (inside > 0)
            await WriteAsync(offset, new byte[inside]);
        return true;
    }

    /// <summary>Only the creation of an image sets the length; it is taken to be durable at once.</summary>
    public ValueTask SetLengthAsync(long bytes)
    {
        Array.Resize(ref _visible, (int)bytes);
        Array.Resize(ref _durable, (int)bytes);
        return ValueTask.CompletedTask;
    }

    public FileExtent GetExtent(long offset, long limit) => new(limit - offset, IsData: true);

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private ValueTask PauseAsync(int longOneIn = 16) => scheduler?.PauseAsync(longOneIn) ?? ValueTask.CompletedTask;

    private static void Apply(ref byte[] bytes, Write write)
    {
        if (write.Offset + write.Data.Length > bytes.Length)
            Array.Resize(ref bytes, (int)(write.Offset + write.Data.Length));
        for (int at = 0; at < write.Data.Length; at++)
        {
            if (write.Mask is null || write.Mask[(int)((write.Offset + at) / 512 - write.Offset / 512)])
                bytes[write.Offset + at] = write.Data[at];
        }
    }

    /// <summary>One write; the mask, if any, says which of its sectors reached stable storage.</summary>
    internal sealed class Write(long offset, byte[] data)
    {
        public long Offset { get; } = offset;

        public byte[] Data { get; } = data;

        public bool IsComplete { get; set; }

        public bool[]? Mask { get; private init; }

        /// <summary>The same write with some of its sectors missing.</summary>
        public Write Torn(Random random)
        {
            int sectors = (int)((Offset + Data.Length + 511) / 512 - Offset / 512);
            bool[] mask = new bool[sectors];
            for (int i = 0; i < sectors; i++)
                mask[i] = random.Next(2) == 0;
            return new Write(Offset, Data) { Mask = mask };
        }
    }
}
