using System.Buffers.Binary;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;
using OrleansDisk.Simulation.Crash;
using OrleansDisk.Simulation.Host;
using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Workload;

/// <summary>The files from which a run starts, and what the disk in them holds.</summary>
internal sealed class StartImage
{
    public const string Name = "top.qcow2";
    public const string DataName = "top.data";
    private const string Middle = "middle.qcow2";
    private const string Bottom = "bottom.raw";

    /// <summary>A file that an overlay may be put on later.</summary>
    private const string Other = "other.raw";

    /// <summary>Contents of backing layers are those of writes that no run comes to.</summary>
    private const long FirstLayerWrite = 1L << 30;

    private const int MiddleWrites = 12;

    private readonly Shape _shape;
    private readonly Random _random;
    private readonly SimulatedHost _workshop;

    private StartImage(Shape shape, Random random)
    {
        (_shape, _random) = (shape, random);
        _workshop = new SimulatedHost(scheduler: null, random);
    }

    public DiskModel Model { get; private set; } = new([]);

    /// <summary>What may lie below the image.</summary>
    public BackingContents Backing { get; } = new();

    /// <summary>How the image's file is read past the engine.</summary>
    public StoredSectors Stored { get; private set; } = new(cipher: null, countsHostSectors: false);

    /// <summary>Sectors of the file that belong to snapshots: nothing may write them.</summary>
    public HashSet<int> FrozenSectors { get; } = [];

    /// <summary>Makes the files on a host.</summary>
    public static StartImage Make(Shape shape, Random random, SimulatedHost host)
    {
        var start = new StartImage(shape, random);
        new SeededScheduler(new Random(0)).Run(start.MakeAsync);
        Install(shape, host, Copy(start._workshop[Name], start._workshop[Name].Visible.Bytes));
        foreach (string name in (ReadOnlySpan<string>)[Middle, Bottom, Other])
        {
            if (start._workshop.Has(name))
                host[name] = new SimulatedDisk(start._workshop[name].Visible.Bytes);
        }
        return start;
    }

    /// <summary>The external data file on the image's disk; it has room for a disk that grows.</summary>
    public static FileRegion DataRegion { get; } = new(1 << 20, (4096 * 512) + (64 << 10));

    /// <summary>A disk that holds what a crash may have left of another one.</summary>
    public static SimulatedDisk Copy(SimulatedDisk disk, ReadOnlySpan<byte> bytes) => new(bytes) { FirstFileBytes = disk.FirstFileBytes };

    /// <summary>Puts an image's disk on a host, with the data file on it if there is one.</summary>
    public static void Install(Shape shape, SimulatedHost host, SimulatedDisk disk)
    {
        if (shape.DataFile == DataFileKind.None)
            host[Name] = disk;
        else
            host.Join(disk, Name, DataName, DataRegion.Start, DataRegion.Bytes);
    }

    /// <summary>Fills what no refcount counts with poison: nobody may ever read it.</summary>
    public static void PoisonFreeSpace(ByteStore file, Header header, IEnumerable<long> freeClusters)
    {
        byte[] poison = new byte[header.Geometry.ClusterBytes];
        SectorContent.Fill(poison, SectorContent.Poison);
        foreach (long cluster in freeClusters)
            file.Write(cluster << header.Geometry.ClusterBits, poison);
    }

    private async Task MakeAsync()
    {
        await MakeBackingAsync();
        if (_shape.Fixture >= 0)
        {
            var fixture = SnapshotFixture.Get(_shape.Fixture);
            _workshop[Name] = new SimulatedDisk(fixture.Image);
            Model = new DiskModel(fixture.Contents);
            await FreezeSnapshotsAsync();
        }
        else
        {
            await CreateAsync();
            string? backing = CreateOptions().BackingFile;
            Model = new DiskModel([.. Enumerable.Range(0, _shape.SectorCount).Select(sector => Backing.ContentOf(backing, sector))]);
        }
        Stored = await FindStoredAsync();
        await LoseClustersAsync();
        AppendPoison();
    }

    private async Task CreateAsync()
    {
        bool hasDataFile = _shape.DataFile != DataFileKind.None;
        var disk = new SimulatedDisk(new byte[hasDataFile ? DataRegion.Start + DataRegion.Bytes : 0]);
        Install(_shape, _workshop, disk);
        await using SimulatedFile file = Open(Name, ImageAccess.Write);
        await using SimulatedFile? dataFile = hasDataFile ? Open(DataName, ImageAccess.Write) : null;
        await CreateOperation.CreateAsync(file, CreateOptions(), dataFile);
        if (_shape is not { DataFile: DataFileKind.Plain, IsPreallocated: false })
            return;
        byte[] poison = new byte[DataRegion.Bytes];
        SectorContent.Fill(poison, SectorContent.Poison);
        disk.Visible.Write(DataRegion.Start, poison);
    }

    /// <summary>Counts clusters as used to which nothing leads, so that the next allocation is where the shape wants it.</summary>
    private async Task LoseClustersAsync()
    {
        if (_shape.UsedClusterCount == 0)
            return;
        await using SimulatedFile file = Open(Name, ImageAccess.Write);
        Header header = await HeaderReader.ReadAsync(file);
        ClusterGeometry geometry = header.Geometry;
        byte[] block = new byte[geometry.ClusterBytes];
        byte[] entry = new byte[sizeof(ulong)];
        for (long first = 0; first < _shape.UsedClusterCount; first += geometry.RefcountBlockEntryCount)
        {
            long entryAt = header.RefcountTable.Bytes + (sizeof(ulong) * (long)geometry.RefcountTableIndex(new HostCluster(first)));
            await file.ReadAsync(entryAt, entry);
            long at = (long)BinaryPrimitives.ReadUInt64BigEndian(entry);
            if (at == 0)
            {
                at = first << geometry.ClusterBits;
                BinaryPrimitives.WriteUInt64BigEndian(entry, (ulong)at);
                await file.WriteAsync(entryAt, entry);
            }
            await file.ReadAsync(at, block);
            for (int i = 0; i < geometry.RefcountBlockEntryCount && first + i < _shape.UsedClusterCount; i++)
                RefcountBlock.Set(block, geometry.RefcountOrder, i, 1);
            await file.WriteAsync(at, block);
        }
        if (file.LengthBytes < (long)_shape.UsedClusterCount << geometry.ClusterBits)
            await file.SetLengthAsync((long)_shape.UsedClusterCount << geometry.ClusterBits);
    }

    /// <summary>The least keys that LUKS can have, and the fewest rounds to derive them; null for an image that is not encrypted.</summary>
    public static NewEncryption? EncryptionOf(Shape shape) => shape.Secret is null ? null : new NewEncryption
    {
        Method = shape.Encryption,
        Secret = shape.Secret,
        Cipher = new LuksCipher { Algorithm = "aes-128", Mode = "cbc" },
        Iterations = 1,
    };

    private async Task<StoredSectors> FindStoredAsync()
    {
        if (_shape.Secret is not { } secret)
            return new StoredSectors(cipher: null, countsHostSectors: false);
        if (_shape.Encryption == EncryptionMethod.Aes)
            return new StoredSectors(AesCbcCipher.Legacy(secret.Bytes), countsHostSectors: false);
        await using SimulatedFile file = Open(Name, ImageAccess.Read);
        using LuksKeys keys = await KeyReader.ReadAsync(file, await HeaderReader.ReadAsync(file));
        if (!keys.TryUnlock(secret.Bytes))
            throw new InvalidOperationException("the simulation has lost its password");
        return new StoredSectors(keys.CreateCipher(), countsHostSectors: true,
            _shape.DataFile == DataFileKind.None ? 0 : (int)(DataRegion.Start / SectorContent.Bytes));
    }

    private CreateOptions CreateOptions() => new()
    {
        VirtualBytes = _shape.SectorCount * 512L,
        Version = _shape.Version,
        ClusterBytes = _shape.ClusterBytes,
        RefcountBits = 1L << _shape.RefcountOrder,
        ExtendedL2 = _shape.HasSubclusters,
        CompressionType = _shape.Compression,
        LazyRefcounts = _shape.HasLazyRefcounts,
        DataFile = _shape.DataFile == DataFileKind.None ? null : DataName,
        DataFileRaw = _shape.DataFile == DataFileKind.Raw,
        Encryption = EncryptionOf(_shape),
        Preallocation = _shape.IsPreallocated ? Preallocation.Metadata : Preallocation.Off,
        BackingFile = _shape.BackingDepth switch { 0 => null, 1 => Bottom, _ => Middle },
        BackingFormat = _shape.BackingDepth switch { 0 => null, 1 => "raw", _ => "qcow2" },
    };

    /// <summary>Makes what lies below the image, and what may be put there later.</summary>
    private async Task MakeBackingAsync()
    {
        if (_shape.BackingDepth == 0)
            return;
        int count = _shape.BackingSectorCount;
        long[] bottom = [.. Enumerable.Range(0, count).Select(sector => _random.Next(4) == 0 ? 0 : SectorContent.Of(FirstLayerWrite, sector))];
        MakeRaw(Bottom, bottom);
        long otherWrite = FirstLayerWrite + MiddleWrites + 1;
        MakeRaw(Other, [.. Enumerable.Range(0, _random.Next(count / 2, count * 3 / 2)).Select(sector => _random.Next(4) switch
        {
            0 => 0,
            1 => SectorContent.Of(otherWrite, sector),
            _ => sector < count ? bottom[sector] : 0,
        })]);
        if (_shape.BackingDepth == 2)
            await MakeMiddleAsync([.. bottom]);
    }

    private void MakeRaw(string name, long[] contents)
    {
        byte[] raw = new byte[contents.Length * SectorContent.Bytes];
        for (int sector = 0; sector < contents.Length; sector++)
            SectorContent.Fill(raw.AsSpan(sector * SectorContent.Bytes, SectorContent.Bytes), contents[sector]);
        _workshop[name] = new SimulatedDisk(raw);
        Backing.Add(name, contents);
    }

    private async Task MakeMiddleAsync(List<long> contents)
    {
        Backing.Add(Middle, contents);
        _workshop[Middle] = new SimulatedDisk([]);
        await using (SimulatedFile file = Open(Middle, ImageAccess.Write))
        {
            await CreateOperation.CreateAsync(file, new CreateOptions
            {
                VirtualBytes = contents.Count * 512L,
                ClusterBytes = 512 << _random.Next(4),
                BackingFile = Bottom,
                BackingFormat = "raw",
            });
        }
        await using Qcow2Image image = await Qcow2Image.OpenAsync(Open(Middle, ImageAccess.Write),
            new Qcow2OpenOptions { Access = ImageAccess.Write, OpenFile = _workshop.OpenBacking });
        byte[] bytes = new byte[SectorContent.Bytes];
        for (int i = 0; i < MiddleWrites; i++)
        {
            int first = _random.Next(contents.Count);
            int count = Math.Min(contents.Count - first, 1 + _random.Next(16));
            bool isZero = _random.Next(3) == 0;
            for (int sector = first; sector < first + count; sector++)
            {
                contents[sector] = isZero ? 0 : SectorContent.Of(FirstLayerWrite + 1 + i, sector);
                SectorContent.Fill(bytes, contents[sector]);
                await image.WriteAsync(sector * 512L, bytes.ToArray());
            }
        }
    }

    private void AppendPoison()
    {
        SimulatedDisk disk = _workshop[Name];
        if (_shape.PoisonClusterCount == 0)
            return;
        long end = (disk.Visible.Length + _shape.ClusterBytes - 1L) / _shape.ClusterBytes * _shape.ClusterBytes;
        byte[] poison = new byte[_shape.PoisonClusterCount * _shape.ClusterBytes];
        SectorContent.Fill(poison, SectorContent.Poison);
        disk.Visible.Write(end, poison);
    }

    private async Task FreezeSnapshotsAsync()
    {
        await using SimulatedFile file = Open(Name, ImageAccess.Read);
        Header header = await HeaderReader.ReadAsync(file);
        long tableBytes = 0;
        foreach (SnapshotEntry snapshot in await DirectoryReader.ReadSnapshotsAsync(file, header))
        {
            tableBytes += (snapshot.StoredBytes + 7) & ~7;
            await FreezeAsync(file, header, snapshot);
        }
        Freeze(header.SnapshotTable.Bytes, tableBytes);
    }

    private async Task FreezeAsync(SimulatedFile file, Header header, SnapshotEntry snapshot)
    {
        Freeze(snapshot.L1Table.Bytes, snapshot.L1EntryCount * (long)sizeof(ulong));
        byte[] l1 = new byte[snapshot.L1EntryCount * sizeof(ulong)];
        byte[] l2 = new byte[header.Geometry.ClusterBytes];
        await file.ReadAsync(snapshot.L1Table.Bytes, l1);
        for (int i = 0; i < l1.Length; i += sizeof(ulong))
        {
            var table = new L1Entry(BinaryPrimitives.ReadUInt64BigEndian(l1.AsSpan(i)));
            if (!table.IsAllocated)
                continue;
            Freeze(table.L2Table.Bytes, l2.Length);
            await file.ReadAsync(table.L2Table.Bytes, l2);
            for (int j = 0; j < header.Geometry.L2EntryCount; j++)
            {
                var entry = L2Entry.Read(l2, j, header.Geometry);
                if (entry.HasHost(header.Geometry))
                    Freeze(entry.Host.Bytes, l2.Length);
            }
        }
    }

    private void Freeze(long offset, long bytes)
    {
        (int first, int count) = DiskModel.SectorsOf(offset, bytes);
        FrozenSectors.UnionWith(Enumerable.Range(first, count));
    }

    private SimulatedFile Open(string name, ImageAccess access) => _workshop.Open(name, access, new FaultPlan([]), canPunchHoles: true);
}
