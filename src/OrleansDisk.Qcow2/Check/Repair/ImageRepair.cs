using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Check.Repair;

/// <summary>
/// Repairs what a check finds, as qemu-img check -r does: leaked clusters, wrong refcounts and copied flags, space kept for
/// zeros where none can be, a refcount structure that is beyond use, a snapshot table that is. It reports in QEMU's words.
/// Whenever it is interrupted, no guest data is lost and a second repair finishes the work.
/// </summary>
public static class ImageRepair
{
    /// <summary>Repairs an image that nobody else has open.</summary>
    /// <exception cref="RepairFailedException">The findings say that it takes more than was asked for.</exception>
    /// <exception cref="Qcow2FormatException">The header can't be read.</exception>
    /// <exception cref="BlockFileException">Reading or writing failed; repair it again.</exception>
    public static async Task<RepairReport> RunAsync(IBlockFile file, RepairKinds kinds, CheckOptions options)
    {
        Header header = await HeaderReader.ReadForCheckAsync(file);
        var log = new CheckLog(options);
        CheckReport report = await new RepairRun(file, header, kinds, log).RunAsync();
        return new RepairReport(log.LeaksFixed, log.CorruptionsFixed, report);
    }
}
