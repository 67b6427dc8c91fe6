using System.Diagnostics;

namespace OrleansDisk.Grains.Tests.Fixtures;

/// <summary>Waits for what happens in its own time.</summary>
internal static class Eventually
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    public static async Task TrueAsync(Func<bool> condition, string what)
    {
        for (var watch = Stopwatch.StartNew(); !condition();)
        {
            Assert.True(watch.Elapsed < Patience, $"after {Patience.TotalSeconds} s it is not so that {what}");
            await Task.Delay(5);
        }
    }
}
