using System.Diagnostics;

namespace OrleansDisk.Testing;

/// <summary>Runs programs in the directory of a test, with what they print apart from their errors.</summary>
internal static class ExternalTool
{
    public static ToolResult QemuImg(string directory, params string[] arguments) =>
        Run("qemu-img", "qemu-utils", directory, arguments);

    /// <summary>Runs qemu-io commands on a qcow2 image.</summary>
    public static ToolResult QemuIo(string file, params string[] commands)
    {
        var arguments = new List<string> { "-f", "qcow2" };
        foreach (string command in commands)
            arguments.AddRange(["-c", command]);
        arguments.Add(file);
        return Run("qemu-io", "qemu-utils", Path.GetDirectoryName(file)!, arguments);
    }

    /// <summary>Runs a program to its end; a missing one fails the test with the package that has it.</summary>
    public static ToolResult Run(string program, string debianPackage, string directory, IReadOnlyList<string> arguments) =>
        Tool.Complete(new ProcessStartInfo(program, arguments) { WorkingDirectory = directory }, debianPackage);
}
