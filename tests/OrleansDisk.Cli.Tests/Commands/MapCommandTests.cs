using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

public sealed class MapCommandTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("")]
    [InlineData("-o cluster_size=512,refcount_bits=1")]
    [InlineData("-o cluster_size=2M")]
    [InlineData("-o compat=0.10")]
    [InlineData("-o preallocation=metadata")]
    [InlineData("-o preallocation=metadata,cluster_size=1k,refcount_bits=1")]
    public void An_image_is_mapped_as_qemu_img_does(string options)
    {
        Create("image", "10M", options.Split(' ', StringSplitOptions.RemoveEmptyEntries));
        AssertSame("image");
        Write("image", "write 0 200k", "write 3M 70k", "write 9M 1M", "discard 64k 64k");
        AssertSame("image");
        if (!options.Contains("0.10", StringComparison.Ordinal))
            Write("image", "write -z 128k 100k", "write -z -u 5M 300k", "write -z 9M 128k");
        AssertSame("image");
        AssertSame("-f", "raw", "image");
    }

    [Fact]
    public void A_chain_of_images_is_mapped_as_qemu_img_does()
    {
        MakeChain();
        AssertSame("base");
        AssertSame("middle");
        AssertSame("top");
        AssertSame("-s", "100k", "--max-length=2M", "top");
        AssertSame("--start-offset=7M", "top");
        AssertSame("--start-offset=64M", "top");
        AssertSame("-l", "0", "top");
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(3000)]
    [InlineData(200_000)]
    public void A_raw_backing_file_of_any_length_is_padded_to_sectors(int bytes)
    {
        File.WriteAllBytes(_directory.File("base.raw"), [.. Enumerable.Repeat((byte)7, bytes)]);
        Create("image", "150000", "-b", "base.raw", "-F", "raw");
        AssertSame("image");
        AssertSame("base.raw");
        Write("image", "write 64k 64k");
        AssertSame("image");
    }

    [Fact]
    public void Compressed_clusters_are_mapped_as_qemu_img_does()
    {
        Create("image", "10M");
        Write("image", "write -c 0 64k", "write -c 64k 64k", "write 128k 64k");
        AssertSame("image");
    }

    [Fact]
    public void Holes_of_a_raw_file_are_zeros()
    {
        using (FileStream stream = File.Create(_directory.File("sparse.raw")))
        {
            stream.SetLength(3 << 20);
            stream.Position = 192 << 10;
            stream.Write([.. Enumerable.Repeat((byte)1, 128 << 10)]);
        }
        AssertSame("sparse.raw");
    }

    [Fact]
    public void An_empty_disk_has_one_empty_extent()
    {
        Create("image", "0");
        AssertSame("image");
    }

    [Theory]
    [InlineData("")]
    [InlineData("none")]
    [InlineData("-f foo image")]
    [InlineData("-s x image")]
    [InlineData("-l 9E image")]
    [InlineData("--output=foo image")]
    public void Wrong_questions_are_answered_as_qemu_img_does(string arguments)
    {
        Create("image", "1M");
        Odisk.AssertSameAsQemuImg(_directory.Directory, ["map", .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries)]);
    }

    [Fact]
    public void Subclusters_and_external_data_files_are_mapped_as_qemu_img_does()
    {
        Create("base", "4M");
        Write("base", "write 0 256k", "write 1M 64k");
        Create("subclusters", "8M", "-b", "base", "-F", "qcow2", "-o", "extended_l2=on");
        Write("subclusters", "write 4k 8k", "write -z 20k 4k", "write 5M 3k", "write -z -u 1M 64k", "write 7M 100k", "discard 7M 64k");
        AssertSame("subclusters");
        Create("external", "8M", "-o", $"data_file={_directory.File("data.raw")}");
        Write("external", "write 0 4k", "write -z 1M 100k", "write 5M 200k", "write -z 5M 64k");
        AssertSame("external");
        Create("raw", "2M", "-o", $"data_file={_directory.File("more.raw")},data_file_raw=on,extended_l2=on");
        Write("raw", "write 0 4k", "write -z 1M 100k");
        AssertSame("raw");
    }

    private void MakeChain()
    {
        Create("base", "4M");
        Write("base", "write 0 256k", "write 1M 64k");
        Create("middle", "6M", "-b", "base", "-F", "qcow2");
        Write("middle", "write 64k 64k", "write -z 512k 256k", "write -z 64k 64k", "write 2M 64k", "write -z -u 1M 64k");
        Create("top", "8M", "-b", "middle", "-F", "qcow2", "-o", "cluster_size=4k");
        Write("top", "write 128k 64k", "write 3M 10k", "discard 3M 64k", "write 7M 1M");
    }

    private void Create(string name, string size, params string[] options) =>
        ExternalTool.QemuImg(_directory.Directory, ["create", "-q", "-f", "qcow2", .. options, name, size]).Succeeded();

    private void Write(string name, params string[] commands) =>
        ExternalTool.QemuIo(_directory.File(name), commands).Succeeded();

    private void AssertSame(params string[] arguments)
    {
        Odisk.AssertSameAsQemuImg(_directory.Directory, ["map", .. arguments]);
        Odisk.AssertSameAsQemuImg(_directory.Directory, ["map", "--output=json", .. arguments]);
    }
}
