using OrleansDisk.Abstractions;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Grains;

/// <summary>Makes the file of a new image.</summary>
internal static class ImageCreation
{
    /// <summary>
    /// The file gets its name when it is complete: a create that is interrupted leaves nothing that looks like an
    /// image of the pool.
    /// </summary>
    public static async Task RunAsync(Pools pools, ImageKey key, string path, CreateImage what)
    {
        string? backing = what.Backing is { } name ? BackingFile(pools, key, ImageKey.Parse(name)) : null;
        var options = new CreateOptions
        {
            VirtualBytes = what.VirtualBytes,
            Version = what.Version,
            ClusterBytes = what.ClusterBytes,
            RefcountBits = what.RefcountBits,
            Preallocation = what.PreallocateMetadata ? Preallocation.Metadata : Preallocation.Off,
            BackingFile = backing,
            BackingFormat = backing is null ? null : "qcow2",
        };
        options.Validate();
        string unfinished = Path.Combine(Path.GetDirectoryName(path)!, $".{Guid.NewGuid():n}.unfinished");
        try
        {
            await using (var file = LocalBlockFile.Create(unfinished))
                await CreateOperation.CreateAsync(file, options);
            File.Move(unfinished, path, overwrite: false);
        }
        finally
        {
            File.Delete(unfinished);
        }
    }

    /// <summary>How the new image names the one below it: so that a pool can be moved as a whole.</summary>
    private static string BackingFile(Pools pools, ImageKey key, ImageKey backing)
    {
        ImageFile file = pools.Find(backing);
        if (backing == key || !File.Exists(file.Path))
            throw new ImageException(SectorError.NotFound, $"image '{key}': its backing image '{backing}' does not exist");
        return backing.Pool == key.Pool ? backing.FileName : file.Path;
    }
}
