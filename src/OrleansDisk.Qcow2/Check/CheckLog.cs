using System.Runtime.CompilerServices;

namespace OrleansDisk.Qcow2.Check;

/// <summary>How often each kind of finding was met.</summary>
internal readonly record struct CheckCounts(long Leaks, long Corruptions, long CheckErrors);

/// <summary>Counts findings and repairs, passes them on, and keeps the first of them.</summary>
internal sealed class CheckLog(CheckOptions options)
{
    private readonly List<CheckFinding> _kept = [];

    public IReadOnlyList<CheckFinding> Kept => _kept;

    /// <summary>Whether anybody sees the text of the next finding.</summary>
    public bool IsRead => options.OnFinding is not null || _kept.Count < options.MaxKeptFindings;

    /// <summary>What was found and is not repaired.</summary>
    public CheckCounts Counts { get; set; }

    public long LeaksFixed { get; set; }

    public long CorruptionsFixed { get; set; }

    public void Corruption(string message)
    {
        Counts = Counts with { Corruptions = Counts.Corruptions + 1 };
        Note(CheckFindingKind.Corruption, message);
    }

    public void Corruption([InterpolatedStringHandlerArgument("")] ref FindingText message)
    {
        Counts = Counts with { Corruptions = Counts.Corruptions + 1 };
        if (IsRead)
            Note(CheckFindingKind.Corruption, message.Take());
    }

    /// <summary>A corruption that is repaired, or is not.</summary>
    public void Damage(bool isRepaired, [InterpolatedStringHandlerArgument("")] ref FindingText message)
    {
        if (isRepaired)
            CorruptionsFixed++;
        else
            Counts = Counts with { Corruptions = Counts.Corruptions + 1 };
        if (!IsRead)
            return;
        if (isRepaired)
            Note(CheckFindingKind.Repair, $"Repairing {message.Take()}");
        else
            Note(CheckFindingKind.Corruption, $"ERROR {message.Take()}");
    }

    /// <summary>Something that could not be checked, <paramref name="count"/> times.</summary>
    public void CheckError(string message, long count = 1)
    {
        Counts = Counts with { CheckErrors = Counts.CheckErrors + count };
        Note(CheckFindingKind.CheckError, message);
    }

    /// <summary>What a repair does.</summary>
    public void Progress(string message) => Note(CheckFindingKind.Repair, message);

    /// <summary>A cluster's refcount is not the number of references to it.</summary>
    public void RefcountMismatch(long cluster, ulong refcount, ulong references, bool isRepaired)
    {
        bool isLeak = refcount > references;
        if (isRepaired)
            (LeaksFixed, CorruptionsFixed) = isLeak ? (LeaksFixed + 1, CorruptionsFixed) : (LeaksFixed, CorruptionsFixed + 1);
        else
            Counts = isLeak ? Counts with { Leaks = Counts.Leaks + 1 } : Counts with { Corruptions = Counts.Corruptions + 1 };
        // A damaged refcount block can hold millions of these: no text that nobody reads.
        if (!IsRead)
            return;
        string what = isRepaired ? "Repairing" : isLeak ? "Leaked" : "ERROR";
        CheckFindingKind kind = isRepaired ? CheckFindingKind.Repair : isLeak ? CheckFindingKind.Leak : CheckFindingKind.Corruption;
        Note(kind, $"{what} cluster {cluster} refcount={refcount} reference={references}");
    }

    private void Note(CheckFindingKind kind, string message)
    {
        var finding = new CheckFinding(kind, message);
        if (_kept.Count < options.MaxKeptFindings)
            _kept.Add(finding);
        options.OnFinding?.Invoke(finding);
    }
}
