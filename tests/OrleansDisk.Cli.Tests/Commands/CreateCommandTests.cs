using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

public sealed class CreateCommandTests : IDisposable
{
    private readonly TemporaryDirectory _theirs = new();
    private readonly TemporaryDirectory _ours = new();

    public void Dispose()
    {
        _theirs.Dispose();
        _ours.Dispose();
    }

    [Theory]
    [InlineData("-f qcow2 a 1G")]
    [InlineData("a -f qcow2 1G")]
    [InlineData("-fqcow2 a 10M")]
    [InlineData("-qf qcow2 a 10M")]
    [InlineData("-f qcow2 -- a 10M")]
    [InlineData("-f qcow2 a 1.5M")]
    [InlineData("-f qcow2 a 0x10000")]
    [InlineData("-f qcow2 a 1000")]
    [InlineData("-f qcow2 a 1000b")]
    [InlineData("-f qcow2 a 0")]
    [InlineData("-f qcow2 a 2P")]
    [InlineData("-f qcow2 -o size=1M a")]
    [InlineData("-f qcow2 -o cluster_size=1k,cluster_size=2k a 1M")]
    [InlineData("-f qcow2 -o cluster_size=0.5M a 1M")]
    [InlineData("-f qcow2 -o cluster_size=512 -o refcount_bits=0x10 a 1M")]
    [InlineData("-f qcow2 -o compat=0.10 a 1M")]
    [InlineData("-f qcow2 -o compat=v2,refcount_bits=16 a 1M")]
    [InlineData("-f qcow2 -o compat=v3,lazy_refcounts=on a 1M")]
    [InlineData("-f qcow2 -o lazy_refcounts a 1M")]
    [InlineData("-f qcow2 -o nolazy_refcounts a 1M")]
    [InlineData("-f qcow2 -o compression_type=zstd a 1M")]
    [InlineData("-f qcow2 -o preallocation=metadata a 10M")]
    [InlineData("-f qcow2 -o preallocation=off,cluster_size=2M a 10M")]
    [InlineData("-f qcow2 -o extended_l2=on a 10M")]
    [InlineData("-f qcow2 -o extended_l2=on,preallocation=metadata,cluster_size=16k a 10M")]
    [InlineData("-f qcow2 -o extended_l2=on,preallocation=metadata -b base -F qcow2 a")]
    [InlineData("-f qcow2 -o data_file=d a 10M")]
    [InlineData("-f qcow2 -o data_file=d,data_file_raw=on,extended_l2=on a 10M")]
    [InlineData("-f qcow2 -o data_file=d,preallocation=metadata a 10M")]
    [InlineData("-f qcow2 -o data_file=d -b base -F qcow2 a")]
    [InlineData("-f qcow2 -b base -F qcow2 a")]
    [InlineData("-f qcow2 -b base -F qcow2 a 20M")]
    [InlineData("-f qcow2 -b base -F raw a")]
    [InlineData("-f qcow2 -o backing_file=base,backing_fmt=qcow2,compat=0.10 a")]
    [InlineData("-f qcow2 -u -b none -F qcow2 a 1M")]
    [InlineData("-f qcow2 -u -o backing_file=a,,b,backing_fmt=raw a 1M")]
    [InlineData("-f qcow2 -b base -F qcow2 sub/../a 1M")]
    [InlineData("a.raw 1M")]
    [InlineData("-f raw a.raw 1000")]
    [InlineData("-f qcow2 --object secret,id=s,data=abc -o encrypt.format=aes,encrypt.key-secret=s a 10M")]
    [InlineData("-f qcow2 --object secret,id=s,data=abc -o encryption=on,encrypt.key-secret=s,compat=0.10 a 10M")]
    public void Images_and_messages_are_qemu_imgs(string arguments)
    {
        (ToolResult theirs, ToolResult ours) = RunBoth(arguments);
        Assert.Equal(0, theirs.ExitCode);
        Odisk.AssertSame(theirs, ours);
        foreach (string file in Directory.GetFiles(_theirs.Directory))
            Assert.Equal(File.ReadAllBytes(file), File.ReadAllBytes(_ours.File(Path.GetFileName(file))));
    }

    [Theory]
    [InlineData("")]
    [InlineData("-f qcow2")]
    [InlineData("-f qcow2 a")]
    [InlineData("-f qcow2 a 1G more")]
    [InlineData("-f")]
    [InlineData("--format qcow2 a 1G")]
    [InlineData("-Z a 1G")]
    [InlineData("-f foo a 1G")]
    [InlineData("-f qcow2 a 1x")]
    [InlineData("-f qcow2 a 1.5")]
    [InlineData("-f qcow2 a 1e3")]
    [InlineData("-f qcow2 a 1kk")]
    [InlineData("-f qcow2 a 8E")]
    [InlineData("-f qcow2 a 7E")]
    [InlineData("-f qcow2 a 99E")]
    [InlineData("-f qcow2 a -1")]
    [InlineData("-f qcow2 -- a -1")]
    [InlineData("-f qcow2 a 3P")]
    [InlineData("-f qcow2 -o cluster_size=512 a 129G")]
    [InlineData("-f qcow2 -o cluster_size=3000 a 1G")]
    [InlineData("-f qcow2 -o cluster_size=4M a 1G")]
    [InlineData("-f qcow2 -o cluster_size=1.5k a 1G")]
    [InlineData("-f qcow2 -o cluster_size=abc a 1G")]
    [InlineData("-f qcow2 -o cluster_size=-1 a 1G")]
    [InlineData("-f qcow2 -o cluster_size=99999999999999999999 a 1G")]
    [InlineData("-f qcow2 -o cluster_size a 1G")]
    [InlineData("-f qcow2 -o refcount_bits=3 a 1G")]
    [InlineData("-f qcow2 -o refcount_bits=-1 a 1G")]
    [InlineData("-f qcow2 -o refcount_bits=abc a 1G")]
    [InlineData("-f qcow2 -o refcount_bits=8,compat=0.10 a 1G")]
    [InlineData("-f qcow2 -o lazy_refcounts=on,compat=0.10 a 1G")]
    [InlineData("-f qcow2 -o lazy_refcounts=maybe a 1G")]
    [InlineData("-f qcow2 -o compat=0.42 a 1G")]
    [InlineData("-f qcow2 -o preallocation=foo a 1G")]
    [InlineData("-f qcow2 -o preallocation=metadata -b base -F qcow2 a")]
    [InlineData("-f qcow2 -o extended_l2=on,cluster_size=8k a 1G")]
    [InlineData("-f qcow2 -o extended_l2=on,compat=0.10 a 1G")]
    [InlineData("-f qcow2 -o data_file_raw=on a 1G")]
    [InlineData("-f qcow2 -o data_file_raw=on,data_file=d -b base -F qcow2 a 1G")]
    [InlineData("-f qcow2 -o data_file=d,compat=0.10 a 1G")]
    [InlineData("-f qcow2 -o compression_type=foo a 1G")]
    [InlineData("-f qcow2 -o foo=1 a 1G")]
    [InlineData("-f qcow2 -o =5 a 1G")]
    [InlineData("-f qcow2 -o ,size=5 a")]
    [InlineData("-f qcow2 -o size=5, a")]
    [InlineData("-f qcow2 -o size=1M a 2M")]
    [InlineData("-f qcow2 -o size=abc a")]
    [InlineData("-f qcow2 -o encrypt.format=luks a 1M")]
    [InlineData("-f qcow2 -o encryption=on a 1M")]
    [InlineData("-f qcow2 -o encrypt.format=foo a 1M")]
    [InlineData("-f qcow2 -o encrypt.key-secret=s a 1M")]
    [InlineData("-f qcow2 -o encrypt.format=luks,encrypt.key-secret=nope a 1M")]
    [InlineData("-f qcow2 -o encrypt.format=luks,encrypt.cipher-mode=foo a 1M")]
    [InlineData("-f qcow2 -o encrypt.format=aes,encrypt.cipher-alg=aes-128 a 1M")]
    [InlineData("-f qcow2 -o encrypt.format=luks,encrypt.iter-time=soon a 1M")]
    [InlineData("-f qcow2 -b none -F qcow2 a")]
    [InlineData("-f qcow2 -b none -F qcow2 a 1M")]
    [InlineData("-f qcow2 -u -b none -F qcow2 a")]
    [InlineData("-f qcow2 -b base a")]
    [InlineData("-f qcow2 -b a -F qcow2 a")]
    [InlineData("-f qcow2 -F qcow2 a 1M")]
    [InlineData("-f raw -b base -F raw a")]
    [InlineData("-f raw -o cluster_size=4k a 1M")]
    public void What_cannot_be_made_is_refused_in_qemu_imgs_words(string arguments)
    {
        (ToolResult theirs, ToolResult ours) = RunBoth(arguments);
        Assert.Equal(1, theirs.ExitCode);
        Odisk.AssertSame(theirs, ours);
        Assert.False(File.Exists(_ours.File("a")));
    }

    [Theory]
    [InlineData("-o cluster_size=3000")]
    [InlineData("-o compression_type=zstd,compat=0.10")]
    [InlineData("-o refcount_bits=3")]
    [InlineData("-o extended_l2=on,cluster_size=4k")]
    [InlineData("-o data_file=x,compat=0.10")]
    public void A_refused_create_leaves_the_file_that_was_there(string options)
    {
        File.WriteAllText(_ours.File("a"), "precious");
        ToolResult result = Odisk.Run(_ours.Directory, ["create", "-f", "qcow2", .. options.Split(' '), "a", "1M"]);
        Assert.Equal(1, result.ExitCode);
        Assert.StartsWith("odisk: a: ", result.Errors, StringComparison.Ordinal);
        Assert.Equal("precious", File.ReadAllText(_ours.File("a")));
    }

    [Fact]
    public void A_directory_that_does_not_exist_is_named()
    {
        ToolResult result = Odisk.Run(_ours.Directory, "create", "-q", "-f", "qcow2", "nope/a", "1M");
        Assert.Equal((1, "odisk: nope/a: Could not create 'nope/a': No such file or directory\n"), (result.ExitCode, result.Errors));
    }

    [Theory]
    [InlineData("-f qcow2 -o help")]
    [InlineData("-f qcow2 -o cluster_size=4k,help a")]
    [InlineData("-o help")]
    [InlineData("-f raw -o ? a 1M")]
    public void The_options_of_a_format_are_listed_in_qemu_imgs_words(string arguments)
    {
        (ToolResult theirs, ToolResult ours) = RunBoth(arguments);
        Assert.Equal(theirs.Succeeded().Output, ours.Succeeded().Output);
    }

    [Fact]
    public void A_name_that_begins_with_file_and_a_colon_is_the_path_behind_it()
    {
        Odisk.Run(_ours.Directory, "create", "-q", "-f", "qcow2", "file:a:b", "1M").Succeeded();
        Assert.Contains("image: ./a:b\n", ExternalTool.QemuImg(_ours.Directory, "info", "file:a:b").Succeeded().Output, StringComparison.Ordinal);
        Assert.Contains("image: ./a:b\n", Odisk.Run(_ours.Directory, "info", "file:a:b").Succeeded().Output, StringComparison.Ordinal);
        ToolResult result = Odisk.Run(_ours.Directory, "create", "-q", "-f", "qcow2", "nowhere:a", "1M");
        Assert.Equal((1, "odisk: nowhere:a: Unknown protocol 'nowhere'\n"), (result.ExitCode, result.Errors));
    }

    private (ToolResult Theirs, ToolResult Ours) RunBoth(string arguments)
    {
        string[] words = ["create", .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries)];
        foreach (TemporaryDirectory directory in (TemporaryDirectory[])[_theirs, _ours])
        {
            Directory.CreateDirectory(directory.File("sub"));
            ExternalTool.QemuImg(directory.Directory, "create", "-q", "-f", "qcow2", "base", "3M").Succeeded();
        }
        return (ExternalTool.QemuImg(_theirs.Directory, words), Odisk.Run(_ours.Directory, words));
    }
}
