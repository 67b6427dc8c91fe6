using OrleansDisk.Qcow2.Check.Repair;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check;

/// <summary>
/// Judges an image by its bytes alone: counts every reference to every host cluster, compares the counts with the
/// stored refcounts, and tests copied flags, reserved bits, alignment and overlaps. Shares only the codecs with the
/// engine, so that it can judge what the engine wrote.
/// </summary>
public static class ImageCheck
{
    /// <summary>Checks an image without changing it. Memory grows with what is referenced, not with what is claimed.</summary>
    /// <exception cref="Qcow2FormatException">The header, or the snapshot table, can't be read, so there is nothing to check.</exception>
    /// <exception cref="BlockFileException">The file can't be read.</exception>
    public static async Task<CheckReport> RunAsync(IBlockFile file, CheckOptions options)
    {
        Header header = await HeaderReader.ReadForCheckAsync(file);
        var examination = new Examination(file, header, new CheckLog(options));
        await examination.CountAsync();
        await examination.Refcounts.CompareAsync(RepairKinds.None, writer: null);
        await examination.Refcounts.ReportOverlapsAsync();
        await examination.CheckCopiedFlagsAsync();
        return examination.Report();
    }
}
