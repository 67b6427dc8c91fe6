namespace OrleansDisk.Bench.Results;

/// <summary>The part of a Markdown file that a measurement owns, between two marks of its name.</summary>
internal static class MarkedSection
{
    /// <summary>
    /// Replaces what is between the marks. A file without them gets the part at its end; one that is not there is made.
    /// </summary>
    /// <param name="path">The file.</param>
    /// <param name="name">The name in the marks.</param>
    /// <param name="markdown">What is to stand between them, with a newline at its end.</param>
    public static void Write(string path, string name, string markdown)
    {
        (string begin, string end) = ($"<!-- {name}: begin -->", $"<!-- {name}: end -->");
        string text = File.Exists(path) ? File.ReadAllText(path) : "";
        int start = text.IndexOf(begin, StringComparison.Ordinal);
        int stop = text.IndexOf(end, StringComparison.Ordinal);
        string section = $"{begin}\n{markdown}{end}";
        File.WriteAllText(path, start >= 0 && stop > start ? text[..start] + section + text[(stop + end.Length)..] : text + section + "\n");
    }
}
