using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;

namespace OrleansDisk.Cli.Shell;

/// <summary>What the options of a disk become when it is opened again with some of them changed.</summary>
internal static class ReopenOptions
{
    private const string OverlapCheck = "overlap-check";
    private const string TotalCache = "cache-size";
    private const string L2Cache = "l2-cache-size";
    private const string RefcountCache = "refcount-cache-size";

    /// <summary>The new options and of the old ones those that they do not replace.</summary>
    /// <exception cref="CommandFailedException">An option is one that an open disk keeps.</exception>
    public static BlockOptions Join(BlockOptions changed, BlockOptions old)
    {
        if (changed["driver"] is { } driver && driver != (old["driver"] ?? driver))
            throw new CommandFailedException("Cannot change the option 'driver'");
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
}
