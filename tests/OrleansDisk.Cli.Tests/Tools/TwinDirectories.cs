
namespace OrleansDisk.Cli.Tests.Tools;

/// <summary>Two directories with the same files: in one of them qemu-img works, in the other odisk, and both must come to the same.</summary>
internal sealed class TwinDirectories : IDisposable
{
    private readonly TemporaryDirectory _theirs = new();
    private readonly TemporaryDirectory _ours = new();

    public string Theirs => _theirs.Directory;

    public string Ours => _ours.Directory;

    public void Dispose()
    {
        _theirs.Dispose();
        _ours.Dispose();
    }

    /// <summary>Runs qemu-img in both.</summary>
    public void Prepare(string arguments)
    {
        foreach (string directory in (string[])[Theirs, Ours])
            ExternalTool.QemuImg(directory, arguments.Split(' ')).Succeeded();
    }

    /// <summary>Changes an image in both by qemu-io.</summary>
    public void Change(string image, params string[] commands)
    {
        foreach (string directory in (string[])[Theirs, Ours])
            ExternalTool.QemuIo(Path.Combine(directory, image), commands).Succeeded();
    }

    /// <summary>Makes a raw file in both: data where the pattern says it, holes elsewhere.</summary>
    public void WriteRaw(string name, int bytes, params (int Start, int Bytes, byte Value)[] data)
    {
        foreach (string directory in (string[])[Theirs, Ours])
        {
            using FileStream file = File.Create(Path.Combine(directory, name));
            file.SetLength(bytes);
            foreach ((int start, int length, byte value) in data)
            {
                byte[] part = new byte[length];
                Array.Fill(part, value);
                file.Position = start;
                file.Write(part);
            }
        }
    }

    /// <summary>Runs the same with both, and expects the same output, errors and exit code.</summary>
    public ToolResult Run(params string[] arguments)
    {
        ToolResult theirs = ExternalTool.QemuImg(Theirs, arguments);
        ToolResult ours = Odisk.Run(Ours, arguments);
        Odisk.AssertSame(theirs, ours);
        return ours;
    }

    /// <summary>The disk is the same in both, and QEMU finds ours consistent.</summary>
    public void AssertSameDisk(string name, string format)
    {
        string theirs = Path.Combine(Theirs, name);
        ToolResult comparison = ExternalTool.QemuImg(Ours, "compare", "-f", format, "-F", format, name, theirs);
        Assert.Equal("Images are identical.\n", comparison.Output);
        if (format != "qcow2")
            return;
        ExternalTool.QemuImg(Ours, "check", "-q", name).Succeeded();
        Assert.Equal(0, Odisk.Run(Ours, "check", "-q", name).ExitCode);
    }

    /// <summary>What is data, zeros or left to a backing file is the same in both.</summary>
    public void AssertSameMap(string name, string format)
    {
        string[] arguments = ["map", "--output=json", "-f", format, name];
        Assert.Equal(WithoutOffsets(ExternalTool.QemuImg(Theirs, arguments)), WithoutOffsets(ExternalTool.QemuImg(Ours, arguments)));
    }

    /// <summary>Extents that differ in their place alone become one.</summary>
    private static List<string> WithoutOffsets(ToolResult map)
    {
        var extents = new List<(long Start, long Bytes, string Kind)>();
        foreach (string line in map.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] words = line.Split([' ', ',', '{', '}', '[', ']', ':', '"'], StringSplitOptions.RemoveEmptyEntries);
            (long start, long bytes) = (long.Parse(words[1]), long.Parse(words[3]));
            // Inside of a cluster there may be a hole in one file and written zeros in the other.
            string kind = words[11] == "true" ? $"{words[5]} data" : string.Join(' ', words[4..12]);
            if (extents.Count > 0 && extents[^1].Kind == kind)
                extents[^1] = extents[^1] with { Bytes = extents[^1].Bytes + bytes };
            else
                extents.Add((start, bytes, kind));
        }
        return [.. extents.Select(extent => $"{extent.Start}+{extent.Bytes}: {extent.Kind}")];
    }
}
