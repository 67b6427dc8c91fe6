using System.Buffers.Binary;
using System.Text;

namespace OrleansDisk.Qcow2.Format;

/// <summary>Encryption methods of a header (crypt_method).</summary>
public enum EncryptionMethod : uint
{
    None = 0,
    Aes = 1,
    Luks = 2,
}

/// <summary>The header of an image with its extensions (qcow2 specification, "Header"). Immutable.</summary>
public sealed record Header
{
    public const uint Magic = 0x5146_49fb;
    public const int Version2Bytes = 72;
    public const int Version3MinBytes = 104;

    /// <summary>Length of the headers that are written: all fields up to the compression type, padded to 8.</summary>
    public const int Version3Bytes = 112;

    public const int MaxBackingFileNameBytes = 1023;
    public const int MaxSnapshotCount = 65536;

    /// <summary>Feature names are left out where they would take a good part of the header's cluster.</summary>
    private const int MaxClusterBytesWithoutNames = 4096;

    public required int Version { get; init; }

    public required ClusterGeometry Geometry { get; init; }

    /// <summary>Size of the disk in bytes, as stored.</summary>
    public required long VirtualBytes { get; init; }

    /// <summary>Size of the disk in bytes as its users see it: whole sectors of 512 bytes, as QEMU counts it.</summary>
    public long DiskBytes => VirtualBytes & ~511L;

    public EncryptionMethod Encryption { get; init; }

    public int L1EntryCount { get; init; }

    public HostOffset L1Table { get; init; }

    public HostOffset RefcountTable { get; init; }

    /// <summary>Length of the refcount table in clusters.</summary>
    public int RefcountTableClusters { get; init; }

    public int SnapshotCount { get; init; }

    public HostOffset SnapshotTable { get; init; }

    public IncompatibleFeatures Incompatible { get; init; }

    public CompatibleFeatures Compatible { get; init; }

    public AutoclearFeatures Autoclear { get; init; }

    /// <summary>header_length: 72 for version 2.</summary>
    public int HeaderBytes { get; init; }

    /// <summary>Counts only when the header is longer than 104 bytes.</summary>
    public CompressionType CompressionType { get; init; }

    /// <summary>Name of the backing file as stored, or null.</summary>
    public string? BackingFile { get; init; }

    public IReadOnlyList<HeaderExtension> Extensions { get; init; } = [];

    /// <summary>Fields behind those that are known here, kept as they are (version 3).</summary>
    public byte[] UnknownFields { get; init; } = [];

    /// <summary>The name of the external data file as stored, or null.</summary>
    public string? DataFile => Find(HeaderExtensionType.ExternalDataFileName) is { } extension
        ? Encoding.UTF8.GetString(extension.Data).Split('\0')[0] is { Length: > 0 } name ? name : null : null;

    /// <summary>The recorded format of the backing file, or null.</summary>
    public string? BackingFormat =>
        Find(HeaderExtensionType.BackingFormat) is { } extension ? Encoding.UTF8.GetString(extension.Data) : null;

    /// <summary>The extension of a type, or null; of several the last one counts, as it does for QEMU.</summary>
    public HeaderExtension? Find(HeaderExtensionType type) => Extensions.LastOrDefault(e => e.Type == type);

    /// <summary>Whether the bytes begin as an image of version 2 or later does.</summary>
    public static bool Probe(ReadOnlySpan<byte> start) => start.Length >= 8
        && BinaryPrimitives.ReadUInt32BigEndian(start) == Magic && BinaryPrimitives.ReadUInt32BigEndian(start[4..]) >= 2;

    /// <summary>The cluster size that the first bytes of an image state, so that the whole first cluster can be read.</summary>
    /// <param name="start">At least 24 bytes.</param>
    /// <exception cref="Qcow2FormatException">Not an image, a version or a cluster size that does not exist.</exception>
    public static int ParseClusterBytes(ReadOnlySpan<byte> start)
    {
        if (start.Length < Version2Bytes || BinaryPrimitives.ReadUInt32BigEndian(start) != Magic)
            throw new Qcow2FormatException("Image is not in qcow2 format");
        uint version = BinaryPrimitives.ReadUInt32BigEndian(start[HeaderField.Version..]);
        if (version is < 2 or > 3)
            throw new Qcow2FormatException($"Unsupported qcow2 version {version}");
        uint clusterBits = BinaryPrimitives.ReadUInt32BigEndian(start[HeaderField.ClusterBits..]);
        if (clusterBits is < ClusterGeometry.MinClusterBits or > ClusterGeometry.MaxClusterBits)
            throw new Qcow2FormatException($"Unsupported cluster size: 2^{clusterBits}");
        return 1 << (int)clusterBits;
    }

    /// <summary>Reads the header and its extensions from the first cluster of an image.</summary>
    /// <param name="cluster">The first cluster; a file shorter than that is padded with zeros by the caller.</param>
    /// <exception cref="Qcow2FormatException">The header breaks the specification.</exception>
    /// <exception cref="Qcow2UnsupportedException">It has an incompatible feature that is unknown.</exception>
    public static Header Parse(ReadOnlySpan<byte> cluster) => Parse(cluster, isForCheck: false);

    /// <inheritdoc cref="Parse(ReadOnlySpan{byte})"/>
    /// <param name="cluster">The first cluster.</param>
    /// <param name="isForCheck">Whether there may be no refcount table, and a snapshot table that can't be.</param>
    internal static Header Parse(ReadOnlySpan<byte> cluster, bool isForCheck)
    {
        int clusterBytes = ParseClusterBytes(cluster);
        Invariant.Assert(cluster.Length >= clusterBytes, "the whole first cluster is given to the header's parser");
        cluster = cluster[..clusterBytes];
        int version = (int)HeaderField.ReadUInt32(cluster, HeaderField.Version);
        int headerBytes = Version2Bytes;
        if (version == 3)
        {
            uint length = HeaderField.ReadUInt32(cluster, HeaderField.HeaderLength);
            if (length < Version3MinBytes)
                throw new Qcow2FormatException("qcow2 header too short");
            if (length > clusterBytes)
                throw new Qcow2FormatException("qcow2 header exceeds cluster size");
            headerBytes = (int)length;
        }
        ulong backingOffset = HeaderField.ReadUInt64(cluster, HeaderField.BackingFileOffset);
        if (backingOffset > (ulong)clusterBytes)
            throw new Qcow2FormatException("Invalid backing file offset");
        int extensionsEnd = backingOffset == 0 ? clusterBytes : (int)backingOffset;
        IReadOnlyList<HeaderExtension> extensions = extensionsEnd > headerBytes
            ? HeaderExtension.ParseAll(cluster[headerBytes..extensionsEnd]) : [];
        IncompatibleFeatures incompatible = version == 3
            ? (IncompatibleFeatures)HeaderField.ReadUInt64(cluster, HeaderField.Incompatible) : default;
        FeatureCheck.RefuseUnknown(incompatible, extensions);
        FeatureCheck.ValidateSubclusters(clusterBytes, incompatible);
        uint refcountOrder = version == 3 ? HeaderField.ReadUInt32(cluster, HeaderField.RefcountOrder) : 4;
        if (refcountOrder > ClusterGeometry.MaxRefcountOrder)
            throw new Qcow2FormatException("Reference count entry width too large; may not exceed 64 bits");
        uint encryption = HeaderField.ReadUInt32(cluster, HeaderField.CryptMethod);
        if (encryption > (uint)EncryptionMethod.Luks)
            throw new Qcow2FormatException($"Unsupported encryption method {encryption}");
        byte compressionType = headerBytes > Version3MinBytes ? cluster[HeaderField.CompressionType] : (byte)0;
        FeatureCheck.ValidateCompressionType(compressionType, incompatible);
        return new Header
        {
            Version = version,
            Geometry = new ClusterGeometry(
                (int)HeaderField.ReadUInt32(cluster, HeaderField.ClusterBits), (int)refcountOrder, incompatible),
            HeaderBytes = headerBytes,
            Encryption = (EncryptionMethod)encryption,
            Incompatible = incompatible,
            Compatible = version == 3 ? (CompatibleFeatures)HeaderField.ReadUInt64(cluster, HeaderField.Compatible) : default,
            Autoclear = version == 3 ? (AutoclearFeatures)HeaderField.ReadUInt64(cluster, HeaderField.Autoclear) : default,
            CompressionType = (CompressionType)compressionType,
            UnknownFields = headerBytes > Version3Bytes ? cluster[Version3Bytes..headerBytes].ToArray() : [],
            BackingFile = ParseBackingFile(cluster, (int)backingOffset),
            Extensions = extensions,
            VirtualBytes = 0,
        }.WithTables(cluster, isForCheck);
    }

    /// <summary>The header with the table of feature names that belongs to it, or without one where it would take too much.</summary>
    public Header WithFeatureNames()
    {
        HeaderExtension? names = Find(HeaderExtensionType.FeatureNames);
        List<HeaderExtension> others = [.. Extensions.Where(extension => extension.Type != HeaderExtensionType.FeatureNames)];
        if (Version >= 3 && Geometry.ClusterBytes > MaxClusterBytesWithoutNames)
            others.Add(HeaderExtension.FeatureNames(names?.ParseFeatureNames() ?? []));
        return this with { Extensions = others };
    }

    /// <summary>The header with another backing file, or none.</summary>
    public Header WithBackingFile(string? name, string? format)
    {
        List<HeaderExtension> extensions = [.. Extensions.Where(extension => extension.Type != HeaderExtensionType.BackingFormat)];
        if (format is not null)
            extensions.Insert(0, HeaderExtension.BackingFormat(format));
        return this with { BackingFile = name, Extensions = extensions };
    }

    /// <summary>
    /// Writes the first cluster of an image: fields, extensions in QEMU's order, backing file name. Its length is then
    /// <see cref="Version3Bytes"/> and the unknown fields, or <see cref="Version2Bytes"/>.
    /// </summary>
    /// <exception cref="Qcow2Exception">They do not fit into the cluster.</exception>
    public void WriteTo(Span<byte> cluster)
    {
        cluster.Clear();
        HeaderField.WriteUInt32(cluster, HeaderField.MagicField, Magic);
        HeaderField.WriteUInt32(cluster, HeaderField.Version, (uint)Version);
        HeaderField.WriteUInt32(cluster, HeaderField.ClusterBits, (uint)Geometry.ClusterBits);
        WriteTables(cluster);
        if (Version >= 3)
        {
            HeaderField.WriteUInt64(cluster, HeaderField.Incompatible, (ulong)Incompatible);
            HeaderField.WriteUInt64(cluster, HeaderField.Compatible, (ulong)Compatible);
            HeaderField.WriteUInt64(cluster, HeaderField.Autoclear, (ulong)Autoclear);
            HeaderField.WriteUInt32(cluster, HeaderField.RefcountOrder, (uint)Geometry.RefcountOrder);
            HeaderField.WriteUInt32(cluster, HeaderField.HeaderLength, (uint)(Version3Bytes + UnknownFields.Length));
            cluster[HeaderField.CompressionType] = (byte)CompressionType;
        }
        byte[] name = BackingFile is null ? [] : Encoding.UTF8.GetBytes(BackingFile);
        int at = Version >= 3 ? Version3Bytes + UnknownFields.Length : Version2Bytes;
        int needed = at + Extensions.Sum(e => e.StoredBytes) + HeaderExtension.PrefixBytes + name.Length;
        if (needed > cluster.Length || name.Length > MaxBackingFileNameBytes)
            throw new Qcow2Exception("Backing file name too long");
        if (Version >= 3)
            UnknownFields.CopyTo(cluster[Version3Bytes..]);
        foreach (HeaderExtension extension in Extensions.OrderBy(extension => extension.Rank))
            at += extension.WriteTo(cluster[at..]);
        at += HeaderExtension.PrefixBytes;
        if (name.Length == 0)
            return;
        name.CopyTo(cluster[at..]);
        HeaderField.WriteUInt64(cluster, HeaderField.BackingFileOffset, (ulong)at);
        HeaderField.WriteUInt32(cluster, HeaderField.BackingFileSize, (uint)name.Length);
    }

    /// <summary>
    /// The fields from <see cref="HeaderField.Size"/> on that say how large the disk is and where tables are, as they lie
    /// on disk: one write of them changes all at once.
    /// </summary>
    internal byte[] StorePlaces()
    {
        byte[] fields = new byte[HeaderField.Incompatible];
        WriteTables(fields);
        return fields[HeaderField.Size..];
    }

    private void WriteTables(Span<byte> cluster)
    {
        HeaderField.WriteUInt64(cluster, HeaderField.Size, (ulong)VirtualBytes);
        HeaderField.WriteUInt32(cluster, HeaderField.CryptMethod, (uint)Encryption);
        HeaderField.WriteUInt32(cluster, HeaderField.L1Size, (uint)L1EntryCount);
        HeaderField.WriteUInt64(cluster, HeaderField.L1TableOffset, (ulong)L1Table.Bytes);
        HeaderField.WriteUInt64(cluster, HeaderField.RefcountTableOffset, (ulong)RefcountTable.Bytes);
        HeaderField.WriteUInt32(cluster, HeaderField.RefcountTableClusters, (uint)RefcountTableClusters);
        HeaderField.WriteUInt32(cluster, HeaderField.SnapshotCount, (uint)SnapshotCount);
        HeaderField.WriteUInt64(cluster, HeaderField.SnapshotsOffset, (ulong)SnapshotTable.Bytes);
    }

    private static string? ParseBackingFile(ReadOnlySpan<byte> cluster, int offset)
    {
        if (offset == 0)
            return null;
        uint length = HeaderField.ReadUInt32(cluster, HeaderField.BackingFileSize);
        if (length > Math.Min(MaxBackingFileNameBytes, cluster.Length - offset))
            throw new Qcow2FormatException("Backing file name too long");
        ReadOnlySpan<byte> name = cluster.Slice(offset, (int)length);
        // No file has a name with a NUL; QEMU sees the name end there.
        int end = name.IndexOf((byte)0);
        name = end < 0 ? name : name[..end];
        return name.IsEmpty ? null : Encoding.UTF8.GetString(name);
    }

    /// <summary>The header with its table positions, checked in QEMU's order so that the same message comes first.</summary>
    private Header WithTables(ReadOnlySpan<byte> cluster, bool isForCheck)
    {
        uint refcountClusters = HeaderField.ReadUInt32(cluster, HeaderField.RefcountTableClusters);
        if (refcountClusters == 0 && !isForCheck)
            throw new Qcow2FormatException("Image does not contain a reference count table");
        HostOffset refcountTable = Table(cluster, HeaderField.RefcountTableOffset, refcountClusters, Geometry.ClusterBytes,
            ClusterGeometry.MaxRefcountTableBytes, "Reference count table");
        uint snapshotCount = HeaderField.ReadUInt32(cluster, HeaderField.SnapshotCount);
        HostOffset snapshotTable = isForCheck ? new HostOffset((long)HeaderField.ReadUInt64(cluster, HeaderField.SnapshotsOffset))
            : Table(cluster, HeaderField.SnapshotsOffset, snapshotCount, 40, 40L * MaxSnapshotCount, "Snapshot table");
        uint l1Count = HeaderField.ReadUInt32(cluster, HeaderField.L1Size);
        HostOffset l1Table = Table(cluster, HeaderField.L1TableOffset, l1Count, sizeof(ulong),
            ClusterGeometry.MaxL1Bytes, "Active L1 table");
        ulong size = HeaderField.ReadUInt64(cluster, HeaderField.Size);
        if (size > long.MaxValue - (ulong)Geometry.BytesPerL2Table || Geometry.L1EntryCount((long)size) > int.MaxValue)
            throw new Qcow2FormatException("Image is too big");
        if (l1Count < Geometry.L1EntryCount((long)size))
            throw new Qcow2FormatException("L1 table is too small");
        return this with
        {
            VirtualBytes = (long)size,
            RefcountTable = refcountTable,
            RefcountTableClusters = (int)refcountClusters,
            SnapshotTable = snapshotTable,
            SnapshotCount = (int)Math.Min(snapshotCount, int.MaxValue),
            L1Table = l1Table,
            L1EntryCount = (int)l1Count,
        };
    }

    private HostOffset Table(
        ReadOnlySpan<byte> cluster, int offsetField, uint entryCount, int entryBytes, long maxBytes, string name)
    {
        if ((long)entryCount * entryBytes > maxBytes)
            throw new Qcow2FormatException($"{name} too large");
        ulong offset = HeaderField.ReadUInt64(cluster, offsetField);
        ulong end = (ulong)long.MaxValue - (ulong)((long)entryCount * entryBytes);
        if (offset > end || !Geometry.IsAligned((long)offset))
            throw new Qcow2FormatException($"{name} offset invalid");
        return new HostOffset((long)offset);
    }
}
