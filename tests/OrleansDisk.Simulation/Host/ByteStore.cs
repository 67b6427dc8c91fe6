using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Host;

/// <summary>Bytes that grow as they are written, and what each of their sectors holds.</summary>
internal sealed class ByteStore
{
    private const long Unknown = unchecked((long)0x8BAD_0BAD_8BAD_0BAD);
    private byte[] _bytes;
    private long[] _contents;

    public ByteStore(ReadOnlySpan<byte> bytes)
    {
        _bytes = bytes.ToArray();
        Length = bytes.Length;
        _contents = new long[SectorCount(_bytes.Length)];
        _contents.AsSpan().Fill(Unknown);
    }

    public int Length { get; private set; }

    public ReadOnlySpan<byte> Bytes => _bytes.AsSpan(0, Length);

    /// <summary>Copies bytes out; what lies past the end is zeros.</summary>
    public void Read(long offset, Span<byte> into)
    {
        int inside = (int)Math.Clamp(Length - offset, 0, into.Length);
        if (inside > 0)
            _bytes.AsSpan((int)offset, inside).CopyTo(into);
        into[inside..].Clear();
    }

    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        if (offset + data.Length > Length)
            SetLength((int)offset + data.Length);
        data.CopyTo(_bytes.AsSpan((int)offset));
        int first = (int)(offset / SectorContent.Bytes);
        int end = SectorCount(offset + data.Length);
        _contents.AsSpan(first, end - first).Fill(Unknown);
    }

    public void SetLength(int length)
    {
        if (length < Length)
        {
            _bytes.AsSpan(length, Length - length).Clear();
            _contents.AsSpan(length / SectorContent.Bytes).Fill(Unknown);
        }
        if (length > _bytes.Length)
        {
            Array.Resize(ref _bytes, Math.Max(length, _bytes.Length * 2));
            int known = _contents.Length;
            Array.Resize(ref _contents, SectorCount(_bytes.Length));
            _contents.AsSpan(known).Fill(Unknown);
        }
        Length = length;
    }

    /// <summary>The content of a sector (<see cref="SectorContent"/>).</summary>
    public long ContentOf(int sector)
    {
        if (sector >= _contents.Length)
            return 0;
        if (_contents[sector] == Unknown)
        {
            Span<byte> bytes = stackalloc byte[SectorContent.Bytes];
            Read((long)sector * SectorContent.Bytes, bytes);
            _contents[sector] = SectorContent.Parse(bytes);
        }
        return _contents[sector];
    }

    /// <summary>Takes the bytes of another store; what it is shorter by becomes zeros.</summary>
    public void CopyFrom(ByteStore other)
    {
        other.Read(0, _bytes.AsSpan(0, Length));
        _contents.AsSpan().Fill(Unknown);
    }

    public ByteStore Clone() => new(Bytes);

    private static int SectorCount(long bytes) => (int)((bytes + SectorContent.Bytes - 1) / SectorContent.Bytes);
}
