using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Diagnosers;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;
using OrleansDisk.MicroBenchmarks;

// In this process: projects that BenchmarkDotNet makes by itself don't know this repository's build.
IConfig config = ManualConfig.Create(DefaultConfig.Instance)
    .AddJob(Job.ShortRun.WithToolchain(InProcessEmitToolchain.Instance))
    .AddDiagnoser(MemoryDiagnoser.Default)
    .WithOptions(ConfigOptions.DisableLogFile | ConfigOptions.JoinSummary)
    .WithArtifactsPath(Path.Combine(Path.GetTempPath(), "odisk-micro"));
string[] filter = args.Length == 0 ? ["--filter", "*"] : args[0].StartsWith('-') ? args : ["--filter", $"*{args[0]}*"];
BenchmarkSwitcher.FromAssembly(typeof(Codecs).Assembly).Run(filter, config);
