using Orleans.Concurrency;

namespace OrleansDisk.Grains.Tests.Runtime;

public interface ITurnGrain : IGrainWithStringKey
{
    /// <summary>Writes an entry and returns the activation's id.</summary>
    Task<string> Record(string entry);

    [AlwaysInterleave]
    Task RecordInterleaved(string entry);

    /// <summary>Writes "entry begins", waits for the signal "release entry", writes "entry ends".</summary>
    Task Hold(string entry);

    /// <summary>Increments a plain field so often, a turn each; returns how often it found itself beside another turn.</summary>
    Task<int> Increment(int times);

    ValueTask<int> Count();

    /// <summary>Whether code after an await of something foreign runs on the grain's scheduler again.</summary>
    Task<bool> ReturnsToItsScheduler();

    Task Retire();

    Task Throw(string message);

    ValueTask<int> ThrowBeforeAwait(string message);

    Task WaitUntilCancelled(CancellationToken cancellationToken);
}

public interface IReentrantTurnGrain : ITurnGrain;

public interface ISerialTurnGrain : ITurnGrain;

public abstract class TurnGrain(Journal journal) : Grain, ITurnGrain
{
    private int _count;
    private int _inTurn;
    private TaskScheduler? _scheduler;

    private string Name => $"{this.GetPrimaryKeyString()} {GrainContext.ActivationId}";

    public override async Task OnActivateAsync(CancellationToken cancellationToken)
    {
        _scheduler = TaskScheduler.Current;
        await Task.Yield();
        if (journal.Refusals.TryRemove(this.GetPrimaryKeyString(), out Exception? refusal))
            throw refusal;
        journal.Write($"{this.GetPrimaryKeyString()} activated");
        journal.Write($"{Name} activated");
    }

    public override async Task OnDeactivateAsync(DeactivationReason reason, CancellationToken cancellationToken)
    {
        journal.Write($"{this.GetPrimaryKeyString()} deactivating: {reason.ReasonCode}");
        if (this.GetPrimaryKeyString().StartsWith("slow", StringComparison.Ordinal))
            await journal.When($"release {this.GetPrimaryKeyString()}");
        journal.Write($"{this.GetPrimaryKeyString()} deactivated");
        journal.Write($"{Name} deactivated");
    }

    public async Task<string> Record(string entry)
    {
        await Task.Yield();
        journal.Write(entry);
        return Name;
    }

    public Task RecordInterleaved(string entry) => Record(entry);

    public async Task Hold(string entry)
    {
        journal.Write($"{entry} begins");
        await journal.When($"release {entry}");
        journal.Write($"{entry} ends");
    }

    public async Task<int> Increment(int times)
    {
        int overlaps = 0;
        for (int i = 0; i < times; i++)
        {
            overlaps += Interlocked.Exchange(ref _inTurn, 1);
            int count = _count;
            Thread.SpinWait(20);
            _count = count + 1;
            Volatile.Write(ref _inTurn, 0);
            if (i % 2 == 0)
                await Task.Yield();
            else
                await Task.Run(() => Thread.SpinWait(5));
        }
        return overlaps;
    }

    public ValueTask<int> Count() => ValueTask.FromResult(_count);

    public async Task<bool> ReturnsToItsScheduler()
    {
        bool before = TaskScheduler.Current == _scheduler;
        await Task.Run(() => Thread.SpinWait(5));
        return before && TaskScheduler.Current == _scheduler && _scheduler != TaskScheduler.Default;
    }

    public Task Retire()
    {
        DeactivateOnIdle();
        return Task.CompletedTask;
    }

    public async Task Throw(string message)
    {
        await Task.Yield();
        throw new InvalidDataException(message);
    }

    public ValueTask<int> ThrowBeforeAwait(string message) => throw new InvalidDataException(message);

    public async Task WaitUntilCancelled(CancellationToken cancellationToken)
    {
        journal.Write("waits for cancellation");
        var cancelled = new TaskCompletionSource();
        using (cancellationToken.Register(cancelled.SetResult))
            await cancelled.Task;
        journal.Write("was cancelled");
        await journal.When("nobody waits");
    }
}

/// <summary>Handles one request after the other.</summary>
public sealed class SerialTurnGrain(Journal journal) : TurnGrain(journal), ISerialTurnGrain;

/// <summary>The same, but requests interleave.</summary>
[Reentrant]
public sealed class ReentrantTurnGrain(Journal journal) : TurnGrain(journal), IReentrantTurnGrain;

[GenerateSerializer]
public sealed class Letter
{
    [Id(0)] public string Text { get; set; } = "";
    [Id(1)] public List<int> Numbers { get; set; } = [];
    [Id(2)] public Dictionary<string, byte[]> Payloads { get; set; } = [];
    [Id(3)] public Letter? Enclosed { get; set; }
    [Id(4)] public int? Weight { get; set; }
}

[GenerateSerializer]
public sealed record Postcard([property: Id(0)] string Text, [property: Id(1)] int[] Numbers);

[GenerateSerializer]
public readonly record struct Stamp([property: Id(0)] byte[] Picture, [property: Id(1)] long Value);

[GenerateSerializer, Immutable]
public sealed class Poster
{
    [Id(0)] public byte[] Picture { get; set; } = [];
}

public sealed class Unmarked
{
    public int Value { get; set; }
}

public interface IPostGrain : IGrainWithStringKey
{
    Task TakeLetter(Letter letter);
    Task TakePostcard(Postcard postcard);
    Task TakeStamps(Stamp[] stamps);
    Task TakeBytes(byte[] bytes);
    Task TakeMemory(ReadOnlyMemory<byte> bytes);
    Task TakeSharedBytes([Immutable] byte[] bytes);
    Task TakePoster(Poster poster);
    Task TakeAnything(object thing);
    Task<Letter> GiveLetter();
    ValueTask<byte[]> GiveBytes();
    Task<Immutable<byte[]>> GiveSharedBytes();
    Task<Poster> GivePoster();
}

/// <summary>Shows its test what it receives and returns.</summary>
public sealed class PostGrain(Journal journal) : Grain, IPostGrain
{
    public Task TakeLetter(Letter letter) => Hold(letter);
    public Task TakePostcard(Postcard postcard) => Hold(postcard);
    public Task TakeStamps(Stamp[] stamps) => Hold(stamps);
    public Task TakeBytes(byte[] bytes) => Hold(bytes);
    public Task TakeMemory(ReadOnlyMemory<byte> bytes) => Hold(bytes);
    public Task TakeSharedBytes(byte[] bytes) => Hold(bytes);
    public Task TakePoster(Poster poster) => Hold(poster);
    public Task TakeAnything(object thing) => Hold(thing);
    public Task<Letter> GiveLetter() => Task.FromResult(Keep(new Letter { Text = "kept", Numbers = [1] }));
    public ValueTask<byte[]> GiveBytes() => ValueTask.FromResult(Keep(new byte[] { 1, 2 }));
    public Task<Immutable<byte[]>> GiveSharedBytes() => Task.FromResult(Keep(new byte[] { 1, 2 }).AsImmutable());
    public Task<Poster> GivePoster() => Task.FromResult(Keep(new Poster { Picture = [3] }));

    private Task Hold(object thing)
    {
        journal.Held = thing;
        return Task.CompletedTask;
    }

    private T Keep<T>(T thing) where T : class
    {
        journal.Held = thing;
        return thing;
    }
}

public interface ITimerGrain : IGrainWithStringKey
{
    /// <summary>Starts a timer that writes "name tick n" each millisecond; the first <paramref name="failures"/> ticks fail.</summary>
    Task StartTimer(string name, bool interleave, int failures);

    Task StopTimer();

    Task Hold(string entry);

    Task Retire();
}

public sealed class TimerGrain(Journal journal) : Grain, ITimerGrain
{
    private IGrainTimer? _timer;

    public override Task OnDeactivateAsync(DeactivationReason reason, CancellationToken cancellationToken)
    {
        journal.Write($"{this.GetPrimaryKeyString()} deactivated");
        return Task.CompletedTask;
    }

    public Task StartTimer(string name, bool interleave, int failures)
    {
        TaskScheduler scheduler = TaskScheduler.Current;
        int ticks = 0;
        var period = TimeSpan.FromMilliseconds(1);
        _timer = this.RegisterGrainTimer(async cancellationToken =>
        {
            cancellationToken.ThrowIfCancellationRequested();
            await Task.Yield();
            journal.Write($"{name} tick {++ticks}{(TaskScheduler.Current == scheduler ? "" : " off its scheduler")}");
            if (ticks <= failures)
                throw new InvalidDataException("This tick fails.");
        }, new() { DueTime = period, Period = period, Interleave = interleave });
        return Task.CompletedTask;
    }

    public Task StopTimer()
    {
        _timer!.Dispose();
        journal.Write("stopped");
        return Task.CompletedTask;
    }

    public async Task Hold(string entry)
    {
        journal.Write($"{entry} begins");
        await journal.When($"release {entry}");
        journal.Write($"{entry} ends");
    }

    public Task Retire()
    {
        this.DeactivateOnIdle();
        return Task.CompletedTask;
    }
}

public interface IListener : IGrainObserver
{
    Task<int> Hear(string message);
}

public interface ISpeakerGrain : IGrainWithStringKey
{
    Task Listen(IListener listener);

    /// <summary>Tells all listeners; the sum of what they answer.</summary>
    Task<int> Say(string message);

    /// <summary>Asks another grain, by a reference that it was given, for its activation's name.</summary>
    Task<string> Ask(ITurnGrain grain);

    /// <summary>Passes a reference to itself to another grain, which returns the key that it finds there.</summary>
    Task<string> Introduce(ISpeakerGrain other);

    Task<string> Greet(ISpeakerGrain other);
}

public sealed class SpeakerGrain : Grain, ISpeakerGrain
{
    private readonly List<IListener> _listeners = [];

    public Task Listen(IListener listener)
    {
        _listeners.Add(listener);
        return Task.CompletedTask;
    }

    public async Task<int> Say(string message)
    {
        int sum = 0;
        foreach (IListener listener in _listeners)
            sum += await listener.Hear(message);
        return sum;
    }

    public Task<string> Ask(ITurnGrain grain) => grain.Record("asked");

    public Task<string> Introduce(ISpeakerGrain other) => other.Greet(this.AsReference<ISpeakerGrain>());

    public Task<string> Greet(ISpeakerGrain other) => Task.FromResult(other.GetPrimaryKeyString());
}
