using OrleansDisk.Cli.Tests.Tools;

namespace OrleansDisk.Cli.Tests.Help;

public sealed class CompletionTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("cr", "create")]
    [InlineData("nbd --sock", "--socket=")]
    [InlineData("check --out", "--output=")]
    [InlineData("info dis", "disk.qcow2")]
    public void Bash_completes_commands_options_and_files(string words, string expected)
    {
        File.WriteAllText(_directory.File("disk.qcow2"), "");
        File.WriteAllText(_directory.File("completion"), Odisk.Run(_directory.Directory, "completion", "bash").Succeeded().Output);
        string script = $"source ./completion; COMP_WORDS=(odisk {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _odisk; echo \"${{COMPREPLY[*]}}\"";
        ToolResult result = ExternalTool.Run("bash", "bash", _directory.Directory, ["-c", script]);
        Assert.Equal(expected + "\n", result.Output);
    }

    [Theory]
    [InlineData("bash", "bash")]
    [InlineData("zsh", "zsh")]
    [InlineData("fish", "fish")]
    public void Each_shell_takes_its_script(string shell, string package)
    {
        File.WriteAllText(_directory.File("completion"), Odisk.Run(_directory.Directory, "completion", shell).Succeeded().Output);
        ToolResult result = ExternalTool.Run(shell, package, _directory.Directory, ["-n", "completion"]);
        Assert.Equal("", result.Errors);
        Assert.Equal(0, result.ExitCode);
    }

    [Fact]
    public void The_manual_page_has_no_error_that_mandoc_knows()
    {
        File.WriteAllText(_directory.File("odisk.1"), Odisk.Run(_directory.Directory, "man").Succeeded().Output);
        ToolResult result = ExternalTool.Run("mandoc", "mandoc", _directory.Directory, ["-T", "lint", "-W", "error", "odisk.1"]);
        Assert.Equal("", result.Output);
        Assert.Equal(0, result.ExitCode);
    }
}
