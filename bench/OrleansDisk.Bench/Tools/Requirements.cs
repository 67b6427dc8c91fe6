namespace OrleansDisk.Bench.Tools;

/// <summary>What must be there before anything is measured.</summary>
internal static class Requirements
{
    /// <summary>
    /// Images in memory: a master and its raw copy, one copy for each server, and at the most what one server writes
    /// into an image that was empty.
    /// </summary>
    private const long MemoryBytes = 14L << 30;

    private static readonly (string Program, string Package)[] _programs =
    [
        ("fio", "fio"), ("qemu-img", "qemu-utils"), ("qemu-nbd", "qemu-utils"), ("qemu-io", "qemu-utils"),
        ("qemu-storage-daemon", "qemu-system-common"), ("nbdkit", "nbdkit"), ("nbdinfo", "libnbd-bin"),
        ("nbdcopy", "libnbd-bin"), ("mke2fs", "e2fsprogs"),
    ];

    /// <exception cref="BenchException">Something is missing; the message says how to get it.</exception>
    public static void Check()
    {
        string[] missing = [.. _programs.Where(p => !Exists(p.Program)).Select(p => p.Package).Distinct()];
        if (missing.Length > 0)
            throw new BenchException($"missing: apt-get install {string.Join(' ', missing)} (or ./build.sh bench --install)");
        foreach (string program in (string[])[Repository.Odisk, Repository.Odiskd])
        {
            if (!File.Exists(program))
                throw new BenchException($"{program} is missing: ./build.sh publish");
        }
    }

    /// <exception cref="BenchException">The images would not fit into a tmpfs.</exception>
    public static void CheckMemory(string directory)
    {
        long free = new DriveInfo(directory).AvailableFreeSpace;
        if (free < MemoryBytes)
            throw new BenchException($"{directory} has {free >> 20} MiB left, the images need up to {MemoryBytes >> 20} MiB");
    }

    private static bool Exists(string program) => (Environment.GetEnvironmentVariable("PATH") + ":/usr/sbin:/sbin")
        .Split(':').Any(folder => File.Exists(Path.Combine(folder, program)));
}
