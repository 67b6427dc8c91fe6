using System.Text.RegularExpressions;

namespace OrleansDisk.Tidy.Tests;

public sealed partial class SourceTests
{
    private const int MaxLineCount = 600;

    [Fact]
    public void No_file_outgrows_its_purpose() => AssertNone(Repository.CSharpFiles()
        .Where(path => Repository.ReadLines(path).Length > MaxLineCount));

    [Fact]
    public void Nothing_is_left_to_do_in_a_comment() => AssertNone(Lines().Where(line => Unfinished().IsMatch(line.Text)));

    [Fact]
    public void One_source_serves_both_grain_runtimes() => AssertNone(Lines()
        .Where(line => line.Text.TrimStart().StartsWith("#if", StringComparison.Ordinal)));

    [Fact]
    public void Tests_wait_for_conditions_and_never_for_time() => AssertNone(Lines()
        .Where(line => line.File.StartsWith("tests", StringComparison.Ordinal) && Sleep().IsMatch(line.Text)));

    /// <summary>A failure lists the offenders.</summary>
    private static void AssertNone<T>(IEnumerable<T> offenders) => Assert.Empty(offenders);

    private static IEnumerable<(string File, string Text)> Lines() => Repository.CSharpFiles()
        .Where(path => !path.EndsWith("SourceTests.cs", StringComparison.Ordinal))
        .SelectMany(path => Repository.ReadLines(path).Select(line => (path, line)));

    [GeneratedRegex(@"//.*\b(TODO|FIXME|XXX|HACK)\b")]
    private static partial Regex Unfinished();

    [GeneratedRegex(@"\bThread\.Sleep\(")]
    private static partial Regex Sleep();
}
