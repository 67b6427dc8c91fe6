using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;
using OrleansDisk.Simulation.Host;

namespace OrleansDisk.Simulation.Tests;

/// <summary>A story on one image on a simulated disk, told step by step.</summary>
internal static class Scenario
{
    private const string Name = "image.qcow2";

    /// <summary>Runs a story on a new image, which is closed at its end.</summary>
    public static void Run(CreateOptions create, int cachedTables, Func<Qcow2Image, SimulatedFile, Task> story)
    {
        var random = new Random(1);
        var scheduler = new SeededScheduler(random);
        var host = new SimulatedHost(scheduler, random) { [Name] = new SimulatedDisk([]) };
        scheduler.Run(async () =>
        {
            await using (SimulatedFile empty = Open(host))
                await CreateOperation.CreateAsync(empty, create);
            SimulatedFile file = Open(host);
            var options = new Qcow2OpenOptions
            {
                Access = ImageAccess.Write,
                L2CacheBytes = cachedTables * Math.Min(create.ClusterBytes, ClusterGeometry.MaxL2SliceBytes),
                RefcountCacheBytes = cachedTables * create.ClusterBytes,
            };
            await using Qcow2Image image = await Qcow2Image.OpenAsync(file, options);
            file.Events.Follow(image.Map, image.Header, _ => false);
            await story(image, file);
        });
    }

    private static SimulatedFile Open(SimulatedHost host) => host.Open(Name, ImageAccess.Write, new FaultPlan([]), canPunchHoles: true);
}
