using Microsoft.Extensions.Options;
using OrleansDisk.Abstractions;

namespace OrleansDisk.Grains;

/// <summary>Finds the files of images.</summary>
public sealed class Pools
{
    private readonly Dictionary<string, Pool> _pools = new(StringComparer.Ordinal);

    /// <exception cref="ArgumentException">A pool's name or directory can't be; the message names the pool.</exception>
    public Pools(IOptions<ImageGrainOptions> options)
    {
        foreach ((string name, PoolOptions pool) in options.Value.Pools)
        {
            if (ImageKey.WhyNotPoolName(name) is { } reason)
                throw new ArgumentException($"pool '{name}': its name {reason}");
            if (string.IsNullOrEmpty(pool.Directory))
                throw new ArgumentException($"pool '{name}': no directory is given");
            string directory = Path.GetFullPath(pool.Directory);
            if (!Directory.Exists(directory))
                throw new ArgumentException($"pool '{name}': there is no directory '{directory}'");
            _pools.Add(name, new Pool(name, directory, pool.ReadOnly));
        }
    }

    public IEnumerable<string> Names => _pools.Keys;

    /// <summary>The file of an image, which need not exist.</summary>
    /// <exception cref="ImageException"><see cref="SectorError.NotFound"/>: there is no such pool.</exception>
    public ImageFile Find(ImageKey key) => _pools.TryGetValue(key.Pool, out Pool? pool)
        ? new ImageFile(Path.Combine(pool.Directory, key.FileName), pool.IsReadOnly)
        : throw new ImageException(SectorError.NotFound, $"image '{key}': there is no pool '{key.Pool}'");

    /// <summary>The images that a pool holds now, by name.</summary>
    public IReadOnlyList<ImageKey> List(string pool)
    {
        var keys = new List<ImageKey>();
        var files = new DirectoryInfo(_pools[pool].Directory);
        foreach (FileInfo file in files.EnumerateFiles("*" + ImageKey.FileExtension))
        {
            if (ImageKey.OfFile(pool, file.Name) is { } key)
                keys.Add(key);
        }
        keys.Sort((a, b) => string.CompareOrdinal(a.Image, b.Image));
        return keys;
    }

    public bool IsReadOnly(string pool) => _pools[pool].IsReadOnly;

    private sealed record Pool(string Name, string Directory, bool IsReadOnly);
}

/// <summary>Where an image is.</summary>
/// <param name="Path">Absolute path of the file.</param>
/// <param name="IsReadOnly">Whether its pool is only ever read.</param>
public readonly record struct ImageFile(string Path, bool IsReadOnly);
