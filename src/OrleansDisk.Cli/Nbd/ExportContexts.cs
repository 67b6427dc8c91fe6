using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Exports;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Bitmaps;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Nbd;

/// <summary>Finds what odisk nbd is to tell clients beside base:allocation.</summary>
internal static class ExportContexts
{
    /// <summary>The contexts that were asked for, with bitmaps from wherever in the chain they are; in a turn of the disk.</summary>
    /// <exception cref="CommandFailedException">There is no such bitmap, or it can't be used.</exception>
    public static async Task<IReadOnlyList<DiskContext>> FindAsync(NbdOptions options, IDiskSource top)
    {
        var contexts = new List<DiskContext>();
        if (options.TellsAllocationDepth)
            contexts.Add(new AllocationDepthContext());
        foreach (string bitmap in options.Bitmaps.Distinct())
            contexts.Add(await FindBitmapAsync(bitmap, top));
        return contexts;
    }

    private static async Task<DirtyBitmapContext> FindBitmapAsync(string name, IDiskSource top)
    {
        for (IDiskSource? layer = top; layer is not null; layer = layer.Backing)
        {
            if (layer is not Qcow2Image image)
                continue;
            foreach (BitmapDescription bitmap in await image.ListBitmapsAsync())
            {
                if (bitmap.Name != name)
                    continue;
                if (bitmap.IsInconsistent)
                {
                    throw new CommandFailedException($"Bitmap '{name}' is inconsistent and cannot be used\n"
                        + "Try block-dirty-bitmap-remove to delete this bitmap from disk");
                }
                return new DirtyBitmapContext(name, image);
            }
        }
        throw new CommandFailedException($"Bitmap '{name}' is not found");
    }
}
