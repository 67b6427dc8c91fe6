namespace OrleansDisk.Grains.Tests.Runtime;

/// <summary>Requests and turns of a grain, whichever runtime the build has.</summary>
public sealed class TurnTests(RunningSilo silo) : IClassFixture<RunningSilo>
{
    private readonly Journal _journal = silo.Journal;

    [Fact]
    public async Task Turns_of_a_reentrant_grain_never_overlap_across_awaits()
    {
        ITurnGrain grain = silo.Grains.GetGrain<IReentrantTurnGrain>("unguarded");
        int[] overlaps = await Task.WhenAll(Enumerable.Range(0, 16).Select(_ => Task.Run(() => grain.Increment(2000))));
        Assert.Equal(0, overlaps.Sum());
        Assert.Equal(16 * 2000, await grain.Count());
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task An_await_returns_to_the_scheduler_of_the_grain(bool reentrant) =>
        Assert.True(await Turn("scheduler", reentrant).ReturnsToItsScheduler());

    [Fact]
    public async Task Requests_of_a_grain_that_is_not_reentrant_run_one_after_the_other_in_order()
    {
        ITurnGrain grain = Turn("fifo", reentrant: false);
        await grain.Record("fifo warm");
        var calls = new List<Task> { grain.Hold("fifo hold") };
        await _journal.When("fifo hold begins");
        calls.AddRange(Enumerable.Range(0, 50).Select(i => grain.Record($"fifo {i:00}")));
        _journal.Signal("release fifo hold");
        await Task.WhenAll(calls);
        Assert.Equal(["fifo warm", "fifo hold begins", "fifo hold ends", .. Enumerable.Range(0, 50).Select(i => $"fifo {i:00}")],
            _journal.Read("fifo").Where(entry => !entry.Contains("activated", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task Requests_of_a_reentrant_grain_interleave()
    {
        ITurnGrain grain = Turn("interleave", reentrant: true);
        Task hold = grain.Hold("open");
        await _journal.When("open begins");
        await grain.Record("meanwhile");
        Assert.False(hold.IsCompleted);
        _journal.Signal("release open");
        await hold;
    }

    [Fact]
    public async Task A_method_marked_so_interleaves_in_a_grain_that_is_not_reentrant()
    {
        ITurnGrain grain = Turn("always", reentrant: false);
        Task hold = grain.Hold("closed");
        await _journal.When("closed begins");
        Task queued = grain.Record("queued");
        await grain.RecordInterleaved("overtaking");
        Assert.DoesNotContain("queued", _journal.Read("queued"));
        _journal.Signal("release closed");
        await Task.WhenAll(hold, queued);
    }

    [Fact]
    public async Task Many_callers_at_once_meet_one_activation()
    {
        for (int round = 0; round < 20; round++)
        {
            string key = $"race {round}";
            var start = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            Task<string>[] calls = [.. Enumerable.Range(0, 64).Select(async _ =>
            {
                await start.Task;
                return await silo.Grains.GetGrain<ISerialTurnGrain>(key).Record("raced");
            })];
            start.SetResult();
            Assert.Single((await Task.WhenAll(calls)).Distinct());
            Assert.Single(_journal.Read($"{key} activated"));
        }
    }

    [Fact]
    public async Task An_exception_reaches_the_caller_and_the_grain_goes_on()
    {
        ITurnGrain grain = Turn("throws", reentrant: false);
        var late = await Assert.ThrowsAsync<InvalidDataException>(() => grain.Throw("after an await"));
        Assert.Equal("after an await", late.Message);
        var early = await Assert.ThrowsAsync<InvalidDataException>(async () => await grain.ThrowBeforeAwait("at once"));
        Assert.Equal("at once", early.Message);
        Assert.Equal(0, await grain.Count());
    }

    [Fact]
    public async Task A_cancellation_reaches_the_grain_and_the_caller_does_not_wait_for_it()
    {
        using var cancellation = new CancellationTokenSource();
        Task call = Turn("cancelled", reentrant: false).WaitUntilCancelled(cancellation.Token);
        await _journal.When("waits for cancellation");
        await cancellation.CancelAsync();
        await _journal.When("was cancelled");
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => call); // the grain has not ended it
        _journal.Write("nobody waits");
    }

    [Fact]
    public void A_grain_needs_a_key() =>
        Assert.ThrowsAny<ArgumentException>(() => silo.Grains.GetGrain<ISerialTurnGrain>(" "));

    private ITurnGrain Turn(string key, bool reentrant) => reentrant
        ? silo.Grains.GetGrain<IReentrantTurnGrain>(key)
        : silo.Grains.GetGrain<ISerialTurnGrain>(key);
}
