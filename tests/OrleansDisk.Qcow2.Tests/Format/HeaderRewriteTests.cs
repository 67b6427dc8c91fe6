using System.Text;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Tests.Format;

public sealed class HeaderRewriteTests
{
    private const int SectorBytes = 512;

    [Theory]
    [InlineData(9)]
    [InlineData(10)]
    [InlineData(12)]
    [InlineData(16)]
    public void Every_moment_of_a_rewrite_has_the_old_header_or_the_new_one(int clusterBits)
    {
        // Names short enough that a small cluster has room for two; the others are of any length.
        int[] nameLengths = clusterBits < 12 ? [0, 7, 40] : [0, 7, 300, 1023];
        Header[] headers =
        [
            .. from version in (int[])[2, 3]
               from length in nameLengths
               from extras in (int[])[0, 1, 2]
               select Make(version, clusterBits, length, extras),
        ];
        foreach (Header before in headers)
        {
            foreach (Header after in headers)
                AssertOldOrNew(before, after with { VirtualBytes = after.VirtualBytes + SectorBytes });
        }
    }

    [Fact]
    public void Another_backing_file_name_of_the_same_place_never_mixes_with_the_old_one()
    {
        Header before = Make(3, 16, nameLength: 700, extras: 0);
        AssertOldOrNew(before, before with { BackingFile = new string('y', 700) });
    }

    [Fact]
    public void One_changed_sector_is_one_write()
    {
        Header before = Make(3, 16, nameLength: 9, extras: 1);
        HeaderWrite step = Assert.Single(HeaderRewrite.Plan(Write(before), Write(before with { Autoclear = AutoclearFeatures.Bitmaps })));
        Assert.Equal((0, SectorBytes), (step.Offset, step.Bytes.Length));
        Assert.Empty(HeaderRewrite.Plan(Write(before), Write(before)));
    }

    [Fact]
    public void A_name_that_has_no_room_beside_the_old_one_is_written_all_the_same()
    {
        Header before = Make(3, 10, nameLength: 700, extras: 0);
        byte[] after = Write(before with { BackingFile = new string('y', 700) });
        Assert.Equal(after, Apply(Write(before), HeaderRewrite.Plan(Write(before), after)));
    }

    [Fact]
    public void Unknown_fields_and_extensions_stay_and_known_ones_come_in_the_usual_order()
    {
        Header header = Make(3, 16, nameLength: 9, extras: 2);
        byte[] cluster = Write(header with { Extensions = [.. header.Extensions.Reverse()] });
        var read = Header.Parse(cluster);
        Assert.Equal(Header.Version3Bytes + 24, read.HeaderBytes);
        Assert.Equal(header.UnknownFields, read.UnknownFields);
        Assert.Equal([HeaderExtensionType.BackingFormat, HeaderExtensionType.ExternalDataFileName, HeaderExtensionType.FeatureNames,
            HeaderExtensionType.Bitmaps, (HeaderExtensionType)0x1234_5678], read.Extensions.Select(extension => extension.Type));
        Assert.Contains(new FeatureName(1, 40, "moon phase"), read.Find(HeaderExtensionType.FeatureNames)!.ParseFeatureNames());
    }

    /// <summary>A header with no extras, with those that are usual, or with unknown ones as well.</summary>
    private static Header Make(int version, int clusterBits, int nameLength, int extras)
    {
        List<HeaderExtension> extensions = nameLength > 0 ? [HeaderExtension.BackingFormat("qcow2")] : [];
        if (extras > 0)
            extensions.Add(new HeaderExtension(HeaderExtensionType.Bitmaps, [.. Enumerable.Range(1, 24).Select(i => (byte)i)]));
        if (extras > 1)
        {
            extensions.Add(new HeaderExtension((HeaderExtensionType)0x1234_5678, Encoding.UTF8.GetBytes("unknown to all")));
            extensions.Add(new HeaderExtension(HeaderExtensionType.ExternalDataFileName, Encoding.UTF8.GetBytes("data.raw")));
            if (clusterBits > 12)
                extensions.Add(HeaderExtension.FeatureNames([new FeatureName(1, 40, "moon phase")]));
        }
        return new Header
        {
            Version = version,
            Geometry = new ClusterGeometry(clusterBits, 4),
            VirtualBytes = SectorBytes,
            L1EntryCount = 1,
            L1Table = new HostOffset(3L << clusterBits),
            RefcountTable = new HostOffset(1L << clusterBits),
            RefcountTableClusters = 1,
            UnknownFields = version == 3 && extras > 1 ? [.. Enumerable.Range(100, 24).Select(i => (byte)i)] : [],
            BackingFile = nameLength == 0 ? null : new string((char)('a' + version + extras), nameLength),
            Extensions = extensions,
        }.WithFeatureNames();
    }

    private static byte[] Write(Header header)
    {
        byte[] cluster = new byte[header.Geometry.ClusterBytes];
        header.WriteTo(cluster);
        return cluster;
    }

    private static byte[] Apply(byte[] cluster, IEnumerable<HeaderWrite> steps)
    {
        foreach (HeaderWrite step in steps)
            step.Bytes.CopyTo(cluster, step.Offset);
        return cluster;
    }

    private static void AssertOldOrNew(Header before, Header after)
    {
        byte[] cluster = Write(before);
        byte[] wanted = Write(after);
        string oldMeaning = Meaning(cluster);
        string newMeaning = Meaning(wanted);
        bool isNew = false;
        foreach (HeaderWrite step in HeaderRewrite.Plan(cluster, wanted))
        {
            foreach (byte[] torn in TornStates(cluster, step))
                Assert.Contains(Meaning(torn), isNew ? [newMeaning] : (string[])[oldMeaning, newMeaning]);
            Apply(cluster, [step]);
            isNew |= Meaning(cluster) == newMeaning;
        }
        Assert.Equal(wanted, cluster);
    }

    /// <summary>What a crash in the middle of a write may leave: any of its sectors, old or new.</summary>
    private static IEnumerable<byte[]> TornStates(byte[] cluster, HeaderWrite step)
    {
        int[] changed =
        [
            .. Enumerable.Range((int)(step.Offset / SectorBytes), (step.Bytes.Length + SectorBytes - 1) / SectorBytes)
                .Where(sector => !SectorOf(Apply([.. cluster], [step]), sector).SequenceEqual(SectorOf(cluster, sector))),
        ];
        Assert.InRange(changed.Length, 1, 8);
        for (int subset = 0; subset < 1 << changed.Length; subset++)
        {
            byte[] whole = Apply([.. cluster], [step]);
            byte[] torn = [.. cluster];
            for (int i = 0; i < changed.Length; i++)
            {
                if ((subset >> i & 1) != 0)
                    SectorOf(whole, changed[i]).CopyTo(SectorOf(torn, changed[i]));
            }
            yield return torn;
        }
    }

    private static Span<byte> SectorOf(byte[] cluster, int sector) => cluster.AsSpan(sector * SectorBytes, SectorBytes);

    /// <summary>All that a header says, but for the names of features.</summary>
    private static string Meaning(byte[] cluster)
    {
        var header = Header.Parse(cluster);
        IEnumerable<string> extensions = header.Extensions
            .Where(extension => extension.Type != HeaderExtensionType.FeatureNames)
            .Select(extension => $"{extension.Type:x}={Convert.ToHexString(extension.Data)}");
        return $"{header with { Extensions = [], UnknownFields = [] }} {Convert.ToHexString(header.UnknownFields)} {string.Join(' ', extensions)}"
            .Replace(header.Geometry.ToString()!, $"{header.Geometry.ClusterBits}");
    }
}
