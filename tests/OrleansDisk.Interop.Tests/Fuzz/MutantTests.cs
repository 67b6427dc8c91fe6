using System.Globalization;
using Xunit.Abstractions;

namespace OrleansDisk.Interop.Tests.Fuzz;

/// <summary>
/// Structure-aware mutants of images of every variant: each opens or is refused, and whatever is then asked of it ends in
/// success or a named error, in bounded work and memory, with the metadata out of the guest's reach.
/// </summary>
[Collection(MeasuredMemory.Name)]
public sealed class MutantTests(Corpus corpus, ITestOutputHelper output) : IClassFixture<Corpus>
{
    private const long MaxMemoryBytes = 256L << 20;
    private const int DefaultCount = 5000;

    [Fact]
    public async Task Mutants_of_every_variant_end_in_success_or_a_named_error()
    {
        MutantFile.MemoryLimitBytes = GC.GetTotalMemory(forceFullCollection: true) + MaxMemoryBytes;
        int first = Number("ODISK_FUZZ_SEED", 1);
        int count = Environment.GetEnvironmentVariable("ODISK_FUZZ_SEED") is null ? Number("ODISK_FUZZ_MUTANTS", DefaultCount)
            : Number("ODISK_FUZZ_MUTANTS", 1);
        var failures = new List<string>();
        int isChecked = 0, consistent = 0, written = 0;
        (TimeSpan Time, int Seed) slowest = default;
        for (int seed = first; seed < first + count && failures.Count < 20; seed++)
        {
            CorpusImage image = corpus.Images[seed % corpus.Images.Count];
            Mutant mutant = Mutator.Mutate(image, new Random(seed));
            var pass = new MutantPass(image.Path, mutant.Bytes, seed);
            long start = TimeProvider.System.GetTimestamp();
            string? failure = await FailureOfAsync(pass);
            if (count == 1)
                output.WriteLine(Describe(seed, image, mutant, failure ?? "no failure"));
            TimeSpan time = TimeProvider.System.GetElapsedTime(start);
            if (time > slowest.Time)
                slowest = (time, seed);
            if (failure is not null)
                failures.Add(Describe(seed, image, mutant, failure));
            isChecked += pass.WasChecked ? 1 : 0;
            consistent += pass.WasConsistent ? 1 : 0;
            written += pass.WasWritten ? 1 : 0;
        }
        output.WriteLine($"{count} mutants from seed {first}: {isChecked} checked, {consistent} found consistent, {written} "
            + $"written; slowest: seed {slowest.Seed}, {slowest.Time.TotalMilliseconds:f0} ms");
        Assert.True(failures.Count == 0, string.Join("\n\n", failures));
        if (count >= DefaultCount)
            Assert.True(isChecked > count / 2 && written > count / 4, "too few mutants got far enough to matter");
    }

    private static async Task<string?> FailureOfAsync(MutantPass pass)
    {
        try
        {
            await Exclusive.Run(pass.RunAsync);
            return null;
        }
        catch (Exception e)
        {
            return e.ToString();
        }
    }

    private static string Describe(int seed, CorpusImage image, Mutant mutant, string failure) =>
        $"seed {seed}: {image.Name}\n  {string.Join("\n  ", mutant.Mutations)}\n  again: ODISK_FUZZ_SEED={seed} "
        + $"dotnet test tests/OrleansDisk.Interop.Tests --filter MutantTests\n{failure}";

    private static int Number(string variable, int otherwise) =>
        Environment.GetEnvironmentVariable(variable) is { } text ? int.Parse(text, CultureInfo.InvariantCulture) : otherwise;
}
