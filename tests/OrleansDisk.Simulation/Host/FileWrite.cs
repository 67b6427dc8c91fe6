using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Host;

/// <summary>
/// A write to a simulated disk that no flush covers yet, as whole sectors: what a system puts on stable storage of a
/// sector is all that programs see of it.
/// </summary>
/// <param name="offset">First byte.</param>
/// <param name="data">The bytes.</param>
/// <param name="target">What it hits, in the words of <see cref="FileEvents"/>.</param>
internal sealed class FileWrite(long offset, byte[] data, string target)
{
    private byte[] _sectors = [];
    private long[] _contents = [];

    public long Offset { get; } = offset;

    public byte[] Data { get; private set; } = data;

    public string Target { get; } = target;

    /// <summary>The handle that wrote; later ones have higher numbers.</summary>
    public long Generation { get; init; }

    public long End => Offset + Data.Length;

    public int FirstSector => (int)(Offset / SectorContent.Bytes);

    public int SectorCount => Data.Length == 0 ? 0 : (int)((End + SectorContent.Bytes - 1) / SectorContent.Bytes) - FirstSector;

    /// <summary>Fills the sectors that the write covers in part with what is there.</summary>
    public void Widen(ByteStore store)
    {
        if (Data.Length == 0)
            return;
        long start = (long)FirstSector * SectorContent.Bytes;
        _sectors = new byte[SectorCount * SectorContent.Bytes];
        if (Data.Length < _sectors.Length)
            store.Read(start, _sectors);
        Data.CopyTo(_sectors, (int)(Offset - start));
        _contents = new long[SectorCount];
        for (int slot = 0; slot < _contents.Length; slot++)
            _contents[slot] = SectorContent.Parse(Sector(slot));
    }

    /// <summary>The write's nth sector.</summary>
    public ReadOnlySpan<byte> Sector(int slot) => _sectors.AsSpan(slot * SectorContent.Bytes, SectorContent.Bytes);

    /// <summary>The content that the write gives to its nth sector.</summary>
    public long ContentOf(int slot) => _contents[slot];

    /// <summary>Puts the write into a store; the store ends where the write does, not where its last sector does.</summary>
    public void ApplyTo(ByteStore store)
    {
        if (Data.Length == 0)
            return;
        int end = (int)Math.Max(store.Length, End);
        store.Write((long)FirstSector * SectorContent.Bytes, _sectors);
        store.SetLength(end);
    }

    /// <summary>Cuts the write: only its first sectors were written.</summary>
    public void Shorten(int sectors) => Data = Data[..(int)Math.Max(0, ((long)(FirstSector + sectors) * SectorContent.Bytes) - Offset)];
}
