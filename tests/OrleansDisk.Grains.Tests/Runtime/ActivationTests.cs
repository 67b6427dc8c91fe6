using Orleans.Configuration;

namespace OrleansDisk.Grains.Tests.Runtime;

/// <summary>How activations come and go, whichever runtime the build has.</summary>
public sealed class ActivationTests(RunningSilo silo) : IClassFixture<RunningSilo>
{
    private readonly Journal _journal = silo.Journal;

    [Fact]
    public async Task A_failed_activation_is_the_callers_exception_and_the_next_call_tries_anew()
    {
        var grain = silo.Grains.GetGrain<ISerialTurnGrain>("fragile");
        _journal.Refusals["fragile"] = new InvalidDataException("not today");
        var refused = await Assert.ThrowsAsync<InvalidDataException>(() => grain.Record("never"));
        Assert.Equal("not today", refused.Message);
        Assert.Empty(_journal.Read("fragile"));
        await grain.Record("now");
        Assert.Single(_journal.Read("fragile activated"));
    }

    [Fact]
    public async Task A_retired_activation_is_followed_by_another()
    {
        var grain = silo.Grains.GetGrain<ISerialTurnGrain>("retiring");
        string first = await grain.Record("first");
        await grain.Retire();
        string second = await grain.Record("second");
        Assert.NotEqual(first, second);
        Assert.Equal(["retiring activated", "retiring deactivating: ApplicationRequested", "retiring deactivated",
            "retiring activated"], _journal.Read("retiring").Where(entry => !entry.Contains('@', StringComparison.Ordinal)));
    }

    [Fact]
    public async Task The_next_activation_starts_only_after_the_last_has_ended()
    {
        var grain = silo.Grains.GetGrain<ISerialTurnGrain>("slow");
        await grain.Record("slow begins");
        await grain.Retire();
        await _journal.When("slow deactivating: ApplicationRequested");
        Task<string>[] calls = [.. Enumerable.Range(0, 10).Select(_ => grain.Record("slow goes on"))];
        _journal.Signal("release slow");
        Assert.Single((await Task.WhenAll(calls)).Distinct());
        string[] entries = [.. _journal.Read("slow").Where(entry => !entry.Contains('@', StringComparison.Ordinal))];
        Assert.Equal(["slow activated", "slow begins", "slow deactivating: ApplicationRequested", "slow deactivated",
            "slow activated", .. Enumerable.Repeat("slow goes on", 10)], entries);
    }

    [Fact]
    public async Task An_activation_retires_only_when_its_running_requests_have_ended()
    {
        var grain = silo.Grains.GetGrain<IReentrantTurnGrain>("patient");
        Task hold = grain.Hold("patient hold");
        await _journal.When("patient hold begins");
        await grain.Retire();
        Task next = grain.Record("patient next");
        Assert.Empty(_journal.Read("patient deactivating"));
        _journal.Signal("release patient hold");
        await Task.WhenAll(hold, next);
        Assert.Equal(["patient activated", "patient hold begins", "patient hold ends",
            "patient deactivating: ApplicationRequested", "patient deactivated", "patient activated", "patient next"],
            _journal.Read("patient").Where(entry => !entry.Contains('@', StringComparison.Ordinal)));
    }

    [Fact]
    public async Task Calls_among_retirements_are_all_answered_and_activations_never_coexist()
    {
        var restless = new ForwardingSilo();
        await restless.InitializeAsync();
        string[][] names = await Task.WhenAll(Enumerable.Range(0, 8).Select(caller => Task.Run(async () =>
        {
            var grain = restless.Grains.GetGrain<ISerialTurnGrain>("restless");
            var answers = new List<string>();
            for (int i = 0; i < 100; i++)
            {
                answers.Add(await grain.Record("restless call"));
                if (i % 10 == caller)
                    await grain.Retire();
            }
            return answers.ToArray();
        })));
        Assert.Equal(800, restless.Journal.Read("restless call").Length);
        Assert.True(names.SelectMany(each => each).Distinct().Count() > 1);
        string[] turns = [.. restless.Journal.Read("restless ").Where(entry => entry is "restless activated" or "restless deactivated")];
        Assert.All(turns.Index(), turn =>
            Assert.Equal(turn.Index % 2 == 0 ? "restless activated" : "restless deactivated", turn.Item));
        await restless.DisposeAsync();
    }

    [Fact]
    public async Task The_silo_deactivates_its_grains_when_it_stops()
    {
        var stopping = new RunningSilo();
        await stopping.InitializeAsync();
        for (int i = 0; i < 3; i++)
            await stopping.Grains.GetGrain<ISerialTurnGrain>($"stopping {i}").Record("used");
        await stopping.StopAsync();
        Assert.All(Enumerable.Range(0, 3), i => Assert.Equal(
            [$"stopping {i} deactivating: ShuttingDown", $"stopping {i} deactivated"],
            stopping.Journal.Read($"stopping {i} deactivat")));
        await stopping.DisposeAsync();
    }

    [Fact]
    public async Task An_idle_activation_is_collected_after_its_age()
    {
        await using var collecting = new CollectingSilo();
        await collecting.InitializeAsync();
        var grain = collecting.Grains.GetGrain<ISerialTurnGrain>("idle");
        string first = await grain.Record("used");
        await collecting.Journal.When("idle deactivated");
        Assert.Equal(["idle deactivating: ActivationIdle"], collecting.Journal.Read("idle deactivating"));
        Assert.NotEqual(first, await grain.Record("used again"));
    }

    private sealed class ForwardingSilo() : RunningSilo(silo =>
        silo.Configure<SiloMessagingOptions>(options => options.MaxForwardCount = 255));

    private sealed class CollectingSilo() : RunningSilo(silo => silo.Configure<GrainCollectionOptions>(options =>
    {
        options.CollectionQuantum = TimeSpan.FromMilliseconds(50);
        options.CollectionAge = TimeSpan.FromMilliseconds(200);
    })), IAsyncDisposable
    {
        async ValueTask IAsyncDisposable.DisposeAsync() => await DisposeAsync();
    }
}
