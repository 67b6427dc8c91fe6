using System.Buffers.Binary;
using OrleansDisk.Abstractions;
using OrleansDisk.Grains.Tests.Fixtures;
using static OrleansDisk.Grains.Tests.Fixtures.TestBatch;

namespace OrleansDisk.Grains.Tests.Images;

/// <summary>Creating, describing, growing and checking images.</summary>
public sealed class ImageControlTests
{
    [Fact]
    public async Task An_image_is_made_as_asked()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        IImageGrain image = silo.Image("vm/new");
        await image.CreateAsync(new CreateImage
        {
            VirtualBytes = (10 << 20) - 1,
            ClusterBytes = 4096,
            RefcountBits = 1,
            PreallocateMetadata = true,
        });
        ImageDescription described = await image.DescribeAsync();
        Assert.Equal((10 << 20, 4096, 1, 3), (described.VirtualBytes, described.ClusterBytes, described.RefcountBits, described.Version));
        Assert.Equal(Guid.Empty, described.Generation);
        string info = await Tool.RunAsync("qemu-img", "info", silo.Pool.File("new.qcow2"));
        Assert.Contains("refcount bits: 1", info, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_can_not_be_made_is_refused_and_leaves_nothing()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("there", "1M");
        await RefusedAsync("vm/there", new CreateImage { VirtualBytes = 1 << 20 }, SectorError.AlreadyExists);
        await RefusedAsync("golden/new", new CreateImage { VirtualBytes = 1 << 20 }, SectorError.ReadOnly);
        await RefusedAsync("vm/new", new CreateImage { VirtualBytes = 1 << 20, ClusterBytes = 1000 }, SectorError.InputOutput);
        await RefusedAsync("vm/new", new CreateImage { VirtualBytes = -1 }, SectorError.InvalidArgument);
        await RefusedAsync("vm/new", new CreateImage { VirtualBytes = 1 << 20, Backing = "vm/none" }, SectorError.NotFound);
        await RefusedAsync("vm/new", new CreateImage { VirtualBytes = 1 << 20, Backing = "vm/../x" }, SectorError.InvalidArgument);
        Assert.Equal(["there.qcow2"], Directory.EnumerateFileSystemEntries(silo.Pool.Path).Select(Path.GetFileName));

        async Task RefusedAsync(string key, CreateImage what, SectorError error)
        {
            ImageException refused = await Assert.ThrowsAsync<ImageException>(() => silo.Image(key).CreateAsync(what));
            Assert.Equal(error, refused.Error);
        }
    }

    [Fact]
    public async Task An_image_grows_and_shrinks_while_it_is_in_use()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M", "-o", "cluster_size=512");
        IImageGrain image = silo.Image("vm/disk");
        OpenedImage opened = await image.OpenAsync(new OpenImage());
        await new TestBatch(opened, WriteOf(0, Filled(1 << 20, 1))).RunAsync(image);
        await image.ResizeAsync(64 << 20, mayShrink: false);
        await new TestBatch(opened, WriteOf(63 << 20, Filled(4096, 2))).RunAsync(image);
        OpenedImage again = await image.OpenAsync(new OpenImage());
        Assert.Equal((64 << 20, opened.Generation), (again.VirtualBytes, again.Generation));
        ImageException smaller = await Assert.ThrowsAsync<ImageException>(() => image.ResizeAsync(1 << 20, mayShrink: false));
        Assert.Contains("smaller", smaller.Message);
        await Assert.ThrowsAsync<ImageException>(() => silo.Image("golden/disk").ResizeAsync(128 << 20, mayShrink: true));
        await image.ResizeAsync((64 << 20) - 512, mayShrink: true);
        var cut = new TestBatch(opened, WriteOf((64 << 20) - 512, Filled(512, 3)));
        await image.SubmitAsync(cut.Message);
        Assert.Equal(SectorError.InvalidArgument, cut.Ended[0].Error);
        Assert.Equal((64 << 20) - 512, (await image.OpenAsync(new OpenImage())).VirtualBytes);
        await image.CloseAsync();
        await Tool.RunAsync("qemu-io", "-f", "qcow2", "-c", "read -P 1 0 1M", "-c", "read -P 0 1M 62M", "-c", "read -P 2 63M 4k",
            silo.Pool.File("disk.qcow2"));
    }

    [Fact]
    public async Task A_check_of_an_image_in_use_finds_it_settled()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "16M");
        IImageGrain image = silo.Image("vm/disk");
        OpenedImage opened = await image.OpenAsync(new OpenImage());
        Task[] load = [.. Enumerable.Range(0, 20).Select(async i =>
        {
            await new TestBatch(opened, WriteOf(i * 700_000, Filled(200_000, (byte)i))).RunAsync(image);
            await new TestBatch(opened, Of(SectorCommand.Discard, i * 700_000, 150_000)).RunAsync(image);
        })];
        ImageCheckResult during = await image.CheckAsync();
        await Task.WhenAll(load);
        ImageCheckResult after = await image.CheckAsync();
        Assert.True(during.IsConsistent, string.Join("; ", during.Findings.ToArray()));
        Assert.True(after.IsConsistent, string.Join("; ", after.Findings.ToArray()));
        Assert.Equal(256, after.TotalClusters);
        Assert.InRange(after.AllocatedClusters, 20, 100);
    }

    [Fact]
    public async Task A_check_of_a_closed_image_tells_its_damage_and_holds_it_no_longer()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        await silo.Pool.CreateAsync("disk", "1M");
        string path = silo.Pool.File("disk.qcow2");
        await Tool.RunAsync("qemu-io", "-f", "qcow2", "-c", "write 0 64k", path);
        byte[] good = await File.ReadAllBytesAsync(path);
        byte[] bad = (byte[])good.Clone();
        BinaryPrimitives.WriteUInt16BigEndian(bad.AsSpan(0x20000 + 10), 2); // the refcount of cluster 5, the data
        await File.WriteAllBytesAsync(path, bad);
        ImageCheckResult result = await silo.Image("vm/disk").CheckAsync();
        Assert.False(result.IsConsistent);
        Assert.Contains(result.Findings.ToArray(), finding => finding.Contains("cluster 5", StringComparison.Ordinal));
        await File.WriteAllBytesAsync(path, good);
        await Tool.RunAsync("qemu-io", "-f", "qcow2", "-c", "write 0 64k", path);
    }

    [Fact]
    public async Task What_is_no_image_is_refused_by_name()
    {
        await using ImageSilo silo = await ImageSilo.StartAsync();
        string path = silo.Pool.File("junk.qcow2");
        await File.WriteAllTextAsync(path, new string('x', 100_000));
        IImageGrain image = silo.Image("vm/junk");
        foreach (Func<Task> call in (Func<Task>[])[() => image.OpenAsync(new OpenImage()), image.CheckAsync, image.DescribeAsync])
        {
            ImageException refused = await Assert.ThrowsAsync<ImageException>(call);
            Assert.Contains("vm/junk", refused.Message, StringComparison.Ordinal);
        }
        File.Delete(path);
        ImageException gone = await Assert.ThrowsAsync<ImageException>(() => image.OpenAsync(new OpenImage()));
        Assert.Equal((SectorError.NotFound, "image 'vm/junk' does not exist"), (gone.Error, gone.Message));
    }
}
