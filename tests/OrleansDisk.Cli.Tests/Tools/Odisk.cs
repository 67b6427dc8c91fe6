
namespace OrleansDisk.Cli.Tests.Tools;

/// <summary>Runs odisk beside qemu-img, and expects the same of both.</summary>
internal static class Odisk
{
    /// <summary>The program under test: the one built with the tests, or the one that ODISK_PROGRAM names.</summary>
    public static string Program { get; } =
        Environment.GetEnvironmentVariable("ODISK_PROGRAM") ?? Path.Combine(AppContext.BaseDirectory, "odisk");

    public static ToolResult Run(string directory, params string[] arguments) =>
        ExternalTool.Run(Program, "(none: it is built by this repository)", directory, arguments);

    /// <summary>Runs both in the same directory, for commands that change nothing.</summary>
    public static ToolResult AssertSameAsQemuImg(string directory, params string[] arguments)
    {
        ToolResult theirs = ExternalTool.QemuImg(directory, arguments);
        ToolResult ours = Run(directory, arguments);
        AssertSame(theirs, ours);
        return ours;
    }

    /// <summary>What was printed and the exit code are the same, but for the program's name.</summary>
    public static void AssertSame(ToolResult theirs, ToolResult ours)
    {
        string errors = theirs.Errors.Replace("qemu-img: ", "odisk: ", StringComparison.Ordinal)
            .Replace("'qemu-img ", "'odisk ", StringComparison.Ordinal);
        Assert.Equal(theirs.Output, ours.Output);
        Assert.Equal(errors.TrimEnd('\n'), ours.Errors.TrimEnd('\n'));
        Assert.Equal(theirs.ExitCode, ours.ExitCode);
    }
}
