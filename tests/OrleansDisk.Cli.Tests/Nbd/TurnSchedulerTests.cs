using OrleansDisk.Cli.Nbd;

namespace OrleansDisk.Cli.Tests.Nbd;

public sealed class TurnSchedulerTests
{
    [Fact]
    public async Task Turns_of_many_threads_never_overlap_even_across_awaits()
    {
        const int threadCount = 4;
        const int turnCount = 20_000;
        var turns = new TurnScheduler();
        int inside = 0;
        int overlaps = 0;
        int done = 0;
        var finished = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        async Task Turn(int number)
        {
            Step();
            if (number % 7 == 0)
                await Task.Yield();
            Step();
            if (number % 11 == 0)
                await Task.Factory.StartNew(() => { }, CancellationToken.None, TaskCreationOptions.None, TaskScheduler.Default);
            Step();
            if (++done == threadCount * turnCount)
                finished.SetResult();
        }
        void Step()
        {
            if (Interlocked.Increment(ref inside) != 1 || TaskScheduler.Current != turns)
                overlaps++;
            Thread.SpinWait(20);
            Interlocked.Decrement(ref inside);
        }
        Thread[] threads = [.. Enumerable.Range(0, threadCount).Select(thread => new Thread(() =>
        {
            for (int i = 0; i < turnCount; i++)
            {
                int number = i;
                turns.Start(new Task(() => _ = Turn(number)));
            }
        }))];
        Array.ForEach(threads, thread => thread.Start());
        await finished.Task.WaitAsync(TimeSpan.FromMinutes(1));
        Array.ForEach(threads, thread => thread.Join());
        Assert.Equal(0, overlaps);
    }

    [Fact]
    public void A_turn_of_an_idle_image_runs_on_the_thread_that_starts_it()
    {
        var turns = new TurnScheduler();
        int thread = 0;
        turns.Start(new Task(() => thread = Environment.CurrentManagedThreadId));
        Assert.Equal(Environment.CurrentManagedThreadId, thread);
    }

    [Fact]
    public async Task Turns_of_one_thread_begin_in_order_while_the_image_is_busy()
    {
        var turns = new TurnScheduler();
        using var hold = new ManualResetEventSlim();
        using var busy = new ManualResetEventSlim();
        Task holder = Task.Factory.StartNew(() =>
        {
            busy.Set();
            hold.Wait();
        }, CancellationToken.None, TaskCreationOptions.None, turns);
        busy.Wait();
        var order = new List<int>();
        Task[] started = [.. Enumerable.Range(0, 100).Select(i => new Task(() => order.Add(i)))];
        Array.ForEach(started, turns.Start);
        Assert.Empty(order);
        hold.Set();
        await Task.WhenAll([holder, .. started]);
        Assert.Equal(Enumerable.Range(0, 100), order);
    }

    [Fact]
    public async Task What_a_turn_throws_reaches_who_waits_for_it_and_the_next_turn_runs()
    {
        var turns = new TurnScheduler();
        var failing = new Task(() => throw new InvalidDataException("bad"));
        turns.Start(failing);
        await Assert.ThrowsAsync<InvalidDataException>(() => failing);
        Assert.Equal(5, await turns.RunAsync(() => Task.FromResult(5)));
    }
}
