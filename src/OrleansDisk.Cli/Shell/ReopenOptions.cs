using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Shell;

/// <summary>What the options of a disk become when it is opened again with some of them changed.</summary>
internal static class ReopenOptions
{
    private const string OverlapCheck = "overlap-check";
    private const string TotalCache = "cache-size";
    private const string L2Cache = "l2-cache-size";
    private const string RefcountCache = "refcount-cache-size";

    /// <summary>The new options and of the old ones those that they do not replace.</summary>
    /// <param name="changed">What was given now.</param>
    /// <param name="old">What the disk was opened with.</param>
    /// <param name="disk">The disk, for what was not given then.</param>
    /// <exception cref="CommandFailedException">An option is one that an open disk keeps.</exception>
    public static BlockOptions Join(BlockOptions changed, BlockOptions old, IDiskSource disk)
    {
        RefuseChangeOf("driver", changed, name => old[name] ?? DriverOf(name, disk));
        RefuseChangeOf("node-name", changed, name => old[name]);
        BlockOptions joined = old.Copy();
        joined.Take("read-only");
        if (changed.Has(OverlapCheck) || changed.Has($"{OverlapCheck}.template"))
        {
            joined.Take(OverlapCheck);
            _ = joined.TakeChild(OverlapCheck);
        }
        if (changed.Has(TotalCache))
        {
            joined.Take(L2Cache);
            joined.Take(RefcountCache);
        }
        joined.Merge(changed);
        // Both parts replace a total that was given before; three that are given at once contradict each other.
        bool isContradiction = changed.Has(TotalCache) && changed.Has(L2Cache) && changed.Has(RefcountCache);
        if (!isContradiction && joined.Has(L2Cache) && joined.Has(RefcountCache))
            joined.Take(TotalCache);
        return joined;
    }

    /// <summary>Refuses another value for an option that every node of a disk keeps.</summary>
    private static void RefuseChangeOf(string option, BlockOptions changed, Func<string, string?> valueOf)
    {
        foreach (string name in changed.Names)
        {
            bool isIt = name == option || name.EndsWith($".{option}", StringComparison.Ordinal);
            if (isIt && changed[name] != valueOf(name))
                throw new CommandFailedException($"Cannot change the option '{option}'");
        }
    }

    /// <summary>The driver of a node that was found out.</summary>
    private static string? DriverOf(string name, IDiskSource disk) => name switch
    {
        "driver" => disk.Format,
        "backing.driver" => disk.Backing?.Format,
        _ => "file",
    };
}
