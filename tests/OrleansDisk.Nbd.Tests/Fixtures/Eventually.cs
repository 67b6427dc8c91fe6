namespace OrleansDisk.Nbd.Tests.Fixtures;

/// <summary>Waits for a condition that another thread brings about.</summary>
internal static class Eventually
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    public static async Task IsTrueAsync(Func<bool> condition)
    {
        long start = TimeProvider.System.GetTimestamp();
        while (!condition())
        {
            Assert.True(TimeProvider.System.GetElapsedTime(start) < Patience, "the condition did not come about");
            await Task.Yield();
        }
    }
}
