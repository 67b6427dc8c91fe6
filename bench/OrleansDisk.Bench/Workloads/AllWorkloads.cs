namespace OrleansDisk.Bench.Workloads;

/// <summary>The lines of the table, in its order.</summary>
internal static class AllWorkloads
{
    private sealed record Shape(string Key, string Name, ImageKind Image, params string[] Load);

    private static readonly Shape[] _shapes =
    [
        new("read-4k-d1", "4 KiB random read, depth 1", ImageKind.Filled, "--rw=randread", "--bs=4k", "--iodepth=1"),
        new("write-4k-d1", "4 KiB random write, depth 1", ImageKind.Filled, "--rw=randwrite", "--bs=4k", "--iodepth=1"),
        new("read-4k-d32", "4 KiB random read, depth 32", ImageKind.Filled, "--rw=randread", "--bs=4k", "--iodepth=32"),
        new("write-4k-d32", "4 KiB random write, depth 32", ImageKind.Filled, "--rw=randwrite", "--bs=4k", "--iodepth=32"),
        new("allocate-4k-d32", "4 KiB random write, allocating, depth 32", ImageKind.Empty, "--rw=randwrite", "--bs=4k", "--iodepth=32"),
        new("mix-64k-d16", "64 KiB 70/30, depth 16", ImageKind.Filled, "--rw=randrw", "--rwmixread=70", "--bs=64k", "--iodepth=16"),
        new("read-1m", "1 MiB sequential read, depth 4", ImageKind.Filled, "--rw=read", "--bs=1m", "--iodepth=4"),
        new("write-1m", "1 MiB sequential write, depth 4", ImageKind.Filled, "--rw=write", "--bs=1m", "--iodepth=4"),
        new("read-4k-4x16", "4 KiB random read, 4 connections x depth 16", ImageKind.Filled,
            "--rw=randread", "--bs=4k", "--iodepth=16", "--numjobs=4"),
        new("write-4k-4x16", "4 KiB random write, 4 connections x depth 16", ImageKind.Filled,
            "--rw=randwrite", "--bs=4k", "--iodepth=16", "--numjobs=4"),
        new("copy", "nbdcopy to null: (MiB/s)", ImageKind.Filled),
    ];

    private static readonly string[] _onDiskHot =
        ["read-4k-d1", "read-4k-d32", "write-4k-d32", "allocate-4k-d32", "mix-64k-d16", "read-1m", "write-1m"];

    private static readonly string[] _onDiskCold = ["read-4k-d1", "read-4k-d32", "read-1m"];

    private static readonly string[] _direct = ["read-4k-d32", "write-4k-d32", "read-1m", "write-1m"];

    public static IReadOnlyList<Workload> All { get; } =
    [
        .. Make("memory-unix", "", Place.Memory, overTcp: false, [.. _shapes.Select(s => s.Key)]),
        .. Make("memory-tcp", "TCP: ", Place.Memory, overTcp: true, [.. _shapes.Select(s => s.Key)]),
        new Workload("huge/read-4k-d32", "1 TiB image: 4 KiB random read, depth 32", Place.Memory, OverTcp: false,
            ImageKind.Huge, ["--rw=randread", "--bs=4k", "--iodepth=32"]),
        .. Make("disk-hot", "ext4, hot cache: ", Place.DiskHot, overTcp: false, _onDiskHot),
        .. Make("disk-cold", "ext4, cold cache: ", Place.DiskCold, overTcp: false, _onDiskCold),
        .. Make("disk-direct", "ext4, cache=none: ", Place.DiskDirect, overTcp: false, _direct),
    ];

    private static IEnumerable<Workload> Make(string group, string prefix, Place place, bool overTcp, string[] keys) =>
        keys.Select(key => _shapes.First(s => s.Key == key))
            .Select(s => new Workload($"{group}/{s.Key}", prefix + s.Name, place, overTcp, s.Image, s.Load));
}
