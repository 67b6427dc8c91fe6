using System.Text.RegularExpressions;
using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

/// <summary>Lists of commands, done by qemu-io and by odisk io on images that are the same.</summary>
public sealed partial class IoCommandTests : IDisposable
{
    private readonly TemporaryDirectory _theirs = new();
    private readonly TemporaryDirectory _ours = new();

    public void Dispose()
    {
        _theirs.Dispose();
        _ours.Dispose();
    }

    /// <summary>Words in front of a bar are options of the program; between bars stand its commands.</summary>
    [Theory]
    [InlineData("-f qcow2 t | write 0 64k | read 0 64k | write -P 0xa 1000 3000 | read -P 0xa 1000 3000 | read -P 10 0 1000")]
    [InlineData("t | w -P 011 0 64k | r -v 0 70 | read -P 9 -s 512 -l 512 0 4k | read -P 1 -s 5k 0 4k | read -l 512 0 4k")]
    [InlineData("t | read 0 | read | read 0 1 2 | read -x 0 1 | read -P | write 0 | alloc | alloc 1 2 3 | foo | map 1")]
    [InlineData("t | write -z 1M 64k | write -z -u 1M 128k | map | alloc 0 1M | alloc 1M 4M | alloc 8M 1k | alloc 4M 8M")]
    [InlineData("t | writev -P 3 0 512 512 1k | readv -v -P 3 0 512 512 1k | readv -q -P 4 0 512 | writev 0 | readv -C 0 512 512")]
    [InlineData("t | aio_write -P 3 0 64k | aio_flush | aio_read -P 3 0 64k | aio_flush | aio_write -z 0 4k | aio_flush | aio_write -i 0 1")]
    [InlineData("t | aio_write -z 0 1 2 | aio_write -u 0 1 | aio_read -q -P 9 1M 1k | aio_flush | aio_write 6M 64k | aio_flush")]
    [InlineData("t | discard 0 1M | discard -q 1M 1M | discard -C 0 64k | discard 6M 1k | discard 0 3G | discard x 1")]
    [InlineData("t | length | info | map | l | i | a 1M 3M | truncate 6M | length | write 5M 1M | truncate -m foo 7M | truncate 1 2 3 4")]
    [InlineData("t | write 0 6M | read 5M 512 | read 5M 0 | write 5M 0 | read 4M 2M | write 0 3G | readv 0 2G 1G | writev 0 3G")]
    [InlineData("-r t | write 0 64k | read 0 64k | discard 0 64k | aio_write 0 1k | truncate 6M")]
    [InlineData("t | close | read 0 512 | open -r t | read 0 512 | write 0 512 | open t | close | close | open -r nofile")]
    [InlineData("t | write -q 0 64k | write -C 0 64k | read -C 0 512 | read -q -P 9 1M 1k | read -q -P 8 1M 1k | flush | f")]
    [InlineData("t | write -b -z 0 1k | write -f -c 0 64k | write -n 0 1k | write -u 0 1k | write -z -P 3 0 1k | write -c 100 64k")]
    [InlineData("t | write 0 1x | write -1 1k | write 0 99999E | write -P 256 0 1k | write -P x 0 1 | write -P 08 0 1 | read 1.5k 1k")]
    [InlineData("t | write -c 4M 64k | read 4M 64k | write -c 4M 64k | write -c -P 7 4160k 128k | write -c 1k 64k | write -f 0 1k")]
    [InlineData("t | sleep 1 | sleep x | sigraise 100 | abort 5 | quit | read 0 512")]
    [InlineData("t | write -s nofile 0 1k | write -s pattern 0 64k | read -v 0 16 | write -s pattern -P 1 0 1")]
    [InlineData("t | break write_aio A | resume A | remove_break A")]
    [InlineData("t | reopen -r | write 0 1k | reopen -w | write 0 1k | reopen -r -w | reopen -x | reopen -o lazy-refcounts=7 | read 0 1k")]
    [InlineData("-t foo t | read 0 512")]
    [InlineData("-d foo t | read 0 512")]
    [InlineData("-f foo t | read 0 512")]
    [InlineData("nofile | read 0 512")]
    [InlineData("-U t | read 0 512")]
    [InlineData("-r -U t | read 0 512")]
    [InlineData("-f raw t | read 0 4 | info | map | length | alloc 0 1M")]
    [InlineData("-s t | write -P 77 0 64k | read -P 77 0 64k | read -P 9 1M 64k")]
    [InlineData("-C t | read 1M 64k | map")]
    [InlineData("-C -r t | read 1M 64k")]
    [InlineData("--image-opts driver=qcow2,file.filename=t | read -P 9 1M 512")]
    [InlineData("--image-opts driver=qcow2,file.filename=t,foo=bar | read 0 512")]
    [InlineData("--image-opts driver=qcow2,file.filename=t,file.foo=bar | read 0 512")]
    [InlineData("--image-opts t | read 0 512")]
    [InlineData("--image-opts -f qcow2 t | read 0 512")]
    [InlineData("--image-opts driver=null-co,size=1M,read-zeroes=on | read -P 0 0 1M | write 0 1M | length")]
    [InlineData("--image-opts driver=raw,offset=64k,size=1M,file.driver=file,file.filename=t | length | read 0 512 | read 1M 1")]
    [InlineData("json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"t\"}} | read -P 9 1M 512")]
    [InlineData("json:{'driver':'qcow2','file.filename':'t'} | read -P 9 1M 512")]
    [InlineData("json:{'driver':'qcow2','file.filename':'t' | read 0 512")]
    [InlineData("json:[] | read 0 512")]
    [InlineData("| open -o driver=qcow2,backing.file.filename=base t | read -P 9 1M 1k")]
    [InlineData("| open -o driver=qcow2,backing.file.filename=nofile t | read 0 512")]
    [InlineData("| open -o driver=qcow2,backing= t | read -P 0 1M 1k")]
    [InlineData("| open -o backing.driver=raw t | read -P 9 1M 1k")]
    [InlineData("| open foo:bar | open -o driver=qcow2 | open -x t | open t t | open -t foo t | open -s t | write 0 512")]
    [InlineData("| open blkdebug::t | break write_aio A | break foo A | aio_write 0 64k | wait_break A | read 0 512 | resume A | aio_flush")]
    [InlineData("| open -o driver=blkdebug,image.driver=qcow2,inject-error.0.event=none,inject-error.0.once=on blkdebug::t | read 0 1 | read 0 1")]
    [InlineData("| open -o backing.driver=raw blkdebug:faults:t | write 0 64k | read 0 64k | read 0 64k | read 0 64k")]
    public void Commands_do_and_say_what_they_do_in_qemu_io(string script)
    {
        string[] parts = script.Split('|', StringSplitOptions.TrimEntries);
        List<string> words = [.. parts[0].Split(' ', StringSplitOptions.RemoveEmptyEntries)];
        foreach (string command in parts[1..])
            words.AddRange(["-c", command]);
        ToolResult theirs = Prepare(_theirs, () => ExternalTool.Run("qemu-io", "qemu-utils", _theirs.Directory, [.. words]));
        ToolResult ours = Prepare(_ours, () => Odisk.Run(_ours.Directory, ["io", .. words]));
        Odisk.AssertSame(WithoutTimes(theirs), WithoutTimes(ours));
        Odisk.Run(_ours.Directory, "check", "-q", "-f", "qcow2", "t").Succeeded();
        ExternalTool.QemuImg("/", "compare", "-q", "-U", _theirs.File("t"), _ours.File("t")).Succeeded();
    }

    [Fact]
    public void Commands_come_from_standard_input_without_c()
    {
        CreateImage(_ours);
        File.WriteAllText(_ours.File("commands"), "write -P 5 0 64k\nfoo\n\nread -P 5 0 64k\nquit\nread 0 1\n");
        ToolResult result = ExternalTool.Run("sh", "dash", _ours.Directory, ["-c", $"'{Odisk.Program}' io -f qcow2 t < commands"]);
        Assert.Equal(1, result.ExitCode);
        Assert.Equal("command \"foo\" not found\n", result.Errors);
        Assert.Equal("odisk> wrote 65536/65536 bytes at offset 0\n64 KiB, X ops\nodisk> odisk> odisk> read 65536/65536 bytes at offset 0\n"
            + "64 KiB, X ops\nodisk> ", Times().Replace(result.Output, "X ops"));
    }

    [Fact]
    public void A_link_named_qemu_io_is_the_shell()
    {
        CreateImage(_ours);
        string link = _ours.File("qemu-io");
        File.CreateSymbolicLink(link, Odisk.Program);
        ToolResult result = ExternalTool.Run(link, "(none)", _ours.Directory, ["-c", "length", "t"]).Succeeded();
        Assert.Equal("5 MiB\n", result.Output);
        Assert.StartsWith("qemu-io: can't open device none: ",
            ExternalTool.Run(link, "(none)", _ours.Directory, ["none"]).Errors, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_command_has_a_line_of_help()
    {
        string[] theirs = ExternalTool.Run("qemu-io", "qemu-utils", "/", ["-c", "help"]).Succeeded().Output.Split('\n');
        string[] ours = Odisk.Run("/", "io", "-c", "help").Succeeded().Output.Split('\n');
        Assert.Equal(theirs, ours);
    }

    [Fact]
    public void What_a_signal_leaves_is_a_sound_image()
    {
        CreateImage(_ours);
        ToolResult result = Odisk.Run(_ours.Directory, "io", "-f", "qcow2", "-c", "write -P 5 0 64k", "-c", "sigraise 9", "-c", "read 0 1", "t");
        Assert.NotEqual(0, result.ExitCode);
        Assert.StartsWith("wrote 65536/65536 bytes at offset 0\n", result.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("read", result.Output, StringComparison.Ordinal);
        ExternalTool.QemuImg(_ours.Directory, "compare", "-q", "t", "t").Succeeded();
    }

    private static ToolResult Prepare(TemporaryDirectory directory, Func<ToolResult> run)
    {
        CreateImage(directory);
        File.WriteAllText(directory.File("pattern"), "sixteen letters!");
        File.WriteAllText(directory.File("faults"), """
            [set-state]
            event = "read_aio"
            state = "1"
            new_state = "2"

            [inject-error]
            event = "read_aio"
            state = "2"
            errno = "28"
            once = "on"
            """);
        return run();
    }

    private static void CreateImage(TemporaryDirectory directory)
    {
        ExternalTool.QemuImg(directory.Directory, "create", "-q", "-f", "qcow2", "base", "4M").Succeeded();
        ExternalTool.Run("qemu-io", "qemu-utils", directory.Directory, ["-f", "qcow2", "-c", "write -P 9 1M 2M", "base"]).Succeeded();
        ExternalTool.QemuImg(directory.Directory, "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "t", "5M").Succeeded();
    }

    private static ToolResult WithoutTimes(ToolResult result) => result with
    {
        Output = ParsableTimes().Replace(Times().Replace(result.Output, "X ops"), "$1"),
        Errors = result.Errors.Replace("qemu-io: ", "odisk: ", StringComparison.Ordinal),
    };

    [GeneratedRegex("[0-9]+ ops; .*")]
    private static partial Regex Times();

    [GeneratedRegex("^([0-9]+,1,).*", RegexOptions.Multiline)]
    private static partial Regex ParsableTimes();
}
