using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Tests.Format;

public sealed class RefcountBlockTests
{
    [Theory]
    [InlineData(0, 1UL, "7f")]
    [InlineData(1, 3UL, "ff3f")]
    [InlineData(2, 1UL, "11111101")]
    [InlineData(3, 0xabUL, "abababababababab")]
    [InlineData(4, 0x1234UL, "12341234123412341234123412341234")]
    public void Widths_below_a_byte_start_at_the_least_significant_bits(int order, ulong value, string bytes)
    {
        byte[] expected = Convert.FromHexString(bytes);
        byte[] block = new byte[expected.Length];
        int count = order < 3 ? 7 : 8;
        for (int i = 0; i < count; i++)
            RefcountBlock.Set(block, order, i, value);
        Assert.Equal(expected, block);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(6)]
    public void Every_width_keeps_every_refcount_by_itself(int order)
    {
        var geometry = new ClusterGeometry(9, order);
        byte[] block = new byte[geometry.ClusterBytes];
        var random = new Random(order);
        ulong[] model = new ulong[geometry.RefcountBlockEntryCount];
        for (int round = 0; round < 20_000; round++)
        {
            int index = random.Next(model.Length);
            model[index] = random.Next(3) == 0 ? geometry.MaxRefcount : (ulong)random.NextInt64() & geometry.MaxRefcount;
            RefcountBlock.Set(block, order, index, model[index]);
        }
        for (int index = 0; index < model.Length; index++)
            Assert.Equal(model[index], RefcountBlock.Get(block, order, index));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(6)]
    public void The_first_free_refcount_is_found_from_any_start(int order)
    {
        var geometry = new ClusterGeometry(9, order);
        byte[] block = new byte[geometry.ClusterBytes];
        for (int i = 0; i < geometry.RefcountBlockEntryCount; i++)
            RefcountBlock.Set(block, order, i, 1);
        Assert.Equal(-1, RefcountBlock.IndexOfFree(block, order, 0));
        RefcountBlock.Set(block, order, 5, 0);
        RefcountBlock.Set(block, order, 33, 0);
        Assert.Equal(5, RefcountBlock.IndexOfFree(block, order, 0));
        Assert.Equal(5, RefcountBlock.IndexOfFree(block, order, 5));
        Assert.Equal(33, RefcountBlock.IndexOfFree(block, order, 6));
        Assert.Equal(-1, RefcountBlock.IndexOfFree(block, order, 34));
    }

    [Theory]
    [InlineData(0, 2UL)]
    [InlineData(4, 0x10000UL)]
    [InlineData(5, 0x1_0000_0000UL)]
    public void A_refcount_that_does_not_fit_is_an_invariant(int order, ulong value) =>
        Assert.Throws<InvariantException>(() => RefcountBlock.Set(new byte[512], order, 0, value));

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(6)]
    public void The_first_free_refcount_is_found_among_any_others(int order)
    {
        var random = new Random(order);
        byte[] block = new byte[512];
        int count = block.Length * 8 >> order;
        ulong max = order == 6 ? ulong.MaxValue : (1UL << (1 << order)) - 1;
        for (int round = 0; round < 200; round++)
        {
            for (int index = 0; index < count; index++)
                RefcountBlock.Set(block, order, index, max == 1 ? 1 : 1 + (ulong)random.NextInt64((long)Math.Min(max, 1 << 20)));
            int free = random.Next(count);
            RefcountBlock.Set(block, order, free, 0);
            int start = random.Next(count);
            Assert.Equal(start <= free ? free : -1, RefcountBlock.IndexOfFree(block, order, start));
        }
    }
}
