using System.Buffers.Binary;
using OrleansDisk.Qcow2.Check;

namespace OrleansDisk.Interop.Tests.Fuzz;

/// <summary>Damage of which there is more than anybody reads.</summary>
[Collection(MeasuredMemory.Name)]
public sealed class ManyFindingsTests : IDisposable
{
    private const int ClusterBytes = 64 << 10;
    private const int L2Table = 4 * ClusterBytes;
    private const ulong DataCluster = 5 * ClusterBytes;
    private readonly BadImage _image = new();

    public void Dispose() => _image.Dispose();

    /// <summary>Mutant 116828: a table all of whose entries lead to one cluster.</summary>
    [Fact]
    public async Task A_table_of_damage_is_counted_entry_by_entry_without_a_text_for_each()
    {
        byte[] bytes = File.ReadAllBytes(_image.Make());
        for (int at = L2Table; at < L2Table + ClusterBytes; at += sizeof(ulong))
            BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(at), DataCluster);
        var silent = new CheckOptions { MaxKeptFindings = 3 };
        long textBytes = 0;
        var read = new CheckOptions { OnFinding = finding => textBytes += finding.Message.Length * sizeof(char) };

        (CheckReport report, long silentBytes) = await MeasureAsync(silent);
        (_, long readBytes) = await MeasureAsync(read);
        Assert.True(report.CorruptionCount >= ClusterBytes / sizeof(ulong), $"{report.CorruptionCount} findings");
        Assert.Equal(silent.MaxKeptFindings, report.Findings.Count);
        Assert.True(silentBytes + textBytes < readBytes, $"{silentBytes} bytes for a check that nobody reads, {readBytes} for one with {textBytes} bytes of text");

        async Task<(CheckReport Report, long Bytes)> MeasureAsync(CheckOptions options)
        {
            await ImageCheck.RunAsync(new MutantFile("damaged", bytes, isReadOnly: true), options);
            textBytes = 0;
            // A file in memory answers at once: all runs on this thread.
            long before = GC.GetAllocatedBytesForCurrentThread();
            CheckReport report = await ImageCheck.RunAsync(new MutantFile("damaged", bytes, isReadOnly: true), options);
            return (report, GC.GetAllocatedBytesForCurrentThread() - before);
        }
    }
}
