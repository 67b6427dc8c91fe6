namespace OrleansDisk.Simulation.Model;

/// <summary>The files that may lie below an image, and what each sector of them reads; nobody writes them.</summary>
internal sealed class BackingContents
{
    private const string SameFolder = "./";
    private readonly Dictionary<string, IReadOnlyList<long>> _files = [];

    /// <summary>Names of the files.</summary>
    public IReadOnlyCollection<string> Names => _files.Keys;

    public void Add(string name, IReadOnlyList<long> contents) => _files.Add(name, contents);

    /// <summary>The content of a sector that nothing above a file holds.</summary>
    /// <param name="name">The file as a header names it, or null: none.</param>
    /// <param name="sector">The sector.</param>
    public long ContentOf(string? name, int sector)
    {
        if (name is null)
            return 0;
        IReadOnlyList<long> contents = _files[PlainNameOf(name)];
        return sector < contents.Count ? contents[sector] : 0;
    }

    /// <summary>A name for the same file, longer by so many letters at most.</summary>
    public static string LongNameOf(string name, int letters) => string.Concat(Enumerable.Repeat(SameFolder, letters / SameFolder.Length)) + name;

    /// <summary>The name of a file as the host has it.</summary>
    public static string PlainNameOf(string name)
    {
        while (name.StartsWith(SameFolder, StringComparison.Ordinal))
            name = name[SameFolder.Length..];
        return name;
    }
}
