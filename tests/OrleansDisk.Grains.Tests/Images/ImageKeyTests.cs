using OrleansDisk.Abstractions;
using OrleansDisk.Grains.Tests.Fixtures;

namespace OrleansDisk.Grains.Tests.Images;

/// <summary>Which names images have.</summary>
public sealed class ImageKeyTests
{
    [Theory]
    [InlineData("vm/disk", "vm/disk", "disk.qcow2")]
    [InlineData("vm/disk.qcow2", "vm/disk", "disk.qcow2")]
    [InlineData("vm/Disk 1", "vm/Disk 1", "Disk 1.qcow2")]
    [InlineData("a.b-c_9/x.raw", "a.b-c_9/x.raw", "x.raw.qcow2")]
    [InlineData("vm/größe", "vm/größe", "größe.qcow2")]
    [InlineData("vm/disk.QCOW2", "vm/disk.QCOW2", "disk.QCOW2.qcow2")]
    public void A_key_names_a_file_in_a_pool(string text, string key, string fileName)
    {
        var parsed = ImageKey.Parse(text);
        Assert.Equal(key, parsed.ToString());
        Assert.Equal(fileName, parsed.FileName);
        Assert.Equal(parsed, ImageKey.OfFile(parsed.Pool, fileName));
    }

    [Theory]
    [InlineData("disk", "no '/'")]
    [InlineData("", "no '/'")]
    [InlineData("/disk", "1 to 64")]
    [InlineData("vm/", "is empty")]
    [InlineData("vm/.qcow2", "is empty")]
    [InlineData("vm/.hidden", "begins with '.'")]
    [InlineData("vm/..", "begins with '.'")]
    [InlineData("vm/../../etc/passwd", "begins with '.'")]
    [InlineData("vm/a/b", "contains '/'")]
    [InlineData("../x", "does not begin with a letter")]
    [InlineData("v m/x", "contains ' '")]
    [InlineData("vm/a\0b", "control character U+0000")]
    [InlineData("vm/a\nb", "control character U+000A")]
    [InlineData("vm/a\\b", "contains '\\'")]
    [InlineData("vm/ a", "white space")]
    [InlineData("vm/a ", "white space")]
    [InlineData("vm/a.qcow2.qcow2", "ends in .qcow2 twice")]
    public void What_is_no_key_is_refused_with_the_reason(string text, string reason)
    {
        ImageException refused = Assert.Throws<ImageException>(() => ImageKey.Parse(text));
        Assert.Equal(SectorError.InvalidArgument, refused.Error);
        Assert.Contains(reason, refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_name_that_no_file_can_have_is_refused()
    {
        Assert.Equal("vm/" + new string('x', 249), ImageKey.Parse("vm/" + new string('x', 249)).ToString());
        Assert.Throws<ImageException>(() => ImageKey.Parse("vm/" + new string('x', 250)));
        Assert.Throws<ImageException>(() => ImageKey.Parse("vm/" + new string('ü', 125)));
        Assert.Throws<ImageException>(() => ImageKey.Parse("vm/" + (char)0xd800));
    }

    [Fact]
    public async Task A_grain_of_a_name_that_is_no_key_refuses_everything()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M");
        foreach (string key in (string[])["vm/disk.qcow2", "vm/../disk", "disk", "vm/a/../disk"])
        {
            ImageException refused = await Assert.ThrowsAsync<ImageException>(() => silo.Image(key).OpenAsync(new OpenImage()));
            Assert.Equal(SectorError.InvalidArgument, refused.Error);
        }
        ImageException noPool = await Assert.ThrowsAsync<ImageException>(() => silo.Image("nas/disk").OpenAsync(new OpenImage()));
        Assert.Equal((SectorError.NotFound, "image 'nas/disk': there is no pool 'nas'"), (noPool.Error, noPool.Message));
        Assert.Equal(0, silo.OpenImages.Count);
    }
}
