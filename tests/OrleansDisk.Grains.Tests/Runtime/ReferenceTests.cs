using Orleans.Configuration;

namespace OrleansDisk.Grains.Tests.Runtime;

/// <summary>References, observers and the wait for responses, whichever runtime the build has.</summary>
public sealed class ReferenceTests(RunningSilo silo) : IClassFixture<RunningSilo>
{
    [Fact]
    public async Task A_reference_travels_and_leads_to_the_same_activation()
    {
        var grain = silo.Grains.GetGrain<ISerialTurnGrain>("asked");
        string own = await grain.Record("own");
        Assert.Equal(own, await silo.Grains.GetGrain<ISpeakerGrain>("asking").Ask(grain));
        Assert.Equal(grain, silo.Grains.GetGrain<ISerialTurnGrain>("asked"));
        Assert.NotEqual(grain, silo.Grains.GetGrain<ISerialTurnGrain>("other"));
        Assert.Equal("asked", grain.GetPrimaryKeyString());
    }

    [Fact]
    public async Task A_grain_passes_a_reference_to_itself() =>
        Assert.Equal("self", await silo.Grains.GetGrain<ISpeakerGrain>("self")
            .Introduce(silo.Grains.GetGrain<ISpeakerGrain>("greeted")));

    [Fact]
    public async Task An_observer_without_a_reference_does_not_travel() =>
        await Assert.ThrowsAsync<NotSupportedException>(
            () => silo.Grains.GetGrain<ISpeakerGrain>("unreferenced").Listen(new Listener()));

    [Fact]
    public async Task A_grain_calls_observers_back()
    {
        var speaker = silo.Grains.GetGrain<ISpeakerGrain>("speaker");
        var heard = new Listener();
        IListener reference = silo.Grains.CreateObjectReference<IListener>(heard);
        await speaker.Listen(reference);
        Assert.Equal(5, await speaker.Say("hello"));
        Assert.Equal(2, await speaker.Say("ho"));
        Assert.Equal(["hello", "ho"], heard.Messages);
        silo.Grains.DeleteObjectReference<IListener>(reference);
        GC.KeepAlive(heard);
    }

    [Fact]
    public async Task A_call_without_a_response_in_time_fails_and_the_grain_goes_on()
    {
        var impatient = new ImpatientSilo();
        await impatient.InitializeAsync();
        var grain = impatient.Grains.GetGrain<ISerialTurnGrain>("late");
        Task hold = grain.Hold("late");
        await impatient.Journal.When("late begins");
        await Assert.ThrowsAsync<TimeoutException>(() => hold);
        impatient.Journal.Signal("release late");
        await impatient.Journal.When("late ends");
        await grain.Record("well again");
        await impatient.DisposeAsync();
    }

    private sealed class ImpatientSilo() : RunningSilo(silo =>
        silo.Configure<SiloMessagingOptions>(options => options.ResponseTimeout = TimeSpan.FromSeconds(1)));

    private sealed class Listener : IListener
    {
        public List<string> Messages { get; } = [];

        public Task<int> Hear(string message)
        {
            Messages.Add(message);
            return Task.FromResult(message.Length);
        }
    }
}
