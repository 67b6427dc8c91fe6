using System.Numerics;
using System.Text;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>What a new image is to be.</summary>
public sealed record CreateOptions
{
    /// <summary>Size of the disk in bytes, 0 to 2^63 - 1; rounded up to whole sectors of 512 bytes.</summary>
    public required long VirtualBytes { get; init; }

    /// <summary>Format version: 2 or 3.</summary>
    public int Version { get; init; } = 3;

    /// <summary>Cluster size in bytes: a power of two from 512 to 2 MiB.</summary>
    public long ClusterBytes { get; init; } = 64 << 10;

    /// <summary>Width of a refcount in bits: a power of two from 1 to 64; 16 in version 2.</summary>
    public long RefcountBits { get; init; } = 16;

    /// <summary>Name of the backing file as it is to be stored, or null. The file is not looked at.</summary>
    public string? BackingFile { get; init; }

    /// <summary>Format of the backing file as it is to be stored, or null.</summary>
    public string? BackingFormat { get; init; }

    /// <summary>Permits programs to delay refcount updates (version 3).</summary>
    public bool LazyRefcounts { get; init; }

    public Preallocation Preallocation { get; init; }

    /// <summary>
    /// Name of the external data file as it is to be stored, or null: guest data lies in the image then. Relative names start
    /// from the image's directory (version 3).
    /// </summary>
    public string? DataFile { get; init; }

    /// <summary>Whether the data file is to be a raw image of the disk by itself; it takes no backing file.</summary>
    public bool DataFileRaw { get; init; }

    /// <summary>Extended L2 entries, with 32 subclusters a cluster (version 3, clusters of 16 KiB and more).</summary>
    public bool ExtendedL2 { get; init; }

    /// <summary>How compressed clusters are to be compressed; zstd takes version 3.</summary>
    public CompressionType CompressionType { get; init; }

    /// <summary>How the disk is to be encrypted, or null.</summary>
    public NewEncryption? Encryption { get; init; }

    /// <summary>Checks the options against each other and the format's limits.</summary>
    /// <exception cref="Qcow2Exception">They can't be had; the message says which and why.</exception>
    public void Validate()
    {
        if (!BitOperations.IsPow2(ClusterBytes) || ClusterBytes < 1 << ClusterGeometry.MinClusterBits
            || ClusterBytes > 1 << ClusterGeometry.MaxClusterBits)
        {
            throw new Qcow2Exception("Cluster size must be a power of two between 512 and 2048k");
        }
        ValidateExtendedL2();
        if (Version is not (2 or 3))
            throw new Qcow2Exception($"qcow2 version {Version} does not exist; use 2 or 3");
        if (!BitOperations.IsPow2(RefcountBits) || RefcountBits > 64)
            throw new Qcow2Exception("Refcount width must be a power of two and may not exceed 64 bits");
        if (Version < 3 && RefcountBits != 16)
        {
            throw new Qcow2Exception("Different refcount widths than 16 bits require compatibility level 1.1 or above "
                + "(use version=v3 or greater)");
        }
        if (Version < 3 && LazyRefcounts)
        {
            throw new Qcow2Exception(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)");
        }
        if (Version < 3 && CompressionType != CompressionType.Zlib)
        {
            throw new Qcow2Exception(
                "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)");
        }
        ValidateBackingFile();
        ValidateDataFile();
        Encryption?.Cipher.Validate();
        ArgumentOutOfRangeException.ThrowIfNegative(VirtualBytes);
    }

    private void ValidateExtendedL2()
    {
        if (!ExtendedL2)
            return;
        if (Version < 3)
        {
            throw new Qcow2Exception("Extended L2 entries are only supported with compatibility level 1.1 and above "
                + "(use version=v3 or greater)");
        }
        const int minClusterBytes = 1 << ClusterGeometry.MinSubclusteredBits;
        if (ClusterBytes < minClusterBytes)
            throw new Qcow2Exception($"Extended L2 entries are only supported with cluster sizes of at least {minClusterBytes} bytes");
    }

    private void ValidateDataFile()
    {
        if (DataFileRaw && DataFile is null)
            throw new Qcow2Exception("data-file-raw requires data-file");
        if (DataFileRaw && BackingFile is not null)
            throw new Qcow2Exception("Backing file and data-file-raw cannot be used at the same time");
        if (DataFile is not null && Version < 3)
        {
            throw new Qcow2Exception("External data files are only supported with compatibility level 1.1 and above "
                + "(use version=v3 or greater)");
        }
    }

    private void ValidateBackingFile()
    {
        if (BackingFile is not null && Preallocation != Preallocation.Off && !ExtendedL2)
        {
            throw new Qcow2Exception(
                "Backing file and preallocation can only be used at the same time if extended_l2 is on");
        }
        if (BackingFile is null && BackingFormat is not null)
            throw new Qcow2Exception("Backing format cannot be used without backing file");
        if (BackingFile is not null && Encoding.UTF8.GetByteCount(BackingFile) > Header.MaxBackingFileNameBytes)
            throw new Qcow2Exception("Backing file name too long");
    }

    /// <summary>The incompatible features that the image will have.</summary>
    internal IncompatibleFeatures Features =>
        (ExtendedL2 ? IncompatibleFeatures.ExtendedL2 : IncompatibleFeatures.None)
        | (DataFile is not null ? IncompatibleFeatures.ExternalDataFile : IncompatibleFeatures.None)
        | (CompressionType != CompressionType.Zlib ? IncompatibleFeatures.CompressionType : IncompatibleFeatures.None);

    /// <summary>The cluster and refcount sizes; only for valid options.</summary>
    internal ClusterGeometry Geometry =>
        new(BitOperations.Log2((ulong)ClusterBytes), BitOperations.Log2((ulong)RefcountBits), Features);
}
