using System.Xml.Linq;

namespace OrleansDisk.Tidy.Tests;

/// <summary>The source tree that these tests were built from.</summary>
internal static class Repository
{
    public static string Root { get; } = FindRoot();

    /// <summary>Every C# file of the source tree, by its path from the root.</summary>
    public static IEnumerable<string> CSharpFiles() => Directory
        .EnumerateFiles(Root, "*.cs", SearchOption.AllDirectories)
        .Select(path => Path.GetRelativePath(Root, path))
        .Where(path => !path.StartsWith("artifacts", StringComparison.Ordinal));

    /// <summary>The projects under src that a project under src refers to, by its project file.</summary>
    public static IReadOnlySet<string> ReferencesOf(string project) => XDocument
        .Load(Path.Combine(Root, "src", project, $"{project}.csproj"))
        .Descendants("ProjectReference")
        .Select(reference => Path.GetFileNameWithoutExtension(reference.Attribute("Include")!.Value))
        .ToHashSet();

    public static string[] ReadLines(string path) => File.ReadAllLines(Path.Combine(Root, path));

    private static string FindRoot()
    {
        DirectoryInfo? directory = new(AppContext.BaseDirectory);
        while (directory is not null && !File.Exists(Path.Combine(directory.FullName, "OrleansDisk.sln")))
            directory = directory.Parent;
        return directory?.FullName ?? throw new InvalidOperationException("OrleansDisk.sln is in no directory above the tests");
    }
}
