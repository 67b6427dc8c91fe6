using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Bitmaps;

namespace OrleansDisk.Cli.Commands;

/// <summary>The bitmaps that a convert command takes along.</summary>
internal sealed class BitmapCopy
{
    private readonly Qcow2Image _source;
    private readonly IReadOnlyList<BitmapDescription> _bitmaps;

    private BitmapCopy(Qcow2Image source, IReadOnlyList<BitmapDescription> bitmaps) => (_source, _bitmaps) = (source, bitmaps);

    /// <summary>Looks at the source's bitmaps before anything is copied.</summary>
    /// <param name="disk">The source.</param>
    /// <param name="skipsBroken">Whether those that are inconsistent are left out.</param>
    /// <exception cref="CommandFailedException">The source can't have bitmaps, or one that must not be left out is inconsistent.</exception>
    public static async Task<BitmapCopy> OfAsync(OpenedDisk disk, bool skipsBroken)
    {
        if (disk.Source is not Qcow2Image { Header.Version: >= 3 } image)
            throw new CommandFailedException("Source lacks bitmap support");
        IReadOnlyList<BitmapDescription> bitmaps = await image.ListBitmapsAsync();
        BitmapDescription broken = bitmaps.LastOrDefault(bitmap => bitmap.IsInconsistent);
        if (broken.IsInconsistent && !skipsBroken)
        {
            throw new CommandFailedException($"Cannot copy inconsistent bitmap '{broken.Name}'\n"
                + $"Try --skip-broken-bitmaps, or use '{ProgramName.Value} bitmap --remove' to delete it");
        }
        return new BitmapCopy(image, bitmaps);
    }

    /// <exception cref="CommandFailedException">The target can't have bitmaps.</exception>
    public static void EnsureFits(OpenedDisk target)
    {
        if (target.Source is not Qcow2Image { Header.Version: >= 3 })
            throw new CommandFailedException($"Format driver '{target.Source.Format}' does not support bitmaps");
    }

    /// <summary>Copies them.</summary>
    /// <exception cref="Qcow2Exception">One can't be had; then there is none.</exception>
    public async Task RunAsync(OpenedDisk target)
    {
        // qemu-img goes from the last one to the first.
        foreach (BitmapDescription broken in _bitmaps.Where(bitmap => bitmap.IsInconsistent).Reverse())
            Terminal.Warn($"Skipping inconsistent bitmap '{broken.Name}'");
        await ((Qcow2Image)target.Source).CopyBitmapsAsync(_source, [.. _bitmaps.Where(bitmap => !bitmap.IsInconsistent).Select(bitmap => bitmap.Name)]);
    }
}
