using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Simulation.Host;

/// <summary>
/// Names what an operation on an image file is for, by where it hits: the engine's own map of its metadata tells, and
/// the engine need not. docs/testing.md has the table.
/// </summary>
internal sealed class FileEvents
{
    public const string Any = "any";
    public const string OpenRead = "open read";
    public const string OpenWrite = "open write";
    public const string OpenFlush = "open flush";
    public const string L1Write = "l1 write";
    public const string L2Load = "l2 load";
    public const string L2Alloc = "l2 alloc";
    public const string L2Write = "l2 write";
    public const string RefblockLoad = "refblock load";
    public const string RefblockAlloc = "refblock alloc";
    public const string RefblockWrite = "refblock write";
    public const string ReftableGrow = "reftable grow";
    public const string ReftableWrite = "reftable write";
    public const string HeaderWrite = "header write";
    public const string MetadataRead = "other metadata read";
    public const string DataRead = "data read";
    public const string DataWrite = "data write";
    public const string CopyRead = "cow read";
    public const string CopyWrite = "cow write";
    public const string BackingRead = "backing read";
    public const string FlushBeforePointers = "flush before pointers";
    public const string FlushAfterReftable = "flush after reftable";
    public const string FlushAfterHeader = "flush after header";
    public const string FlushAfterPointers = "flush after pointers";
    public const string SessionRead = "session read";
    public const string SessionWrite = "session write";
    public const string PunchHole = "punch hole";
    public const string SetLength = "set length";

    /// <summary>
    /// What must become of an image when an event fails (W7): it stops when what is on disk is no longer known, and goes
    /// on when only one request is to blame. Null where both are right.
    /// </summary>
    public static bool? MustStop(string name) => name switch
    {
        L1Write or L2Alloc or L2Write or RefblockAlloc or RefblockWrite or ReftableGrow or ReftableWrite or HeaderWrite
            or FlushBeforePointers or FlushAfterReftable or FlushAfterHeader or FlushAfterPointers => true,
        DataRead or DataWrite or CopyRead or CopyWrite or BackingRead or SessionRead or SessionWrite or PunchHole => false,
        _ => null,
    };

    private readonly HashSet<long> _knownTables = [];
    private int _clusterBits;
    private MetadataMap? _map;
    private bool _isDataFile;

    /// <summary>Whether a read of guest data is one for a copy on write: a change runs, and no guest read.</summary>
    public Func<bool> IsCopying { get; set; } = () => false;

    /// <summary>Whether the write's target is metadata.</summary>
    public static bool IsMetadata(string target) => target is not (DataWrite or CopyWrite or SessionWrite or PunchHole);

    /// <summary>The image is open: what happens from here on is told apart by its map.</summary>
    public void Follow(MetadataMap map, Header header, Func<long, bool> isTable)
    {
        _map = map;
        _clusterBits = header.Geometry.ClusterBits;
        _knownTables.Add(header.RefcountTable.Bytes >> _clusterBits);
        IsTable = isTable;
    }

    /// <summary>The file has guest data and nothing else.</summary>
    public void FollowData(Func<bool> isCopying) => (_isDataFile, IsCopying) = (true, isCopying);

    private Func<long, bool> IsTable { get; set; } = _ => false;

    public string OfRead(long offset) => NameAt(offset) switch
    {
        null when _map is null && !_isDataFile => OpenRead,
        null => IsCopying() ? CopyRead : DataRead,
        "active L2 table" => L2Load,
        "refcount block" => RefblockLoad,
        _ => MetadataRead,
    };

    public string OfWrite(long offset, int pieceCount) => NameAt(offset) switch
    {
        null when _map is null && !_isDataFile => OpenWrite,
        null => pieceCount > 1 ? CopyWrite : DataWrite,
        "qcow2_header" => HeaderWrite,
        MetadataMap.ActiveL1 => L1Write,
        "active L2 table" => IsNewTable(offset) ? L2Alloc : L2Write,
        "refcount block" => IsNewTable(offset) ? RefblockAlloc : RefblockWrite,
        MetadataMap.RefcountTable => _knownTables.Contains(offset >> _clusterBits) ? ReftableWrite : ReftableGrow,
        _ => L1Write,
    };

    /// <summary>A flush is named by what it makes durable.</summary>
    public string OfFlush(IEnumerable<FileWrite> covered)
    {
        if (_map is null && !_isDataFile)
            return OpenFlush;
        string name = FlushBeforePointers;
        foreach (FileWrite write in covered)
        {
            if (write.Target is L1Write or L2Write)
                return FlushAfterPointers;
            if (write.Target == HeaderWrite)
                name = FlushAfterHeader;
            else if (write.Target is ReftableWrite or ReftableGrow && name != FlushAfterHeader)
                name = FlushAfterReftable;
        }
        return name;
    }

    private string? NameAt(long offset) => _map?.Find(new HostCluster(offset >> _clusterBits));

    /// <summary>The first write to a table that did not exist when the image was opened.</summary>
    private bool IsNewTable(long offset) =>
        _knownTables.Add(offset >> _clusterBits) && !IsTable(offset >> _clusterBits << _clusterBits);
}
