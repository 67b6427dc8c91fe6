using System.Globalization;

namespace OrleansDisk.Interop.Tests.Differential;

/// <summary>What a seed chooses: a chain of images, snapshots, what the disk holds at first, and the steps.</summary>
internal sealed class Scenario
{
    private const int SectorBytes = 512;
    private const int OperationCount = 40;
    private static readonly string[] _clusterSizes = ["512", "1k", "4k", "16k", "64k", "64k", "256k", "2M"];
    private readonly Random _random;
    private readonly TemporaryDirectory _directory;
    private readonly List<string> _layers = [];
    private bool _hasSubclusters;
    private byte[]? _below;

    /// <summary>Chooses snapshots that are steps of the list, or null: there are none.</summary>
    private readonly Random? _snapshotRandom;
    private readonly Dictionary<long, byte[]> _snapshots = [];

    public Scenario(int seed, TemporaryDirectory directory)
    {
        _random = new Random(seed);
        _directory = directory;
        Version = _random.Next(4) == 0 ? 2 : 3;
        string clusterSize = _clusterSizes[_random.Next(_clusterSizes.Length)];
        ClusterBytes = clusterSize[^1] switch
        {
            'k' => int.Parse(clusterSize[..^1], CultureInfo.InvariantCulture) << 10,
            'M' => int.Parse(clusterSize[..^1], CultureInfo.InvariantCulture) << 20,
            _ => int.Parse(clusterSize, CultureInfo.InvariantCulture),
        };
        int refcountBits = Version == 2 ? 16 : 1 << _random.Next(7);
        string options = $"cluster_size={clusterSize},compat=" + (Version == 2 ? "0.10" : $"1.1,refcount_bits={refcountBits}");
        options += NewerOptions(seed);
        // Few widths have room for many snapshots of one cluster.
        _snapshotRandom = seed % 5 == 0 && refcountBits > 4 ? new Random(~seed) : null;
        int depth = _random.Next(4);
        for (int i = 0; i < depth; i++)
            AddBackingFile(isBottom: i == 0);
        Image = MakeTop(options);
        HasSnapshot = refcountBits > 2 && _random.Next(4) == 0 && DataFile is null;
        if (HasSnapshot)
            Tool.Run("qemu-img", "snapshot", "-c", "kept", Image);
        Description = $"seed {seed}: {options}, {Model.Length} bytes over [{string.Join(" <- ", _layers)}]{(HasSnapshot ? ", a snapshot" : "")}";
        Operations = MakeOperations();
    }

    public int Version { get; }

    public int ClusterBytes { get; }

    public bool HasSnapshot { get; }

    /// <summary>The file with the image's guest data, or null: it has it itself.</summary>
    public string? DataFile { get; private set; }

    public string Description { get; }

    public string Image { get; }

    public IReadOnlyList<Operation> Operations { get; }

    /// <summary>What the disk holds before the steps, and, as they are chosen, after them.</summary>
    public byte[] Model { get; private set; } = [];

    /// <summary>Guest clusters whose zeros one engine may write out and the other may say by an entry.</summary>
    public HashSet<long> FreelyZeroed { get; } = [];

    private bool HasBacking => _layers.Count > 0;

    /// <summary>Not by a number of the generator: the scenarios of before stay what they were.</summary>
    private string NewerOptions(int seed)
    {
        string options = "";
        if (Version >= 3 && ClusterBytes >= 16 << 10 && seed % 4 == 2)
        {
            options += ",extended_l2=on";
            _hasSubclusters = true;
        }
        if (Version >= 3 && seed % 5 == 4)
            options += $",data_file={DataFile = _directory.File("top.data")}";
        return options;
    }

    private int NextBytes() => (256 << 10) + (_random.Next(64) * 16 << 10) + (_random.Next(3) == 0 ? _random.Next(64) * SectorBytes : 0);

    private void AddBackingFile(bool isBottom)
    {
        int bytes = NextBytes();
        string path = _directory.File($"layer{_layers.Count}");
        if (isBottom && _random.Next(2) == 0)
        {
            bytes += _random.Next(2) * _random.Next(SectorBytes);
            byte[] raw = Disk.MixedBytes(bytes, _random.Next());
            File.WriteAllBytes(path, raw);
            _below = raw;
            _layers.Add($"raw {bytes}");
            return;
        }
        string options = $"compat={(_random.Next(3) == 0 ? "0.10" : "1.1")},cluster_size={_clusterSizes[_random.Next(6)]}";
        Create(path, bytes, options);
        _below = Fill(path, Under(bytes));
        _layers.Add($"qcow2 {bytes}");
    }

    private string MakeTop(string options)
    {
        string path = _directory.File("top");
        int bytes = NextBytes();
        Create(path, bytes, options);
        Model = Fill(path, Under(bytes));
        return path;
    }

    private void Create(string path, long bytes, string options)
    {
        if (HasBacking)
            Disk.CreateOverlay(path, Path.GetFileName(_directory.File($"layer{_layers.Count - 1}")), _layers[^1].Split(' ')[0], bytes, options);
        else
            Disk.Create(path, bytes, options);
    }

    /// <summary>What a layer of that size shows of the layer below.</summary>
    private byte[] Under(int bytes)
    {
        byte[] disk = new byte[bytes];
        _below?.AsSpan(0, Math.Min(bytes, _below.Length)).CopyTo(disk);
        return disk;
    }

    /// <summary>Writes some ranges with qemu-io, some of them compressed.</summary>
    private byte[] Fill(string path, byte[] disk)
    {
        var commands = new List<string>();
        for (int i = 0; i < 6; i++)
        {
            (int start, int bytes) = NextRange(disk.Length, 96 << 10);
            byte pattern = (byte)(1 + _random.Next(255));
            commands.Add($"write -P {pattern} {start} {bytes}");
            disk.AsSpan(start, bytes).Fill(pattern);
        }
        Disk.QemuIo(path, [.. commands]);
        return disk;
    }

    private (int Start, int Bytes) NextRange(int diskBytes, int maxBytes)
    {
        int bytes = SectorBytes * (1 + _random.Next(Math.Min(maxBytes, diskBytes) / SectorBytes));
        int start = SectorBytes * _random.Next(((diskBytes - bytes) / SectorBytes) + 1);
        if (_random.Next(3) == 0)
        {
            // Whole clusters, as guests mostly discard and zero; the disk's end may cut the last.
            start = start / ClusterBytes * ClusterBytes;
            bytes = Math.Min((bytes + ClusterBytes - 1) / ClusterBytes * ClusterBytes, diskBytes - start);
        }
        return (start, bytes);
    }

    private List<Operation> MakeOperations()
    {
        var operations = new List<Operation>();
        for (int i = 0; i < OperationCount; i++)
        {
            if (_snapshotRandom?.Next(5) == 0)
                operations.Add(NextOfSnapshots());
            var kind = (OperationKind)_random.Next(12) switch
            {
                < OperationKind.Grow and var some => some,
                // In version 2 QEMU refuses to grow an image with snapshots, and one whose backing file is longer.
                OperationKind.Grow when Version >= 3 || !(HasSnapshot || HasBacking || _snapshotRandom is not null) => OperationKind.Grow,
                _ => OperationKind.Write,
            };
            (int start, int bytes) = NextRange(Model.Length, 128 << 10);
            Operation operation = kind switch
            {
                OperationKind.Grow => new Operation(kind, Model.Length + (SectorBytes * _random.Next(512))),
                OperationKind.Flush or OperationKind.Reopen => new Operation(kind),
                _ => new Operation(kind, start, bytes, (byte)(1 + _random.Next(255))),
            };
            operations.Add(operation);
            ApplyToModel(operation);
        }
        return operations;
    }

    /// <summary>A snapshot is taken, or one that was taken becomes the disk or goes.</summary>
    private Operation NextOfSnapshots()
    {
        long[] taken = [.. _snapshots.Keys];
        int choice = _snapshotRandom!.Next(3);
        if (taken.Length == 0 || choice == 0)
        {
            long number = _snapshots.Keys.DefaultIfEmpty().Max() + 1;
            _snapshots.Add(number, [.. Model]);
            return new Operation(OperationKind.TakeSnapshot, number);
        }
        long chosen = taken[_snapshotRandom.Next(taken.Length)];
        if (choice == 1 && _snapshots[chosen].Length == Model.Length)
        {
            Model = [.. _snapshots[chosen]];
            return new Operation(OperationKind.ApplySnapshot, chosen);
        }
        _snapshots.Remove(chosen);
        return new Operation(OperationKind.DeleteSnapshot, chosen);
    }

    private void ApplyToModel(Operation operation)
    {
        switch (operation.Kind)
        {
            case OperationKind.Write:
                Model.AsSpan((int)operation.Start, operation.Bytes).Fill(operation.Pattern);
                break;
            case OperationKind.Zero or OperationKind.ZeroUnmap:
                Model.AsSpan((int)operation.Start, operation.Bytes).Clear();
                NoteFreelyZeroed(operation);
                break;
            case OperationKind.Discard when Version >= 3 || !HasBacking:
                Discard(operation);
                break;
            case OperationKind.Grow:
                int oldBytes = Model.Length;
                byte[] larger = new byte[operation.Start];
                Model.CopyTo(larger, 0);
                Model = larger;
                // Zeros hide a backing file that is longer than the disk was.
                if (HasBacking && larger.Length > oldBytes)
                    NoteFreelyZeroed(new Operation(OperationKind.Grow, oldBytes, larger.Length - oldBytes));
                break;
        }
    }

    /// <summary>Whole clusters read as zeros, and so does what the disk's end leaves of the last one.</summary>
    private void Discard(Operation operation)
    {
        long start = (operation.Start + ClusterBytes - 1) / ClusterBytes * ClusterBytes;
        long end = operation.Start + operation.Bytes;
        if (end < Model.Length)
            end = end / ClusterBytes * ClusterBytes;
        if (end > start)
            Model.AsSpan((int)start, (int)(end - start)).Clear();
    }

    private void NoteFreelyZeroed(Operation operation)
    {
        long first = operation.Start / ClusterBytes;
        long last = (operation.Start + operation.Bytes - 1) / ClusterBytes;
        for (long cluster = first; cluster <= last; cluster++)
        {
            bool isWhole = cluster * ClusterBytes >= operation.Start
                && Math.Min((cluster + 1) * ClusterBytes, Model.Length) <= operation.Start + operation.Bytes;
            if ((!isWhole && (operation.Kind == OperationKind.Grow || _hasSubclusters)) || Version < 3)
                FreelyZeroed.Add(cluster);
        }
    }
}
