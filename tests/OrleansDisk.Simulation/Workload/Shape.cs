using System.Text;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Simulation.Workload;

/// <summary>Where guest data lies.</summary>
internal enum DataFileKind
{
    /// <summary>In the image.</summary>
    None,

    /// <summary>In a file of its own.</summary>
    Plain,

    /// <summary>In a file of its own that is the disk even without the image.</summary>
    Raw,
}

/// <summary>What a run's image and its surroundings are like.</summary>
internal sealed record Shape
{
    public const string Password = "a password of the simulation";

    private const long MaxUsedBytes = 4 << 20;
    private static readonly Secret s_secret = new(Encoding.ASCII.GetBytes(Password));

    public int Version { get; init; } = 3;

    public int ClusterBits { get; init; } = 9;

    public int RefcountOrder { get; init; } = 4;

    public int SectorCount { get; init; } = 256;

    /// <summary>Files below the image: 0, 1 or 2.</summary>
    public int BackingDepth { get; init; }

    /// <summary>Size of the disk just below, in sectors; it may be shorter or longer than the image's.</summary>
    public int BackingSectorCount { get; init; }

    /// <summary>Whether every guest cluster has its host cluster from the start.</summary>
    public bool IsPreallocated { get; init; }

    /// <summary>Number of the image by qemu-img with snapshots from which the run starts, or -1.</summary>
    public int Fixture { get; init; } = -1;

    /// <summary>L2 tables, and refcount blocks, that the caches hold: 2 or 3, so that every path of eviction is walked.</summary>
    public int CachedTableCount { get; init; } = 2;

    public CompressionType Compression { get; init; }

    public bool CanPunchHoles { get; init; } = true;

    public bool PassDiscard { get; init; } = true;

    /// <summary>Whether discarded clusters keep their place (discard-no-unref).</summary>
    public bool KeepsDiscarded { get; init; }

    /// <summary>Whether zeros leave entries everywhere; not by a number of its own, so that seeds are what they were.</summary>
    public bool NotesAllZeroes => CachedTableCount == 3;

    /// <summary>Operations that run at once.</summary>
    public int MaxInFlight { get; init; } = 6;

    /// <summary>Clusters of garbage behind the image, as a file has that was once larger.</summary>
    public int PoisonClusterCount { get; init; }

    /// <summary>Clusters from the start of the file that are in use or lost: the next allocation comes behind them.</summary>
    public int UsedClusterCount { get; init; }

    /// <summary>Clusters that one refcount block counts.</summary>
    public int RefcountBlockClusterCount => 1 << (ClusterBits + 3 - RefcountOrder);

    /// <summary>Clusters that the refcount table of a small image can count before it has to move.</summary>
    public int RefcountTableClusterCount => RefcountBlockClusterCount * (ClusterBytes / sizeof(ulong));

    /// <summary>Whether clusters have subclusters; they are sectors in the smallest clusters that can.</summary>
    public bool HasSubclusters { get; init; }

    public DataFileKind DataFile { get; init; }

    /// <summary>Whether who dies leaves the dirty bit, and the next owner repairs the image when he opens it.</summary>
    public bool HasLazyRefcounts { get; init; }

    public EncryptionMethod Encryption { get; init; }

    /// <summary>The password of every encrypted image.</summary>
    public Secret? Secret => Encryption == EncryptionMethod.None ? null : s_secret;

    public int ClusterBytes => 1 << ClusterBits;

    public int ClusterSectorCount => ClusterBytes / 512;

    /// <summary>What a seed says.</summary>
    public static Shape Draw(Random random)
    {
        int version = random.Next(4) == 0 ? 2 : 3;
        int clusterBits = DrawClusterBits(random);
        int clusterSectors = (1 << clusterBits) / 512;
        int sectors = Math.Max(random.Next(64, 320), (3 * clusterSectors) + random.Next(2 * clusterSectors));
        bool hasFixture = random.Next(5) == 0 && clusterBits <= 16;
        int depth = hasFixture || random.Next(2) == 0 ? 0 : random.Next(1, 3);
        var shape = new Shape
        {
            Version = version,
            ClusterBits = clusterBits,
            RefcountOrder = version == 2 ? 4 : random.Next(7),
            SectorCount = sectors,
            BackingDepth = depth,
            BackingSectorCount = depth == 0 ? 0 : random.Next(sectors / 2, sectors * 3 / 2),
            IsPreallocated = depth == 0 && !hasFixture && random.Next(8) == 0,
            Fixture = hasFixture ? random.Next(SnapshotFixture.Count) : -1,
            CachedTableCount = random.Next(2, 4),
            Compression = version == 3 && !hasFixture && random.Next(3) == 0 ? CompressionType.Zstd : CompressionType.Zlib,
            CanPunchHoles = random.Next(2) == 0,
            PassDiscard = random.Next(4) != 0,
            MaxInFlight = random.Next(1, 9),
            PoisonClusterCount = random.Next(3) == 0 ? 0 : random.Next(1, 40),
        };
        return hasFixture ? shape : shape with { UsedClusterCount = DrawUsedClusterCount(random, shape) };
    }

    /// <summary>The shape with subclusters, one in four of those that can have them.</summary>
    public Shape OrWithSubclusters(Random random) => Version < 3 || Fixture >= 0 || random.Next(4) != 0 ? this : this with
    {
        HasSubclusters = true,
        ClusterBits = Math.Max(ClusterBits, 14),
        SectorCount = random.Next(96, 320),
        IsPreallocated = random.Next(8) == 0,
        UsedClusterCount = 0,
    };

    /// <summary>The shape whose discarded clusters keep their place, one in four of those that can.</summary>
    public Shape OrKeepingDiscarded(Random random) => this with { KeepsDiscarded = Version >= 3 && random.Next(4) == 0 };

    /// <summary>The shape with an external data file, one in five of those that can have one.</summary>
    public Shape OrWithDataFile(Random random)
    {
        if (Version < 3 || Fixture >= 0 || ClusterBits > 14 || random.Next(5) != 0)
            return this;
        Shape shape = this with { DataFile = DataFileKind.Plain, UsedClusterCount = 0, PoisonClusterCount = 0 };
        return random.Next(2) == 0 ? shape
            : shape with { DataFile = DataFileKind.Raw, BackingDepth = 0, BackingSectorCount = 0, IsPreallocated = false };
    }

    /// <summary>
    /// The shape encrypted, one in eight of those that can be; preallocated clusters of version 2 would not read as zeros, and some of the images
    /// that are there already are encrypted. The keys of LUKS take some half a megabyte and most of an opening's time.
    /// </summary>
    public Shape OrEncrypted(Random random)
    {
        bool isPossible = !(IsPreallocated && Version < 3) && Fixture < 0 && DataFile != DataFileKind.Raw;
        return !isPossible || random.Next(8) != 0 ? this
            : this with { Encryption = random.Next(3) == 0 ? EncryptionMethod.Luks : EncryptionMethod.Aes };
    }

    /// <summary>The shape with lazy refcounts, one in six of those that can have them.</summary>
    public Shape OrWithLazyRefcounts(Random random) =>
        Version < 3 || Fixture >= 0 || random.Next(6) != 0 ? this : this with { HasLazyRefcounts = true };

    /// <summary>Sometimes the next clusters need a new refcount block, or even a new refcount table.</summary>
    private static int DrawUsedClusterCount(Random random, Shape shape)
    {
        int covered = random.Next(4) switch
        {
            0 => shape.RefcountTableClusterCount,
            1 => shape.RefcountBlockClusterCount * random.Next(1, 4),
            _ => 0,
        };
        bool isSmall = (long)covered << shape.ClusterBits <= MaxUsedBytes;
        return isSmall ? Math.Max(0, covered - random.Next(1, 24)) : 0;
    }

    /// <summary>Small clusters mostly: they make many tables; the others now and then.</summary>
    private static int DrawClusterBits(Random random) => random.Next(100) switch
    {
        < 92 => random.Next(9, 13),
        < 99 => random.Next(13, 17),
        _ => random.Next(17, 22),
    };
}
