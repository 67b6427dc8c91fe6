using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Orleans.Configuration;
using Orleans.Serialization;
using Orleans.TestingHost;

namespace OrleansDisk.Grains.Tests.Runtime;

/// <summary>What is particular to the embedded runtime: it is one process, and it says so.</summary>
public sealed class EmbeddedRuntimeTests
{
    [Fact]
    public void Asking_for_a_cluster_is_an_error_that_names_the_remedy()
    {
        var host = Host.CreateEmptyApplicationBuilder(new());
        host.Configuration["Orleans:Clustering:ProviderType"] = "AdoNet";
        var error = Assert.Throws<NotSupportedException>(() => host.UseOrleans(_ => { }));
        Assert.Contains("GrainRuntime=Orleans", error.Message, StringComparison.Ordinal);
        Assert.Throws<NotSupportedException>(() => new InProcessTestClusterBuilder(2));
    }

    [Fact]
    public async Task A_stopped_silo_activates_nothing()
    {
        var silo = new RunningSilo();
        await silo.InitializeAsync();
        IGrainFactory grains = silo.Grains;
        await silo.StopAsync();
        await Assert.ThrowsAsync<SiloUnavailableException>(() => grains.GetGrain<ISerialTurnGrain>("late").Record("never"));
        Assert.Empty(silo.Journal.Read());
        await silo.DisposeAsync();
    }

    [Fact]
    public async Task Stopping_is_bounded_when_a_grain_does_not_end()
    {
        var silo = new HastySilo();
        await silo.InitializeAsync();
        Task hold = silo.Grains.GetGrain<ISerialTurnGrain>("stuck").Hold("stuck");
        await silo.Journal.When("stuck begins");
        await silo.StopAsync();
        Assert.Empty(silo.Journal.Read("stuck deactivating"));
        silo.Journal.Signal("release stuck");
        await hold;
        await silo.DisposeAsync();
    }

    [Fact]
    public async Task Idle_collection_follows_the_clock_it_is_given()
    {
        var clock = new HandClock();
        var silo = new ClockedSilo(clock);
        await silo.InitializeAsync();
        var grain = silo.Grains.GetGrain<ISerialTurnGrain>("idle");
        string first = await grain.Record("used");
        clock.Advance(TimeSpan.FromMinutes(14));
        Assert.Equal(first, await grain.Record("used within its age"));
        clock.Advance(TimeSpan.FromMinutes(14));
        Assert.Equal(first, await grain.Record("idle time starts anew with each request"));
        clock.Advance(TimeSpan.FromMinutes(16));
        await silo.Journal.When("idle deactivated");
        Assert.NotEqual(first, await grain.Record("used again"));
        await silo.DisposeAsync();
    }

    [Fact]
    public async Task A_member_that_Orleans_would_drop_is_refused()
    {
        var silo = new RunningSilo();
        await silo.InitializeAsync();
        var error = await Assert.ThrowsAsync<CodecNotFoundException>(
            () => silo.Grains.GetGrain<IPostGrain>("post").TakeAnything(new Forgetful { Value = 1 }));
        Assert.Contains("[Id]", error.Message, StringComparison.Ordinal);
        await silo.DisposeAsync();
    }

    [Fact]
    public async Task A_deleted_observer_hears_nothing()
    {
        var silo = new RunningSilo();
        await silo.InitializeAsync();
        IListener reference = silo.Grains.CreateObjectReference<IListener>(new Deaf());
        silo.Grains.DeleteObjectReference<IListener>(reference);
        var speaker = silo.Grains.GetGrain<ISpeakerGrain>("speaker");
        await speaker.Listen(reference);
        await Assert.ThrowsAsync<OrleansMessageRejectionException>(() => speaker.Say("anyone?"));
        await silo.DisposeAsync();
    }

    [Fact]
    public async Task Stages_start_in_order_and_stop_in_reverse_with_the_grains_in_between()
    {
        var silo = new StagedSilo();
        await silo.InitializeAsync();
        await silo.StopAsync();
        Assert.Equal(["start services", "start active", "stop active", "staged deactivating: ShuttingDown",
            "staged deactivated", "stop services"],
            silo.Journal.Read().Where(entry => entry.StartsWith('s') && !entry.Contains('@', StringComparison.Ordinal)
                && entry != "staged activated"));
        await silo.DisposeAsync();
    }

    [Fact]
    public async Task A_silo_that_fails_to_start_stops_what_it_started()
    {
        var silo = new FailingSilo();
        await Assert.ThrowsAsync<InvalidDataException>(silo.InitializeAsync);
        Assert.Equal(["start services", "start active", "stop active", "stop services"], silo.Journal.Read("st"));
        await silo.DisposeAsync();
    }

    [Fact]
    public async Task A_call_made_where_the_execution_context_does_not_flow_is_answered()
    {
        var silo = new RunningSilo();
        await silo.InitializeAsync();
        Task<string> call;
        using (ExecutionContext.SuppressFlow())
            call = silo.Grains.GetGrain<ISerialTurnGrain>("unflowing").Record("called");
        Assert.StartsWith("unflowing", await call, StringComparison.Ordinal);
        await silo.DisposeAsync();
    }

    [GenerateSerializer]
    internal sealed class Forgetful
    {
        public int Value { get; set; }
    }

    private sealed class Deaf : IListener
    {
        public Task<int> Hear(string message) => throw new InvalidOperationException("It was heard all the same.");
    }

    private sealed class HastySilo() : RunningSilo(silo => silo.Configure<GrainCollectionOptions>(
        options => options.DeactivationTimeout = TimeSpan.FromMilliseconds(100)));

    private sealed class ClockedSilo(TimeProvider clock) : RunningSilo(silo => silo.Services.AddSingleton(clock));

    private sealed class StagedSilo() : RunningSilo(silo =>
    {
        silo.Services.AddSingleton<ILifecycleParticipant<ISiloLifecycle>, Stages>();
        silo.AddStartupTask((services, _) =>
            services.GetRequiredService<IGrainFactory>().GetGrain<ISerialTurnGrain>("staged").Record("used"));
    });

    private sealed class FailingSilo() : RunningSilo(silo =>
    {
        silo.Services.AddSingleton<ILifecycleParticipant<ISiloLifecycle>, Stages>();
        silo.AddStartupTask((_, _) => throw new InvalidDataException("not today"));
    });

    private sealed class Stages(Journal journal) : ILifecycleParticipant<ISiloLifecycle>
    {
        public void Participate(ISiloLifecycle lifecycle)
        {
            Subscribe("active", ServiceLifecycleStage.Active);
            Subscribe("services", ServiceLifecycleStage.ApplicationServices);

            void Subscribe(string name, int stage) =>
                lifecycle.Subscribe(name, stage, _ => Write($"start {name}"), _ => Write($"stop {name}"));
        }

        private Task Write(string entry)
        {
            journal.Write(entry);
            return Task.CompletedTask;
        }
    }

    /// <summary>A clock that stands still until the test moves it.</summary>
    private sealed class HandClock : TimeProvider
    {
        private readonly List<HandTimer> _timers = [];
        private DateTimeOffset _now = new(2026, 1, 1, 0, 0, 0, TimeSpan.Zero);

        public override long TimestampFrequency => TimeSpan.TicksPerSecond;
        public override DateTimeOffset GetUtcNow() => _now;
        public override long GetTimestamp() => _now.Ticks;

        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
        {
            var timer = new HandTimer(() => callback(state));
            _timers.Add(timer);
            return timer;
        }

        /// <summary>Moves the clock and lets every timer fire once.</summary>
        public void Advance(TimeSpan time)
        {
            _now += time;
            _timers.ForEach(timer => timer.Fire());
        }

        private sealed class HandTimer(Action fire) : ITimer
        {
            public void Fire() => fire();
            public bool Change(TimeSpan dueTime, TimeSpan period) => true;
            public void Dispose() { }
            public ValueTask DisposeAsync() => ValueTask.CompletedTask;
        }
    }
}
