using System.Text.RegularExpressions;

namespace OrleansDisk.Tidy.Tests;

/// <summary>The embedded grain runtime stays a small part of Orleans; what outgrows this belongs to Orleans itself.</summary>
public sealed partial class RuntimeSizeTests
{
    private const int MaximumCodeLines = 1000;

    [Fact]
    public void The_embedded_grain_runtime_has_fewer_than_a_thousand_lines_of_code()
    {
        string folder = Path.Combine(RepositoryRoot(), "src", "Orleans.Embedded");
        (string File, int Lines)[] files = [.. Directory.EnumerateFiles(folder, "*.cs", SearchOption.AllDirectories)
            .Select(path => (Path.GetRelativePath(folder, path), File.ReadLines(path).Count(line => !NoCode().IsMatch(line))))];
        Assert.True(files.Length > 10, $"Only {files.Length} source files were found in {folder}.");
        int total = files.Sum(file => file.Lines);
        Assert.True(total < MaximumCodeLines,
            $"{total} lines of code, of {MaximumCodeLines}: {string.Join(", ", files.OrderByDescending(file => file.Lines))}.");
    }

    /// <summary>A blank line, a comment, braces alone, a using directive or the namespace: nothing that does something.</summary>
    [GeneratedRegex(@"^\s*(//.*|[{}();]+|using [\w.]+;|namespace [\w.]+;|#.*)?\s*$")]
    private static partial Regex NoCode();

    private static string RepositoryRoot()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "OrleansDisk.sln")))
                return folder.FullName;
        }
        throw new DirectoryNotFoundException($"No OrleansDisk.sln above {AppContext.BaseDirectory}.");
    }
}
