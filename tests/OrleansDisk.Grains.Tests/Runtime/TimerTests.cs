namespace OrleansDisk.Grains.Tests.Runtime;

/// <summary>Grain timers, whichever runtime the build has.</summary>
public sealed class TimerTests(RunningSilo silo) : IClassFixture<RunningSilo>
{
    private readonly Journal _journal = silo.Journal;

    [Fact]
    public async Task Ticks_are_turns_on_the_scheduler_of_the_grain()
    {
        var grain = silo.Grains.GetGrain<ITimerGrain>("ticking");
        await grain.StartTimer("turn", interleave: false, failures: 0);
        await _journal.When("turn tick 3");
        await grain.StopTimer();
        Assert.All(_journal.Read("turn"), entry => Assert.DoesNotContain("off its scheduler", entry, StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_tick_waits_for_the_running_request_unless_it_interleaves()
    {
        var grain = silo.Grains.GetGrain<ITimerGrain>("waiting");
        Task hold = grain.Hold("timer hold");
        await _journal.When("timer hold begins");
        Task polite = grain.StartTimer("polite", interleave: false, failures: 0);
        _journal.Signal("release timer hold");
        await Task.WhenAll(hold, polite);

        await grain.StartTimer("interleaved", interleave: true, failures: 0);
        hold = grain.Hold("long hold");
        await _journal.When("long hold begins");
        int politeTicks = _journal.Read("polite tick").Length;
        int interleavedTicks = _journal.Read("interleaved tick").Length;
        await _journal.When($"interleaved tick {interleavedTicks + 5}");
        Assert.Equal(politeTicks, _journal.Read("polite tick").Length);
        _journal.Signal("release long hold");
        await hold;
        await _journal.When($"polite tick {politeTicks + 1}");
        await grain.Retire();
    }

    [Fact]
    public async Task A_tick_that_throws_is_followed_by_the_next()
    {
        var grain = silo.Grains.GetGrain<ITimerGrain>("failing");
        await grain.StartTimer("failing", interleave: false, failures: 2);
        await _journal.When("failing tick 4");
        await grain.StopTimer();
    }

    [Fact]
    public async Task A_timer_ends_with_its_activation()
    {
        var grain = silo.Grains.GetGrain<ITimerGrain>("ending");
        await grain.StartTimer("ending old", interleave: false, failures: 0);
        await _journal.When("ending old tick 2");
        await grain.Retire();
        await _journal.When("ending deactivated");
        await grain.StartTimer("ending new", interleave: false, failures: 0);
        await _journal.When("ending new tick 5");
        await grain.StopTimer();
        string[] entries = _journal.Read("ending");
        Assert.All(entries[Array.IndexOf(entries, "ending deactivated")..],
            entry => Assert.DoesNotContain("old", entry, StringComparison.Ordinal));
    }
}
