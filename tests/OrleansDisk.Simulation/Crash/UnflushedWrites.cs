using OrleansDisk.Simulation.Host;
using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Crash;

/// <summary>
/// The writes that a power loss at one moment may or may not have brought to stable storage, sorted by the sectors that
/// they touch: crash states share everything else.
/// </summary>
internal sealed class UnflushedWrites
{
    private readonly ByteStore _durable;
    private readonly FileWrite[] _writes;
    private readonly Dictionary<int, int> _touched = [];
    private readonly List<List<(int Write, int Slot)>> _slots = [];

    public UnflushedWrites(SimulatedDisk disk)
    {
        _durable = disk.Durable;
        _writes = [.. disk.Unflushed];
        for (int write = 0; write < _writes.Length; write++)
        {
            if (!disk.HasCompleted(_writes[write]))
                _writes[write].Widen(disk.Visible);
            for (int slot = 0; slot < _writes[write].SectorCount; slot++)
            {
                int sector = _writes[write].FirstSector + slot;
                if (!_touched.TryGetValue(sector, out int index))
                {
                    _touched.Add(sector, index = _slots.Count);
                    _slots.Add([]);
                }
                _slots[index].Add((write, slot));
            }
        }
    }

    public int Count => _writes.Length;

    public IReadOnlyList<FileWrite> Writes => _writes;

    /// <summary>Whether any write touches a sector.</summary>
    public bool Touches(int sector) => _touched.ContainsKey(sector);

    /// <summary>The writes that touch a sector.</summary>
    public IEnumerable<int> WritesOf(int sector) =>
        _touched.TryGetValue(sector, out int index) ? _slots[index].Select(slot => slot.Write) : [];

    /// <summary>Length of the file in a state.</summary>
    public int LengthOf(CrashState state)
    {
        int length = _durable.Length;
        for (int write = 0; write < _writes.Length; write++)
        {
            if (_writes[write].SectorCount > 0 && state.Holds(write, _writes[write].SectorCount - 1))
                length = Math.Max(length, (int)_writes[write].End);
        }
        return length;
    }

    /// <summary>Bytes of the file in a state.</summary>
    public void Read(CrashState state, long offset, Span<byte> into)
    {
        _durable.Read(offset, into);
        int first = (int)(offset / SectorContent.Bytes);
        int end = (int)((offset + into.Length + SectorContent.Bytes - 1) / SectorContent.Bytes);
        Span<byte> bytes = stackalloc byte[SectorContent.Bytes];
        for (int sector = first; sector < end; sector++)
        {
            if (!_touched.TryGetValue(sector, out int index))
                continue;
            ReadSector(state, sector, index, bytes);
            long start = (long)sector * SectorContent.Bytes;
            int from = (int)Math.Max(0, offset - start);
            int to = (int)Math.Min(SectorContent.Bytes, offset + into.Length - start);
            bytes[from..to].CopyTo(into[(int)(start + from - offset)..]);
        }
    }

    /// <summary>The content of a sector in a state.</summary>
    public long ContentOf(CrashState state, int sector)
    {
        if (!_touched.TryGetValue(sector, out int index))
            return _durable.ContentOf(sector);
        List<(int Write, int Slot)> slots = _slots[index];
        for (int i = slots.Count - 1; i >= 0; i--)
        {
            (int write, int slot) = slots[i];
            if (state.Holds(write, slot))
                return _writes[write].ContentOf(slot);
        }
        return _durable.ContentOf(sector);
    }

    /// <summary>All bytes of the file in a state.</summary>
    public byte[] Materialize(CrashState state)
    {
        byte[] bytes = new byte[LengthOf(state)];
        Read(state, 0, bytes);
        return bytes;
    }

    private void ReadSector(CrashState state, int sector, int index, Span<byte> bytes)
    {
        List<(int Write, int Slot)> slots = _slots[index];
        for (int i = slots.Count - 1; i >= 0; i--)
        {
            (int write, int slot) = slots[i];
            if (!state.Holds(write, slot))
                continue;
            _writes[write].Sector(slot).CopyTo(bytes);
            return;
        }
        _durable.Read((long)sector * SectorContent.Bytes, bytes);
    }
}
