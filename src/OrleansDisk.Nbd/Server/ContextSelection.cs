namespace OrleansDisk.Nbd.Server;

/// <summary>Metadata contexts of one export that a client asked about (NBD protocol, "Metadata querying").</summary>
internal sealed class ContextSelection
{
    public const string Allocation = "base:allocation";
    public const uint AllocationId = 1;

    private ContextSelection(string exportName, bool wantsAllocation, int[] contexts)
    {
        (ExportName, WantsAllocation, Contexts) = (exportName, wantsAllocation, contexts);
    }

    /// <summary>The export's name as the client gave it.</summary>
    public string ExportName { get; }

    public bool WantsAllocation { get; }

    /// <summary>Places of the others in the export's list.</summary>
    public IReadOnlyList<int> Contexts { get; }

    /// <summary>The id of a context, by its place in the export's list.</summary>
    public static uint IdOf(int context) => AllocationId + 1 + (uint)context;

    /// <summary>The contexts that have just the names that were asked for.</summary>
    public static ContextSelection Select(string exportName, IReadOnlyList<string> contexts, IReadOnlyCollection<string> queries)
    {
        var names = new HashSet<string>(queries, StringComparer.Ordinal);
        return Find(exportName, contexts, names.Contains);
    }

    /// <summary>The contexts that queries match: a query that ends with a colon, all that begin like it. None matches all.</summary>
    public static ContextSelection List(string exportName, IReadOnlyList<string> contexts, IReadOnlyCollection<string> queries)
    {
        var wanted = new HashSet<string>(queries, StringComparer.Ordinal);
        return Find(exportName, contexts, name => wanted.Count == 0 || wanted.Contains(name) || PrefixesOf(name).Any(wanted.Contains));
    }

    private static IEnumerable<string> PrefixesOf(string name)
    {
        for (int colon = name.IndexOf(':'); colon >= 0; colon = name.IndexOf(':', colon + 1))
            yield return name[..(colon + 1)];
    }

    private static ContextSelection Find(string exportName, IReadOnlyList<string> contexts, Predicate<string> isWanted) =>
        new(exportName, isWanted(Allocation), [.. Enumerable.Range(0, contexts.Count).Where(context => isWanted(contexts[context]))]);
}
