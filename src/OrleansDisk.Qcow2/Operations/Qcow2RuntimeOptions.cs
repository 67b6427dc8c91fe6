namespace OrleansDisk.Qcow2.Operations;

/// <summary>The options by which QEMU opens a qcow2 image, by their names there: cache sizes, discards, overlap checks.</summary>
public static class Qcow2RuntimeOptions
{
    private const string OverlapCheck = "overlap-check";
    private const string OverlapTemplate = "overlap-check.template";

    private static readonly (string Name, OverlapChecks Check)[] _overlapChecks =
    [
        ("main-header", OverlapChecks.MainHeader), ("active-l1", OverlapChecks.ActiveL1), ("active-l2", OverlapChecks.ActiveL2),
        ("refcount-table", OverlapChecks.RefcountTable), ("refcount-block", OverlapChecks.RefcountBlock),
        ("snapshot-table", OverlapChecks.SnapshotTable), ("inactive-l1", OverlapChecks.InactiveL1),
        ("inactive-l2", OverlapChecks.InactiveL2), ("bitmap-directory", OverlapChecks.BitmapDirectory),
    ];

    private static readonly string[] _otherNames =
    [
        "lazy-refcounts", "pass-discard-request", "pass-discard-snapshot", "pass-discard-other", "discard-no-unref", OverlapCheck, OverlapTemplate,
        "cache-size", "l2-cache-size", "l2-cache-entry-size", "refcount-cache-size", "cache-clean-interval",
    ];

    /// <summary>The names that <see cref="Parse(IReadOnlyDictionary{string, string})"/> knows.</summary>
    public static IReadOnlySet<string> Names { get; } =
        _otherNames.Concat(_overlapChecks.Select(row => $"{OverlapCheck}.{row.Name}")).ToHashSet(StringComparer.Ordinal);

    /// <summary>Reads options; what is not given is as <see cref="Qcow2OpenOptions"/> has it.</summary>
    /// <exception cref="Qcow2Exception">A name is unknown or a value means nothing, in QEMU's words.</exception>
    public static Qcow2OpenOptions Parse(IReadOnlyDictionary<string, string> values) => Parse(values, new Qcow2OpenOptions());

    /// <summary>Reads options; what is not given is as in <paramref name="defaults"/>.</summary>
    /// <exception cref="Qcow2Exception">A name is unknown or a value means nothing, in QEMU's words.</exception>
    public static Qcow2OpenOptions Parse(IReadOnlyDictionary<string, string> values, Qcow2OpenOptions defaults)
    {
        if (values.Keys.FirstOrDefault(name => !Names.Contains(name)) is { } unknown)
            throw new Qcow2Exception($"Block format 'qcow2' does not support the option '{unknown}'");
        return defaults with
        {
            CacheBytes = OptionValue.Size(values, "cache-size") ?? defaults.CacheBytes,
            L2CacheBytes = OptionValue.Size(values, "l2-cache-size") ?? defaults.L2CacheBytes,
            RefcountCacheBytes = OptionValue.Size(values, "refcount-cache-size") ?? defaults.RefcountCacheBytes,
            L2CacheEntryBytes = OptionValue.Size(values, "l2-cache-entry-size") ?? defaults.L2CacheEntryBytes,
            CacheCleanInterval = ParseCleanInterval(values) ?? defaults.CacheCleanInterval,
            LazyRefcounts = OptionValue.Switch(values, "lazy-refcounts") ?? defaults.LazyRefcounts,
            OverlapChecks = ParseOverlapChecks(values, defaults.OverlapChecks),
            PassDiscard = OptionValue.Switch(values, "pass-discard-request") ?? defaults.PassDiscard,
            PassDiscardOfSnapshots = OptionValue.Switch(values, "pass-discard-snapshot") ?? defaults.PassDiscardOfSnapshots,
            PassDiscardOfOthers = OptionValue.Switch(values, "pass-discard-other") ?? defaults.PassDiscardOfOthers,
            KeepDiscardedClusters = OptionValue.Switch(values, "discard-no-unref") ?? defaults.KeepDiscardedClusters,
        };
    }

    private static TimeSpan? ParseCleanInterval(IReadOnlyDictionary<string, string> values) =>
        OptionValue.Number(values, "cache-clean-interval") switch
        {
            null => null,
            > uint.MaxValue => throw new Qcow2Exception("Cache clean interval too big"),
            { } seconds => TimeSpan.FromSeconds(seconds),
        };

    private static OverlapChecks ParseOverlapChecks(IReadOnlyDictionary<string, string> values, OverlapChecks defaults)
    {
        string? template = values.GetValueOrDefault(OverlapTemplate);
        string? plain = values.GetValueOrDefault(OverlapCheck);
        if (template is not null && plain is not null && template != plain)
        {
            throw new Qcow2Exception(
                $"Conflicting values for qcow2 options '{OverlapCheck}' ('{plain}') and '{OverlapTemplate}' ('{template}')");
        }
        OverlapChecks checks = (plain ?? template) switch
        {
            null => defaults,
            "none" => OverlapChecks.None,
            "constant" => OverlapChecks.Constant,
            "cached" => OverlapChecks.Cached,
            "all" => OverlapChecks.All,
            { } other => throw new Qcow2Exception($"Unsupported value '{other}' for qcow2 option '{OverlapCheck}'. "
                + "Allowed are any of the following: none, constant, cached, all"),
        };
        foreach ((string name, OverlapChecks check) in _overlapChecks)
        {
            if (OptionValue.Switch(values, $"{OverlapCheck}.{name}") is { } isOn)
                checks = isOn ? checks | check : checks & ~check;
        }
        return checks;
    }
}
