using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Commands;

public sealed class ProgramTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("")]
    [InlineData("frobnicate")]
    [InlineData("--frobnicate")]
    public void Unknown_commands_and_options_are_answered_as_qemu_img_does(string arguments) =>
        Odisk.AssertSameAsQemuImg(_directory.Directory, arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries));

    [Theory]
    [InlineData("create")]
    [InlineData("info")]
    [InlineData("check")]
    public void Every_command_explains_itself(string command)
    {
        ToolResult all = Odisk.Run(_directory.Directory, "--help").Succeeded();
        Assert.Contains($"\n  {command} ", all.Output, StringComparison.Ordinal);
        ToolResult one = Odisk.Run(_directory.Directory, command, "--help").Succeeded();
        Assert.StartsWith($"usage: odisk {command} [OPTIONS] FILE", one.Output, StringComparison.Ordinal);
    }

    [Fact]
    public void The_version_is_told()
    {
        ToolResult result = Odisk.Run(_directory.Directory, "--version").Succeeded();
        Assert.Matches(@"^odisk version \d+\.\d+\.\d+ ", result.Output);
    }

    [Fact]
    public void A_link_named_qemu_img_speaks_as_qemu_img()
    {
        string link = _directory.File("qemu-img");
        File.CreateSymbolicLink(link, Odisk.Program);
        ToolResult result = ExternalTool.Run(link, "(none)", _directory.Directory, ["info", "none"]);
        Assert.Equal("qemu-img: Could not open 'none': Could not open 'none': No such file or directory\n", result.Errors);
    }
}
