using OrleansDisk.Qcow2.Concurrency;

namespace OrleansDisk.Qcow2.Tests.Concurrency;

public sealed class ImageTurnsTests
{
    [Fact]
    public async Task Turns_of_many_threads_never_overlap_even_across_awaits()
    {
        const int threadCount = 4;
        const int turnCount = 20_000;
        var turns = new ImageTurns();
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
            if (Interlocked.Increment(ref inside) != 1 || !turns.IsCurrent)
                overlaps++;
            Thread.SpinWait(20);
            Interlocked.Decrement(ref inside);
        }
        Thread[] threads = [.. Enumerable.Range(0, threadCount).Select(thread => new Thread(() =>
        {
            for (int i = 0; i < turnCount; i++)
            {
                if (i % 3 != 0 && turns.TryEnter())
                {
                    _ = Turn(i);
                    turns.Leave();
                }
                else
                {
                    turns.Post(number => _ = Turn((int)number!), i);
                }
            }
        }))];
        Array.ForEach(threads, thread => thread.Start());
        await finished.Task.WaitAsync(TimeSpan.FromMinutes(1));
        Array.ForEach(threads, thread => thread.Join());
        Assert.Equal(0, overlaps);
    }

    [Fact]
    public void A_turn_of_an_idle_image_runs_on_the_thread_that_enters_and_leaves_it_as_it_was()
    {
        var turns = new ImageTurns();
        SynchronizationContext? before = SynchronizationContext.Current;
        Assert.True(turns.TryEnter());
        Assert.True(turns.IsCurrent);
        turns.Leave();
        Assert.False(turns.IsCurrent);
        Assert.Same(before, SynchronizationContext.Current);
        Assert.True(turns.TryEnter());
        turns.Leave();
    }

    [Fact]
    public void A_turn_does_not_wait_to_enter_itself()
    {
        var turns = new ImageTurns();
        Assert.True(turns.TryEnter());
        Assert.False(turns.TryEnter());
        turns.Leave();
    }

    [Fact]
    public async Task Turns_of_one_thread_begin_in_order_while_the_image_is_busy()
    {
        var turns = new ImageTurns();
        var order = new List<int>();
        var last = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        Assert.True(turns.TryEnter());
        for (int i = 0; i < 100; i++)
            turns.Post(number => order.Add((int)number!), i);
        turns.Post(_ => last.SetResult(), null);
        Assert.Empty(order);
        turns.Leave();
        await last.Task.WaitAsync(TimeSpan.FromMinutes(1));
        Assert.Equal(Enumerable.Range(0, 100), order);
    }

    [Fact]
    public async Task What_a_turn_throws_reaches_who_waits_for_it_and_the_next_turn_runs()
    {
        var turns = new ImageTurns();
        await Assert.ThrowsAsync<InvalidDataException>(() => turns.RunAsync(() => Task.FromException(new InvalidDataException("bad"))));
        Assert.Equal(5, await turns.RunAsync(() => Task.FromResult(5)));
    }

    [Fact]
    public async Task Who_waits_for_a_turn_goes_on_outside_of_the_image()
    {
        var turns = new ImageTurns();
        bool isInside = await Task.Run(async () =>
        {
            await turns.RunAsync(async () => await Task.Yield());
            return turns.IsCurrent;
        });
        Assert.False(isInside);
    }

    [Fact]
    public void A_turn_on_the_callers_thread_allocates_nothing()
    {
        var turns = new ImageTurns();
        long before = 0;
        for (int i = 0; i < 20_000; i++)
        {
            if (i == 10_000)
                before = GC.GetAllocatedBytesForCurrentThread();
            Assert.True(turns.TryEnter());
            turns.Leave();
        }
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
    }
}
