using OrleansDisk.Bench.Results;
using OrleansDisk.Bench.Servers;
using OrleansDisk.Bench.Tools;
using OrleansDisk.Bench.Workloads;

namespace OrleansDisk.Bench;

/// <summary>
/// Measures servers in turn: in each round every server once, in an order that moves by one from round to round, and
/// while one is measured the others stand still.
/// </summary>
internal sealed class Comparison(BenchOptions options, Workspace workspace, Images images)
{
    /// <summary>Before the first round: long enough for compiled code to replace what a runtime starts with.</summary>
    private static readonly TimeSpan _firstWarmUp = TimeSpan.FromSeconds(1.5);

    private static readonly TimeSpan _warmUp = TimeSpan.FromSeconds(0.3);

    /// <summary>A server of this workload; it runs from round to round unless every round has a new image.</summary>
    private sealed class Contender(ServerProgram program)
    {
        public ServerProgram Program => program;

        public string? Image { get; set; }

        public RunningServer? Server { get; set; }

        public List<Measurement> Rounds { get; } = [];
    }

    /// <summary>Measures a workload on every server that has what it asks for.</summary>
    public async Task<Row> RunAsync(Workload workload, CancellationToken cancellation)
    {
        List<Contender> contenders = [.. options.Servers.Where(s => s.Supports(workload)).Select(s => new Contender(s))];
        try
        {
            for (int round = 0; round < options.Rounds; round++)
            {
                for (int i = 0; i < contenders.Count; i++)
                {
                    Contender contender = contenders[(i + round) % contenders.Count];
                    contender.Rounds.Add(await MeasureAsync(workload, contender, isFirst: round == 0, cancellation));
                }
            }
        }
        finally
        {
            foreach (Contender contender in contenders)
                await EndAsync(contender);
        }
        if (workload.Writes)
            images.DiscardCopies();
        return new Row(workload, contenders.ToDictionary(c => c.Program.Name, c => Measurement.Median(c.Rounds)));
    }

    private async Task<Measurement> MeasureAsync(Workload workload, Contender contender, bool isFirst, CancellationToken cancellation)
    {
        if (contender.Server is null)
            await StartAsync(workload, contender, cancellation);
        RunningServer server = contender.Server!;
        server.Resume();
        bool isCold = isFirst || workload.Allocates;
        await LoadAsync(workload, server, isCold ? _firstWarmUp : _warmUp, cancellation);
        await PrepareCacheAsync(workload, contender.Image!, cancellation);
        TimeSpan before = server.ProcessorTime;
        LoadResult load = workload.Allocates
            ? await AllocatingLoadAsync(workload, server, cancellation)
            : await LoadAsync(workload, server, options.Time, cancellation);
        TimeSpan used = server.ProcessorTime - before;
        if (workload.Allocates)
        {
            await EndAsync(contender);
            images.Discard(contender.Image!);
        }
        else
        {
            server.Pause();
        }
        return new Measurement(load.Rate, used.TotalMicroseconds / load.Requests);
    }

    private Task<LoadResult> LoadAsync(Workload workload, RunningServer server, TimeSpan time, CancellationToken cancellation) =>
        options.LoadIsLight ? Task.Run(() => LightLoad.ForTime(workload, server.Endpoint, time), cancellation)
            : Fio.ForTimeAsync(workload, server.Uri, time, cancellation);

    private Task<LoadResult> AllocatingLoadAsync(Workload workload, RunningServer server, CancellationToken cancellation) =>
        options.LoadIsLight ? Task.Run(() => LightLoad.Allocating(workload, server.Endpoint), cancellation)
            : Fio.AllocatingAsync(workload, server.Uri, cancellation);

    private async Task StartAsync(Workload workload, Contender contender, CancellationToken cancellation)
    {
        ServerProgram program = contender.Program;
        contender.Image = await images.ForAsync(workload, program.Name, program.IsRaw, cancellation);
        if (workload.Place == Place.DiskHot)
            await Tool.RunAsync("dd", [$"if={contender.Image}", "of=/dev/null", "bs=1M", "status=none"], cancellation);
        Endpoint endpoint = workload.OverTcp ? Endpoint.Tcp() : Endpoint.Unix(Path.Combine(workspace.Memory, program.Name + ".socket"));
        var start = new ServerStart(contender.Image, endpoint, workload.Place == Place.DiskDirect);
        contender.Server = await RunningServer.StartAsync(program, start, cancellation);
    }

    private static async Task PrepareCacheAsync(Workload workload, string image, CancellationToken cancellation)
    {
        if (workload.Place == Place.DiskCold)
            await Workspace.DropCacheAsync(image, cancellation);
        else if (workload.OnDisk)
            await Workspace.WriteBackAsync(Path.GetDirectoryName(image)!, cancellation);
    }

    private static async Task EndAsync(Contender contender)
    {
        if (contender.Server is not null)
            await contender.Server.DisposeAsync();
        contender.Server = null;
    }
}
