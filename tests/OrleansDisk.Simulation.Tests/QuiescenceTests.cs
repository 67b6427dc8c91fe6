using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Operations;
using OrleansDisk.Simulation.Host;

namespace OrleansDisk.Simulation.Tests;

/// <summary>A freed cluster is not reused while a request is under way that saw it in use (docs/consistency.md, W5).</summary>
public sealed class QuiescenceTests
{
    private const int ClusterBytes = 4096;

    [Fact]
    public void A_read_under_way_never_sees_what_is_written_into_its_freed_cluster() => Run(async (image, file) =>
    {
        byte[] first = Filled(1);
        await image.WriteAsync(0, first);
        long host = await HostOffsetAsync(image, 0);
        var hold = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        file.Reading = offset => offset == host ? hold.Task : Task.CompletedTask;
        byte[] seen = new byte[ClusterBytes];
        Task read = image.ReadAsync(0, seen).AsTask();

        await image.DiscardAsync(0, ClusterBytes);
        await image.FlushAsync();
        await image.WriteAsync(8 * ClusterBytes, Filled(2));
        Assert.NotEqual(host, await HostOffsetAsync(image, 8 * ClusterBytes));
        hold.SetResult();
        await read;

        Assert.Equal(first, seen);
    });

    [Fact]
    public void A_freed_cluster_is_reused_once_the_last_read_of_it_has_ended() => Run(async (image, _) =>
    {
        await image.WriteAsync(0, Filled(1));
        long host = await HostOffsetAsync(image, 0);
        await image.DiscardAsync(0, ClusterBytes);
        await image.FlushAsync();
        // Release runs behind the flush; another flush gives it time to end.
        await image.FlushAsync();
        await image.WriteAsync(8 * ClusterBytes, Filled(2));
        while (await HostOffsetAsync(image, 8 * ClusterBytes) != host)
        {
            await image.DiscardAsync(8 * ClusterBytes, ClusterBytes);
            await image.FlushAsync();
            await image.WriteAsync(8 * ClusterBytes, Filled(2));
        }
    });

    private static void Run(Func<Qcow2Image, SimulatedFile, Task> scenario) => Scenario.Run(
        new CreateOptions { VirtualBytes = 1 << 20, ClusterBytes = ClusterBytes }, cachedTables: 16, scenario);

    private static byte[] Filled(byte value)
    {
        byte[] bytes = new byte[ClusterBytes];
        bytes.AsSpan().Fill(value);
        return bytes;
    }

    private static async Task<long> HostOffsetAsync(Qcow2Image image, long offset)
    {
        DiskExtent extent = await image.GetExtentAsync(offset, 1);
        return extent.HostOffset ?? -1;
    }
}
