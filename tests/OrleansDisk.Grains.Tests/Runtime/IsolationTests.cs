using Orleans.Concurrency;
using Orleans.Serialization;

namespace OrleansDisk.Grains.Tests.Runtime;

/// <summary>What caller and grain share, whichever runtime the build has: nothing but what is marked immutable.</summary>
public sealed class IsolationTests(RunningSilo silo) : IClassFixture<RunningSilo>
{
    private readonly IPostGrain _grain = silo.Grains.GetGrain<IPostGrain>("post");
    private readonly Journal _journal = silo.Journal;

    [Fact]
    public async Task A_message_is_copied_to_its_last_field()
    {
        var sent = new Letter
        {
            Text = "hello",
            Numbers = [1, 2, 3],
            Payloads = { ["one"] = [4, 5] },
            Enclosed = new Letter { Text = "enclosed", Numbers = [6], Weight = 7 },
        };
        await _grain.TakeLetter(sent);
        sent.Text = "changed";
        sent.Numbers[0] = 99;
        sent.Payloads["one"][0] = 99;
        sent.Enclosed.Numbers[0] = 99;

        var received = Assert.IsType<Letter>(_journal.Held);
        Assert.Equal("hello", received.Text);
        Assert.Equal([1, 2, 3], received.Numbers);
        Assert.Equal([4, 5], received.Payloads["one"]);
        Assert.Equal(("enclosed", 7, 6), (received.Enclosed!.Text, received.Enclosed.Weight, received.Enclosed.Numbers[0]));
        Assert.Null(received.Weight);
    }

    [Fact]
    public async Task A_message_that_contains_itself_is_copied_as_such()
    {
        var sent = new Letter { Text = "loop" };
        sent.Enclosed = sent;
        await _grain.TakeLetter(sent);
        var received = Assert.IsType<Letter>(_journal.Held);
        Assert.NotSame(sent, received);
        Assert.Same(received, received.Enclosed);
    }

    [Fact]
    public async Task Records_and_structs_are_copied()
    {
        var postcard = new Postcard("greetings", [1]);
        await _grain.TakePostcard(postcard);
        postcard.Numbers[0] = 99;
        var received = Assert.IsType<Postcard>(_journal.Held);
        Assert.Equal(("greetings", 1), (received.Text, received.Numbers[0]));

        Stamp[] stamps = [new([1], 10), new([2], 20)];
        await _grain.TakeStamps(stamps);
        stamps[1].Picture[0] = 99;
        stamps[0] = default;
        var receivedStamps = Assert.IsType<Stamp[]>(_journal.Held);
        Assert.Equal((10, 20), (receivedStamps[0].Value, receivedStamps[1].Value));
        Assert.Equal([2], receivedStamps[1].Picture);
    }

    [Fact]
    public async Task Bytes_are_copied()
    {
        byte[] sent = [1, 2];
        await _grain.TakeBytes(sent);
        sent[0] = 99;
        Assert.Equal([1, 2], Assert.IsType<byte[]>(_journal.Held));

        await _grain.TakeMemory(sent.AsMemory(1));
        sent[1] = 99;
        Assert.Equal([2], Assert.IsType<ReadOnlyMemory<byte>>(_journal.Held).ToArray());
    }

    [Fact]
    public async Task An_immutable_argument_is_shared()
    {
        byte[] sent = [1, 2];
        await _grain.TakeSharedBytes(sent);
        Assert.Same(sent, _journal.Held);
    }

    [Fact]
    public async Task A_value_of_an_immutable_type_is_shared_both_ways()
    {
        var sent = new Poster { Picture = [1] };
        await _grain.TakePoster(sent);
        Assert.Same(sent, _journal.Held);
        Poster received = await _grain.GivePoster();
        Assert.Same(_journal.Held, received);
    }

    [Fact]
    public async Task A_result_is_copied_unless_wrapped_as_immutable()
    {
        Letter letter = await _grain.GiveLetter();
        Assert.NotSame(_journal.Held, letter);
        Assert.Equal("kept", letter.Text);
        byte[] bytes = await _grain.GiveBytes();
        Assert.NotSame(_journal.Held, bytes);
        Assert.Equal([1, 2], bytes);
        Immutable<byte[]> shared = await _grain.GiveSharedBytes();
        Assert.Same(_journal.Held, shared.Value);
    }

    [Fact]
    public async Task A_type_that_is_not_marked_serializable_does_not_travel() =>
        await Assert.ThrowsAsync<CodecNotFoundException>(() => _grain.TakeAnything(new Unmarked { Value = 1 }));
}
