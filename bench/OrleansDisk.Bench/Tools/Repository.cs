namespace OrleansDisk.Bench.Tools;

/// <summary>The source tree that this program was built from, and the programs that it publishes.</summary>
internal static class Repository
{
    public static string Root { get; } = FindRoot();

    public static string Odisk { get; } = Path.Combine(Root, "artifacts/publish/odisk");

    public static string Odiskd { get; } = Path.Combine(Root, "artifacts/publish/odiskd");

    /// <summary>A folder on the file system of the source tree, for what must not lie in memory.</summary>
    public static string Scratch { get; } = Path.Combine(Root, "artifacts/bench");

    private static string FindRoot()
    {
        DirectoryInfo? directory = new(AppContext.BaseDirectory);
        while (directory is not null && !File.Exists(Path.Combine(directory.FullName, "OrleansDisk.sln")))
            directory = directory.Parent;
        return directory?.FullName ?? throw new BenchException("OrleansDisk.sln is in no directory above this program");
    }
}
