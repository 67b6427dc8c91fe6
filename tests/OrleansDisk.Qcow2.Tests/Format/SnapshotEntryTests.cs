using System.Buffers.Binary;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Tests.Format;

public sealed class SnapshotEntryTests
{
    /// <summary>As QEMU writes it: 24 bytes of extra data, id "1", name "first".</summary>
    private const string Golden =
        "0000000000090000 00000001 0001 0005 65000000 000003e8 00000000000f4240 00000007 00000018 "
        + "0000000100000000 0000000000400000 00000000000000ff 31 6669727374";

    [Fact]
    public void The_fields_lie_where_the_specification_says()
    {
        byte[] bytes = Convert.FromHexString(Golden.Replace(" ", ""));
        var entry = SnapshotEntry.Parse(bytes, 0);
        Assert.Equal(0x90000, entry.L1Table.Bytes);
        Assert.Equal(1, entry.L1EntryCount);
        Assert.Equal(("1", "first"), (entry.Id, entry.Name));
        Assert.Equal(DateTimeOffset.FromUnixTimeSeconds(0x65000000).AddTicks(10), entry.Date);
        Assert.Equal(1_000_000UL, entry.VmClockNanoseconds);
        Assert.Equal(0x1_0000_0000UL, entry.VmStateBytes);
        Assert.Equal(4 << 20, entry.VirtualBytes);
        Assert.Equal(255UL, entry.InstructionCount);
        Assert.Equal(bytes.Length, entry.StoredBytes);
    }

    [Fact]
    public void Without_extra_data_the_small_fields_count()
    {
        byte[] bytes = Convert.FromHexString(Golden.Replace(" ", ""));
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(36), 0);
        var entry = SnapshotEntry.Parse(bytes, 0);
        Assert.Equal(7UL, entry.VmStateBytes);
        Assert.Null(entry.VirtualBytes);
        Assert.Null(entry.InstructionCount);
    }

    [Theory]
    [InlineData(39)]
    [InlineData(45)]
    [InlineData(69)]
    public void An_entry_that_ends_too_early_is_incomplete(int bytes)
    {
        byte[] entry = Convert.FromHexString(Golden.Replace(" ", ""));
        var error = Assert.Throws<Qcow2FormatException>(() => SnapshotEntry.Parse(entry.AsSpan(0, bytes), 4));
        Assert.Equal("snapshot table entry 4 is incomplete", error.Message);
    }

    [Fact]
    public void More_than_a_kibibyte_of_extra_data_is_refused()
    {
        byte[] entry = new byte[4096];
        BinaryPrimitives.WriteUInt32BigEndian(entry.AsSpan(36), 1025);
        var error = Assert.Throws<Qcow2FormatException>(() => SnapshotEntry.Parse(entry, 2));
        Assert.StartsWith("Too much extra metadata in snapshot table entry 2\n", error.Message, StringComparison.Ordinal);
    }
}
