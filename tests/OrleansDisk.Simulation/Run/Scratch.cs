namespace OrleansDisk.Simulation.Run;

/// <summary>A folder for files that other programs are to see; it goes with the process.</summary>
internal static class Scratch
{
    private static readonly Lazy<string> s_root = new(MakeRoot);
    private static int s_folderCount;

    public static string PathOf(string name) => Path.Combine(s_root.Value, name);

    public static string NewFolder() =>
        Directory.CreateDirectory(PathOf($"{Interlocked.Increment(ref s_folderCount)}")).FullName;

    private static string MakeRoot()
    {
        string root = Directory.CreateTempSubdirectory("odisk-simulation-").FullName;
        AppDomain.CurrentDomain.ProcessExit += (_, _) => Directory.Delete(root, recursive: true);
        return root;
    }
}
