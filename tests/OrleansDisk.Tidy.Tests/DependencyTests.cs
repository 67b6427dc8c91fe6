using System.Text.RegularExpressions;

namespace OrleansDisk.Tidy.Tests;

/// <summary>Dependencies run one way; docs/architecture.md draws them.</summary>
public sealed partial class DependencyTests
{
    [Theory]
    [InlineData("OrleansDisk.Qcow2")]
    [InlineData("OrleansDisk.Nbd")]
    [InlineData("Orleans.Embedded")]
    [InlineData("OrleansDisk.Abstractions")]
    [InlineData("OrleansDisk.Client", "OrleansDisk.Abstractions")]
    [InlineData("OrleansDisk.Grains", "OrleansDisk.Abstractions", "OrleansDisk.Qcow2")]
    [InlineData("OrleansDisk.Exports", "OrleansDisk.Qcow2", "OrleansDisk.Nbd")]
    [InlineData("OrleansDisk.Server", "OrleansDisk.Grains", "OrleansDisk.Exports", "OrleansDisk.Nbd", "OrleansDisk.Client")]
    [InlineData("OrleansDisk.Cli", "OrleansDisk.Qcow2", "OrleansDisk.Exports", "OrleansDisk.Nbd", "OrleansDisk.Client")]
    public void A_project_refers_only_to_those_below_it(string project, params string[] allowed)
    {
        IEnumerable<string> unexpected = Repository.ReferencesOf(project).Except(allowed);
        Assert.Empty(unexpected);
    }

    [Theory]
    [InlineData("Format", "Metadata|Data|Io|Concurrency|Snapshots|Check|Operations")]
    [InlineData("Io", "Metadata|Data|Concurrency|Snapshots|Check|Operations")]
    [InlineData("Concurrency", "Metadata|Data|Io|Check|Operations")]
    [InlineData("Compression", "Metadata|Data|Io|Concurrency|Check|Operations")]
    [InlineData("Crypto", "Metadata|Data|Io|Concurrency|Check|Operations")]
    [InlineData("Metadata", "Data|Snapshots|Check|Operations")]
    [InlineData("Snapshots", "Data|Concurrency|Check|Operations")]
    [InlineData("Data", "Snapshots|Check|Operations")]
    [InlineData("Check", "Metadata|Data|Snapshots|Concurrency|Operations")]
    public void A_folder_of_the_engine_uses_only_those_below_it(string folder, string above)
    {
        var forbidden = new Regex($@"^using OrleansDisk\.Qcow2\.({above})\b");
        AssertNone(EngineLines(folder).Where(line => forbidden.IsMatch(line.Text)));
    }

    [Fact]
    public void The_codecs_never_wait() => AssertNone(EngineLines("Format").Where(line => Await().IsMatch(line.Text)));

    [Fact]
    public void Only_Io_touches_files() => AssertNone(EngineLines("")
        .Where(line => !line.File.Contains("/Io/", StringComparison.Ordinal) && FileAccess().IsMatch(line.Text)));

    [Fact]
    public void Only_WriteOrder_asks_a_file_of_an_open_image_to_flush() => AssertNone(EngineLines("")
        .Where(line => Flush().IsMatch(line.Text) && !line.File.Contains("/Io/", StringComparison.Ordinal)
            && !line.File.EndsWith("WriteOrder.cs", StringComparison.Ordinal)
            // A new image is nobody's yet: its creation has barriers of its own. A raw file has no order to keep, and the
            // key slots of a plain LUKS file have a barrier of their own.
            && !line.File.EndsWith("LuksImage.cs", StringComparison.Ordinal)
            && !line.File.EndsWith("CreateOperation.cs", StringComparison.Ordinal)
            && !line.File.EndsWith("RawImage.cs", StringComparison.Ordinal)
            // A repair, and a change of the refcounts' width, have to themselves an image that no engine has open.
            && !line.File.EndsWith("RepairWriter.cs", StringComparison.Ordinal)
            && !line.File.EndsWith("RefcountWidth.cs", StringComparison.Ordinal)));

    /// <summary>A failure lists the offenders.</summary>
    private static void AssertNone<T>(IEnumerable<T> offenders) => Assert.Empty(offenders);

    private static IEnumerable<(string File, string Text)> EngineLines(string folder) => Repository.CSharpFiles()
        .Where(path => path.StartsWith(Path.Combine("src/OrleansDisk.Qcow2", folder), StringComparison.Ordinal))
        .SelectMany(path => Repository.ReadLines(path).Select(line => (path, line)));

    [GeneratedRegex(@"\bawait\b")]
    private static partial Regex Await();

    [GeneratedRegex(@"\b(File\.(Open|Read|Write|Create|Delete|Exists)|RandomAccess|FileStream|LibC)\b")]
    private static partial Regex FileAccess();

    [GeneratedRegex(@"\b_?[fF]ile\.FlushAsync\(")]
    private static partial Regex Flush();
}
