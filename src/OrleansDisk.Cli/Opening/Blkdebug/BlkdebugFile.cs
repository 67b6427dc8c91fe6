using System.Buffers.Binary;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Opening.Blkdebug;

/// <summary>
/// A file whose requests fail or stop as rules say. Events are told by what a request hits in the image's own map of its
/// metadata: the engine knows nothing of this.
/// </summary>
internal sealed class BlkdebugFile(IBlockFile file, BlkdebugRules rules) : IBlockFile
{
    private readonly HashSet<long> _writtenTables = [];

    /// <summary>
    /// The name of what the image keeps at an offset, null for guest data; set when the image is open. What is read and
    /// written until then has no event.
    /// </summary>
    public Func<long, string?>? MetadataAt { get; set; }

    public string Name => file.Name;

    public bool IsReadOnly => file.IsReadOnly;

    public long LengthBytes => file.LengthBytes;

    public bool IsDevice => file.IsDevice;

    public bool IsDirect => file.IsDirect;

    public async ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        string? name = NameAt(offset) switch
        {
            "" => BlkdebugEvents.ReadAio,
            "active L2 table" => BlkdebugEvents.L2Load,
            "refcount block" => BlkdebugEvents.RefblockLoad,
            _ => null,
        };
        await BeginAsync(name, BlkdebugIoTypes.Read, offset, buffer.Length);
        await file.ReadAsync(offset, buffer);
    }

    /// <summary>Never at once: rules are asked in turns.</summary>
    public bool TryRead(long offset, Span<byte> buffer) => false;

    /// <summary>Not supported: no lease is given out over such a file.</summary>
    public void Write(long offset, ReadOnlySpan<byte> data) =>
        throw new NotSupportedException($"'{Name}' can't be written outside a turn");

    public async ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data)
    {
        await BeginAsync(EventOfWrite(offset), BlkdebugIoTypes.Write, offset, data.Length);
        await file.WriteAsync(offset, data);
    }

    public async ValueTask WriteAsync(long offset, IReadOnlyList<ReadOnlyMemory<byte>> pieces)
    {
        await BeginAsync(EventOfWrite(offset), BlkdebugIoTypes.Write, offset, pieces.Sum(piece => (long)piece.Length));
        await file.WriteAsync(offset, pieces);
    }

    public async ValueTask FlushAsync()
    {
        await BeginAsync(null, BlkdebugIoTypes.Flush, 0, 0);
        await file.FlushAsync();
    }

    public async ValueTask<bool> PunchHoleAsync(long offset, long bytes)
    {
        await BeginAsync(null, BlkdebugIoTypes.Discard, offset, bytes);
        return await file.PunchHoleAsync(offset, bytes);
    }

    public ValueTask SetLengthAsync(long bytes) => file.SetLengthAsync(bytes);

    public FileExtent GetExtent(long offset, long limit)
    {
        rules.Check(BlkdebugIoTypes.BlockStatus, Name, offset, limit - offset);
        return file.GetExtent(offset, limit);
    }

    public ValueTask DisposeAsync() => file.DisposeAsync();

    /// <summary>
    /// Tells events by an image's map from here on. An image that is only read has no map of its L2 tables: its L1 table
    /// is asked.
    /// </summary>
    public async Task FollowAsync(Qcow2Image image)
    {
        MetadataAt = image.MetadataAt;
        if (!image.IsReadOnly)
            return;
        Header header = image.Header;
        byte[] l1 = new byte[header.L1EntryCount * sizeof(ulong)];
        await file.ReadAsync(header.L1Table.Bytes, l1);
        var tables = new HashSet<long>();
        for (int at = 0; at < l1.Length; at += sizeof(ulong))
            tables.Add(header.Geometry.ClusterOf(new L1Entry(BinaryPrimitives.ReadUInt64BigEndian(l1.AsSpan(at))).L2Table).Index);
        MetadataAt = offset => image.MetadataAt(offset)
            ?? (tables.Contains(header.Geometry.ClusterOf(new HostOffset(offset)).Index) ? "active L2 table" : null);
    }

    /// <summary>The name of the metadata at an offset; empty for guest data, null when nobody can tell yet.</summary>
    private string? NameAt(long offset) => MetadataAt is null ? null : MetadataAt(offset) ?? "";

    private string? EventOfWrite(long offset) => NameAt(offset) switch
    {
        "" => BlkdebugEvents.WriteAio,
        "active L1 table" => BlkdebugEvents.L1Update,
        "active L2 table" => _writtenTables.Add(offset) ? BlkdebugEvents.L2AllocWrite : BlkdebugEvents.L2Update,
        "refcount block" => _writtenTables.Add(offset) && offset >= file.LengthBytes
            ? BlkdebugEvents.RefblockAllocWrite : BlkdebugEvents.RefblockUpdate,
        "refcount table" => BlkdebugEvents.RefblockAllocHookup,
        _ => null,
    };

    private async ValueTask BeginAsync(string? name, BlkdebugIoTypes type, long offset, long bytes)
    {
        if (name is not null)
            await rules.TriggerAsync(name);
        rules.Check(type, Name, offset, bytes);
    }
}
