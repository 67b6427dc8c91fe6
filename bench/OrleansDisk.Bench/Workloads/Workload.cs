namespace OrleansDisk.Bench.Workloads;

/// <summary>What a workload starts from.</summary>
internal enum ImageKind
{
    /// <summary>Every cluster is allocated.</summary>
    Filled,

    /// <summary>No cluster is allocated: each measurement has a new image.</summary>
    Empty,

    /// <summary>1 TiB, with L2 tables that no cache of the servers takes as a whole.</summary>
    Huge,
}

/// <summary>Where the images of a workload lie, and what is cached when it begins.</summary>
internal enum Place
{
    /// <summary>tmpfs.</summary>
    Memory,

    /// <summary>A disk's file system, its page cache warm.</summary>
    DiskHot,

    /// <summary>A disk's file system, its page cache empty.</summary>
    DiskCold,

    /// <summary>A disk's file system, read and written past the page cache (cache=none).</summary>
    DiskDirect,
}

/// <summary>One line of the table.</summary>
/// <param name="Key">What --only and the targets know it by.</param>
/// <param name="Name">What the table calls it.</param>
/// <param name="Place">Where its images lie.</param>
/// <param name="OverTcp">TCP on the loopback interface in place of a unix socket.</param>
/// <param name="Image">What the images hold.</param>
/// <param name="Load">The options of fio that make it what it is; empty for nbdcopy.</param>
internal sealed record Workload(string Key, string Name, Place Place, bool OverTcp, ImageKind Image, string[] Load)
{
    public const long FilledBytes = 1L << 30;
    public const long EmptyBytes = 32L << 30;
    public const long HugeBytes = 1L << 40;

    /// <summary>Requests of a measurement that allocates: few enough that hardly two meet in one cluster.</summary>
    public const int AllocationCount = 30_000;

    /// <summary>The part of an empty image that only the warm-up writes.</summary>
    public const long WarmUpBytes = 1L << 30;

    /// <summary>Whether the whole disk is read by nbdcopy; a request is then 1 MiB.</summary>
    public bool IsCopy => Load.Length == 0;

    public bool Allocates => Image == ImageKind.Empty;

    public bool Writes => Load.Any(option => option.Contains("write", StringComparison.Ordinal) || option == "--rw=randrw");

    public bool OnDisk => Place != Place.Memory;

    public long DiskBytes => Image switch
    {
        ImageKind.Empty => EmptyBytes,
        ImageKind.Huge => HugeBytes,
        _ => FilledBytes,
    };
}
