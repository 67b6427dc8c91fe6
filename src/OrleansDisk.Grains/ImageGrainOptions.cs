namespace OrleansDisk.Grains;

/// <summary>Where images are, and how their grains hold them.</summary>
public sealed class ImageGrainOptions
{
    /// <summary>The pools by their names (<see cref="Abstractions.ImageKey.WhyNotPoolName"/>).</summary>
    public Dictionary<string, PoolOptions> Pools { get; } = new(StringComparer.Ordinal);

    /// <summary>How long an image that nobody uses stays open: more than zero.</summary>
    public TimeSpan IdleTime { get; set; } = TimeSpan.FromMinutes(5);

    /// <summary>How long an image may take to write everything back when it closes.</summary>
    public TimeSpan CloseTime { get; set; } = TimeSpan.FromMinutes(5);

    /// <summary>Memory for the L2 tables of one open image, in bytes.</summary>
    public long L2CacheBytes { get; set; } = 32L << 20;

    /// <summary>Memory for the refcount blocks of one open image, in bytes.</summary>
    public long RefcountCacheBytes { get; set; } = 8L << 20;
}

/// <summary>A directory of image files.</summary>
public sealed class PoolOptions
{
    /// <summary>Path of the directory.</summary>
    public string Directory { get; set; } = "";

    /// <summary>Whether its images are only ever read.</summary>
    public bool ReadOnly { get; set; }
}
