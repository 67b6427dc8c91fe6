namespace OrleansDisk.Qcow2.Check;

/// <summary>Counts findings, passes them on, and keeps the first of them.</summary>
internal sealed class CheckLog(CheckOptions options)
{
    private readonly List<CheckFinding> _kept = [];

    public IReadOnlyList<CheckFinding> Kept => _kept;

    public long LeakCount { get; private set; }

    public long CorruptionCount { get; private set; }

    public long CheckErrorCount { get; private set; }

    public void Corruption(string message)
    {
        CorruptionCount++;
        Note(CheckFindingKind.Corruption, message);
    }

    /// <summary>Something that could not be checked, <paramref name="count"/> times.</summary>
    public void CheckError(string message, long count = 1)
    {
        CheckErrorCount += count;
        Note(CheckFindingKind.CheckError, message);
    }

    /// <summary>A cluster's refcount is not the number of references to it.</summary>
    public void RefcountMismatch(long cluster, ulong refcount, ulong references)
    {
        bool isLeak = refcount > references;
        if (isLeak)
            LeakCount++;
        else
            CorruptionCount++;
        // A damaged refcount block can hold millions of these: no text that nobody reads.
        if (options.OnFinding is null && _kept.Count >= options.MaxKeptFindings)
            return;
        string what = isLeak ? "Leaked" : "ERROR";
        Note(isLeak ? CheckFindingKind.Leak : CheckFindingKind.Corruption,
            $"{what} cluster {cluster} refcount={refcount} reference={references}");
    }

    private void Note(CheckFindingKind kind, string message)
    {
        var finding = new CheckFinding(kind, message);
        if (_kept.Count < options.MaxKeptFindings)
            _kept.Add(finding);
        options.OnFinding?.Invoke(finding);
    }
}
