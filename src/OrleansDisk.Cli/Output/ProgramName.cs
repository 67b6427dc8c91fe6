namespace OrleansDisk.Cli.Output;

/// <summary>
/// The name that the program was started by, so that a link called qemu-img speaks as qemu-img does. The system knows it;
/// the runtime's own answer is the file that the link leads to.
/// </summary>
internal static class ProgramName
{
    private const string Default = "odisk";

    public static string Value { get; } = Read();

    private static string Read()
    {
        try
        {
            string commandLine = File.ReadAllText("/proc/self/cmdline");
            string name = Path.GetFileName(commandLine.Split('\0')[0]);
            return name is "" or "dotnet" ? Default : name;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return Default;
        }
    }
}
