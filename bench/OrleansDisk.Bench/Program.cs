using System.Runtime.InteropServices;
using OrleansDisk.Bench;
using OrleansDisk.Bench.Tools;
using OrleansDisk.Bench.Workloads;

using var ended = new CancellationTokenSource();
using PosixSignalRegistration interrupt = EndOn(PosixSignal.SIGINT);
using PosixSignalRegistration terminate = EndOn(PosixSignal.SIGTERM);
using PosixSignalRegistration hangUp = EndOn(PosixSignal.SIGHUP);
try
{
    if (args.Any(a => a is "--help" or "-h"))
    {
        Console.WriteLine(BenchOptions.Usage);
        return 0;
    }
    var options = BenchOptions.Parse(args);
    if (options.Lists)
    {
        foreach (Workload workload in options.Workloads)
            Console.WriteLine($"{workload.Key,-30}{workload.Name}");
        return 0;
    }
    Requirements.Check();
    await using var workspace = new Workspace(options.Directory);
    if (options.Verb == "memory")
        return await new MemoryBench(options, workspace).RunAsync(ended.Token);
    if (options.Verb == "tools")
        return await new ToolBench(options, workspace).RunAsync(ended.Token);
    return await new Run(options, workspace).ExecuteAsync(ended.Token);
}
catch (BenchException e)
{
    Console.Error.WriteLine($"bench: {e.Message}");
    return 1;
}
catch (OperationCanceledException)
{
    Console.Error.WriteLine("bench: interrupted");
    return 130;
}

// Processes, mounts and files are cleaned up on the way out.
PosixSignalRegistration EndOn(PosixSignal signal) => PosixSignalRegistration.Create(signal, context =>
{
    context.Cancel = true;
    ended.Cancel();
});
