using System.Buffers.Binary;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Check.Repair;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Simulation.Crash;
using OrleansDisk.Simulation.Host;
using OrleansDisk.Simulation.Workload;

namespace OrleansDisk.Simulation.Tests;

/// <summary>
/// A repair that a crash interrupts, in whatever state that leaves the file, takes nothing from the guest; a second one ends
/// with an image in which nothing is wrong.
/// </summary>
public sealed class RepairCrashTests
{
    private const string Name = "damaged.qcow2";
    private const int MaxStates = 64;

    /// <summary>What is done to an image; offsets are of what its header says.</summary>
    private static readonly Dictionary<string, Action<DamagedTables>> s_damage = new()
    {
        ["refcounts that are too high and too low"] = tables =>
        {
            for (int cluster = 1; cluster < 60; cluster += 3)
                tables.SetRefcount(cluster, 5);
            tables.SetRefcount(62, 1);
        },
        ["a refcount that is 0"] = tables => tables.SetRefcount(20, 0),
        ["a refcount block of zeros"] = tables => tables.Bytes.AsSpan(tables.RefcountBlock(0), tables.ClusterBytes).Clear(),
        ["a refcount table of zeros"] = tables => tables.Bytes.AsSpan(tables.RefcountTable, tables.ClusterBytes).Clear(),
        ["reserved bits in the refcount table"] = tables => tables.Bytes[tables.RefcountTable + 7] |= 1,
        ["a refcount block that two entries share"] = tables =>
            tables.Bytes.AsSpan(tables.RefcountTable, 8).CopyTo(tables.Bytes.AsSpan(tables.RefcountTable + 16)),
        ["a refcount block just past the end"] = tables => BinaryPrimitives.WriteUInt64BigEndian(
            tables.Bytes.AsSpan(tables.RefcountTable + 24), (ulong)tables.Bytes.Length + (ulong)(tables.ClusterBytes * 8)),
        ["copied flags"] = tables => tables.Bytes[tables.L1Table] ^= 0x80,
        ["a snapshot table without extra data"] = tables => tables.DropExtraData(),
        ["the dirty and the corrupt bit"] = tables => tables.Bytes[79] |= 3,
    };

    public static TheoryData<string, int> Cases()
    {
        var cases = new TheoryData<string, int>();
        foreach (string damage in s_damage.Keys)
        {
            cases.Add(damage, 0);
            cases.Add(damage, 4);
        }
        return cases;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void A_repair_that_a_crash_interrupts_is_finished_by_the_next(string damage, int fixture)
    {
        var sound = SnapshotFixture.Get(fixture);
        byte[] guest = ReadDisk(sound.Image);
        byte[] damaged = [.. sound.Image];
        s_damage[damage](new DamagedTables(damaged));
        Assert.NotEqual(sound.Image, damaged);

        int states = 0;
        var random = new Random(fixture);
        var host = new SimulatedHost(scheduler: null, random) { [Name] = new SimulatedDisk(damaged) };
        host[Name].AtBarrier = disk =>
        {
            var writes = new UnflushedWrites(disk);
            foreach (CrashState state in new StateSelection(MaxStates, random).Select(writes))
            {
                states++;
                byte[] left = writes.Materialize(state);
                Assert.Equal(guest, ReadDisk(left));
                Assert.Equal(guest, ReadDisk(Repair(left)));
            }
        };
        byte[] repaired = Repair(host);
        Assert.Equal(guest, ReadDisk(repaired));
        Assert.True(states > 0, "no crash state was looked at");
    }

    /// <summary>Guard: <c>RepairRun</c> begins with a barrier (found by seed 20785045, where opening repaired a dirty image).</summary>
    [Fact]
    public async Task A_repair_loses_nothing_that_a_dead_owner_left_unflushed()
    {
        byte[] image = [.. SnapshotFixture.Get(0).Image];
        var host = new SimulatedHost(scheduler: null, new Random(0)) { [Name] = new SimulatedDisk(image) };
        SimulatedFile file = host.Open(Name, ImageAccess.Write, new FaultPlan([]), canPunchHoles: true);
        // The owner took a cluster away from the guest; it died before it flushed, and the cluster leaks.
        await file.WriteAsync(new DamagedTables(image).FirstCopiedL2Entry, new byte[sizeof(ulong)]);
        int states = 0;
        host[Name].AtBarrier = disk =>
        {
            var writes = new UnflushedWrites(disk);
            foreach (CrashState state in new StateSelection(MaxStates, new Random(0)).Select(writes))
            {
                states++;
                var left = CrashView.Of(Name, new SimulatedDisk(writes.Materialize(state)).Visible);
                CheckReport report = ImageCheck.RunAsync(left, new CheckOptions()).GetAwaiter().GetResult();
                Assert.Equal(0, report.CorruptionCount);
            }
        };
        RepairReport repaired = await ImageRepair.RunAsync(file, RepairKinds.Leaks, new CheckOptions());
        await file.FlushAsync();
        Assert.Equal((1, 0), (repaired.LeaksFixed, repaired.Check.LeakCount));
        Assert.True(states > 2, "no crash state was looked at");
    }

    private static byte[] Repair(byte[] image) =>
        Repair(new SimulatedHost(scheduler: null, new Random(0)) { [Name] = new SimulatedDisk(image) });

    private static byte[] Repair(SimulatedHost host)
    {
        SimulatedFile file = host.Open(Name, ImageAccess.Write, new FaultPlan([]), canPunchHoles: true);
        ImageRepair.RunAsync(file, RepairKinds.All, new CheckOptions()).GetAwaiter().GetResult();
        CheckReport after = ImageCheck.RunAsync(file, new CheckOptions()).GetAwaiter().GetResult();
        Assert.True(after.IsConsistent, string.Join('\n', after.Findings.Take(5).Select(finding => finding.Message)));
        Assert.Equal(0UL, (ulong)after.Header.Incompatible & 3);
        return file.Disk.Visible.Bytes.ToArray();
    }

    /// <summary>The disk as the guest sees it, read by an engine that opens the image for reading.</summary>
    private static byte[] ReadDisk(byte[] image)
    {
        byte[] guest = [];
        var host = new SimulatedHost(scheduler: null, new Random(0)) { [Name] = new SimulatedDisk(image) };
        new SeededScheduler(new Random(0)).Run(async () =>
        {
            await using Qcow2Image opened = await Qcow2Image.OpenAsync(
                host.Open(Name, ImageAccess.Read, new FaultPlan([]), canPunchHoles: true), new Qcow2OpenOptions());
            guest = new byte[opened.VirtualBytes];
            await opened.ReadAsync(0, guest);
        });
        return guest;
    }

    /// <summary>Where the tables of an image lie that is to be damaged.</summary>
    private sealed class DamagedTables(byte[] bytes)
    {
        public byte[] Bytes => bytes;

        public int ClusterBytes => 1 << (int)BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(20));

        public int L1Table => Offset(40);

        public int RefcountTable => Offset(48);

        /// <summary>Where an entry lies that alone leads to its cluster.</summary>
        public int FirstCopiedL2Entry
        {
            get
            {
                int at = (int)(BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(L1Table)) & 0x00fffffffffffe00);
                while (bytes[at] != 0x80)
                    at += sizeof(ulong);
                return at;
            }
        }

        public int RefcountBlock(int index) => Offset(RefcountTable + (8 * index));

        /// <summary>Sets a refcount of 16 or 8 bits.</summary>
        public void SetRefcount(int cluster, byte value)
        {
            int order = (int)BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(96));
            int perBlock = ClusterBytes * 8 >> order;
            int block = RefcountBlock(cluster / perBlock);
            bytes[block + ((((cluster % perBlock) + 1) << order) / 8) - 1] = value;
        }

        /// <summary>Cuts the extra data out of every entry of the snapshot table.</summary>
        public void DropExtraData()
        {
            int count = (int)BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(60));
            var table = new MemoryStream();
            int at = Offset(64);
            int start = at;
            for (int index = 0; index < count; index++)
            {
                int extra = (int)BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(at + 36));
                int strings = BinaryPrimitives.ReadUInt16BigEndian(bytes.AsSpan(at + 12)) + BinaryPrimitives.ReadUInt16BigEndian(bytes.AsSpan(at + 14));
                table.Write(bytes.AsSpan(at, 36));
                table.Write(new byte[4]);
                table.Write(bytes.AsSpan(at + 40 + extra, strings));
                table.SetLength((table.Length + 7) & ~7);
                table.Position = table.Length;
                at += (40 + extra + strings + 7) & ~7;
            }
            bytes.AsSpan(start, at - start).Clear();
            table.ToArray().CopyTo(bytes, start);
        }

        private int Offset(int field) => (int)BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(field));
    }
}
