using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Qcow2.Tests.Options;

public sealed class Qcow2RuntimeOptionsTests
{
    private static readonly Header _header = new() { Version = 3, Geometry = new ClusterGeometry(16, 4), VirtualBytes = 64L << 30 };

    [Fact]
    public void Every_option_of_qemu_is_known()
    {
        Qcow2OpenOptions options = Parse("lazy-refcounts=on,pass-discard-request=off,pass-discard-snapshot=no,pass-discard-other=true,"
            + "discard-no-unref=yes,cache-size=2M,l2-cache-size=1M,l2-cache-entry-size=512,cache-clean-interval=42");
        Assert.Equal(new Qcow2OpenOptions
        {
            LazyRefcounts = true,
            PassDiscard = false,
            PassDiscardOfSnapshots = false,
            PassDiscardOfOthers = true,
            KeepDiscardedClusters = true,
            CacheBytes = 2 << 20,
            L2CacheBytes = 1 << 20,
            L2CacheEntryBytes = 512,
            CacheCleanInterval = TimeSpan.FromSeconds(42),
        }, options);
    }

    [Theory]
    [InlineData("", OverlapChecks.Cached)]
    [InlineData("overlap-check=none", OverlapChecks.None)]
    [InlineData("overlap-check.template=all", OverlapChecks.All)]
    [InlineData("overlap-check=constant,overlap-check.template=constant", OverlapChecks.Constant)]
    [InlineData("overlap-check=none,overlap-check.inactive-l2=on", OverlapChecks.InactiveL2)]
    [InlineData("overlap-check=all,overlap-check.main-header=off", OverlapChecks.All & ~OverlapChecks.MainHeader)]
    public void Single_overlap_checks_go_over_the_template(string text, OverlapChecks expected) =>
        Assert.Equal(expected, Parse(text).OverlapChecks);

    [Theory]
    [InlineData("lazy-refcounts=42", "Parameter 'lazy-refcounts' expects 'on' or 'off'")]
    [InlineData("cache-size=1.25M,l2-cache-size=1M,refcount-cache-size=64k", "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time")]
    [InlineData("cache-size=1M,l2-cache-size=2M", "l2-cache-size may not exceed cache-size")]
    [InlineData("cache-size=1M,refcount-cache-size=2M", "refcount-cache-size may not exceed cache-size")]
    [InlineData("l2-cache-entry-size=256", "L2 cache entry size must be a power of two between 512 and the cluster size (65536)")]
    [InlineData("l2-cache-entry-size=42k", "L2 cache entry size must be a power of two between 512 and the cluster size (65536)")]
    [InlineData("refcount-cache-size=256T", "Refcount cache size too big")]
    [InlineData("overlap-check=constant,overlap-check.template=all", "Conflicting values for qcow2 options 'overlap-check' ('constant') and 'overlap-check.template' ('all')")]
    [InlineData("overlap-check.template=blubb", "Unsupported value 'blubb' for qcow2 option 'overlap-check'. Allowed are any of the following: none, constant, cached, all")]
    [InlineData("cache-clean-interval=42949672960", "Cache clean interval too big")]
    [InlineData("l2-cache-size=", "Parameter 'l2-cache-size' expects a non-negative number below 2^64")]
    [InlineData("no-such-option=1", "Block format 'qcow2' does not support the option 'no-such-option'")]
    public void What_means_nothing_is_refused_in_qemus_words(string text, string message)
    {
        Exception e = Assert.Throws<Qcow2Exception>(() => CacheSizes.Of(Parse(text), _header));
        Assert.Equal(message, e.Message.Split('\n')[0]);
    }

    [Theory]
    [InlineData("", 32 << 20, 4096, 8 << 20)]
    [InlineData("cache-size=1M", (1 << 20) - (256 << 10), 4096, 256 << 10)]
    [InlineData("cache-size=128k", 0, 4096, 128 << 10)]
    [InlineData("cache-size=16M", 8 << 20, 4096, 8 << 20)]
    [InlineData("cache-size=1M,refcount-cache-size=64k", (1 << 20) - (64 << 10), 4096, 64 << 10)]
    [InlineData("cache-size=1M,l2-cache-size=64k,l2-cache-entry-size=64k", 64 << 10, 64 << 10, (1 << 20) - (64 << 10))]
    public void A_common_limit_is_split_as_qemu_splits_it(string text, long l2Bytes, int entryBytes, long refcountBytes) =>
        Assert.Equal(new CacheSizes(l2Bytes, entryBytes, refcountBytes), CacheSizes.Of(Parse(text), _header));

    private static Qcow2OpenOptions Parse(string text) => Qcow2RuntimeOptions.Parse(text
        .Split(',', StringSplitOptions.RemoveEmptyEntries).Select(option => option.Split('=')).ToDictionary(pair => pair[0], pair => pair[1]));
}
