using OrleansDisk.Abstractions;
using OrleansDisk.Client;
using OrleansDisk.Grains.Tests.Fixtures;

namespace OrleansDisk.Grains.Tests.Clients;

/// <summary>What a client does when openings of its image end, replies stay away, or calls fail.</summary>
public sealed class ImageConnectionTests
{
    private static readonly SectorRequest Write = new() { Command = SectorCommand.Write };
    private static readonly SectorRequest Flush = new() { Command = SectorCommand.Flush };
    private static readonly SectorRequest Read = new() { Command = SectorCommand.Read };

    [Fact]
    public async Task A_refused_batch_is_sent_again_to_the_next_opening()
    {
        var grain = new ScriptedGrain();
        await using ImageConnection connection = await OpenAsync(grain);
        grain.EndOpening(withoutError: true);
        var batch = new Batch(Write, Read);
        Assert.True(await connection.SubmitAsync(batch));
        Assert.Equal([SectorError.None, SectorError.None], batch.Errors);
        Assert.Equal((2, 1), (grain.OpenCount, grain.AcceptedCount));
    }

    [Theory]
    [InlineData(false, true, false)] // an error, flushed before: nothing can be lost
    [InlineData(false, false, true)] // an error, not flushed: lost, perhaps
    [InlineData(true, false, false)] // no error: nothing is lost
    public async Task Completed_writes_that_no_flush_covered_are_lost_with_an_opening_that_ends_with_an_error(
        bool withoutError, bool flushes, bool lost)
    {
        var grain = new ScriptedGrain();
        await using ImageConnection connection = await OpenAsync(grain);
        await connection.SubmitAsync(new Batch(Write, Write with { Flags = SectorFlags.Fua }));
        if (flushes)
            await connection.SubmitAsync(new Batch(Flush));
        grain.EndOpening(withoutError);
        foreach (SectorRequest request in (SectorRequest[])[Read, Flush, Write])
        {
            var batch = new Batch(request);
            await connection.SubmitAsync(batch);
            Assert.Equal([lost ? SectorError.Failed : SectorError.None], batch.Errors);
        }
    }

    [Fact]
    public async Task A_flush_covers_only_what_completed_before_it_was_sent()
    {
        var grain = new ScriptedGrain();
        await using ImageConnection connection = await OpenAsync(grain);
        await connection.SubmitAsync(new Batch(Flush, Write)); // the write completes after the flush was sent
        grain.EndOpening(withoutError: false);
        var batch = new Batch(Read);
        await connection.SubmitAsync(batch);
        Assert.Equal([SectorError.Failed], batch.Errors);
    }

    [Fact]
    public async Task A_call_that_got_no_answer_is_sent_again_only_when_its_opening_has_ended()
    {
        var grain = new ScriptedGrain();
        await using ImageConnection connection = await OpenAsync(grain);
        grain.NextFailure = new TimeoutException("nothing heard");
        var unknown = new Batch(Write);
        await connection.SubmitAsync(unknown);
        Assert.Equal([SectorError.Unavailable], unknown.Errors);
        grain.NextFailure = new TimeoutException("nothing heard");
        grain.EndOpening(withoutError: true);
        var repeated = new Batch(Write);
        await connection.SubmitAsync(repeated);
        Assert.Equal([SectorError.None], repeated.Errors);
    }

    [Fact]
    public async Task A_batch_that_the_grain_has_begun_is_left_to_it_when_the_call_is_lost()
    {
        var grain = new ScriptedGrain();
        await using ImageConnection connection = await OpenAsync(grain);
        grain.NextFailure = new TimeoutException("nothing heard");
        grain.TakesBeforeFailure = true;
        var batch = new Batch(Write);
        Assert.False(await connection.SubmitAsync(batch));
        Assert.Empty(batch.Errors);
    }

    [Fact]
    public async Task A_reply_of_another_opening_is_not_believed()
    {
        var grain = new ScriptedGrain { AnswersFor = Guid.NewGuid() };
        await using ImageConnection connection = await OpenAsync(grain);
        var batch = new Batch(Read);
        await connection.SubmitAsync(batch);
        Assert.Equal([SectorError.InputOutput], batch.Errors);
    }

    [Fact]
    public async Task An_image_that_can_not_be_opened_again_fails_the_request_with_the_reason()
    {
        var grain = new ScriptedGrain();
        await using ImageConnection connection = await OpenAsync(grain);
        grain.EndOpening(withoutError: true);
        grain.OpenFailure = new ImageException(SectorError.Locked, "somebody has it");
        var batch = new Batch(Read, Read);
        await connection.SubmitAsync(batch);
        Assert.Equal([SectorError.StaleGeneration, SectorError.StaleGeneration], batch.Errors);
        Assert.Equal("somebody has it", batch.Message);
    }

    private static Task<ImageConnection> OpenAsync(ScriptedGrain grain) =>
        ImageConnection.OpenAsync(grain, readOnly: false, TimeProvider.System);

    private sealed class Batch : ImageBatch
    {
        public Batch(params SectorRequest[] requests) => Requests = requests;

        public List<SectorError> Errors { get; } = [];

        public string? Message { get; private set; }

        protected override Memory<byte> ReadTarget(int index) => default;

        protected override bool AddExtent(int index, SectorExtent extent) => true;

        protected override void OnCompleted(int index, SectorError error, string? message)
        {
            Errors.Add(error);
            Message = message;
        }
    }

    /// <summary>A grain somewhere else, which does what the test says.</summary>
    private sealed class ScriptedGrain() : PassingGrain(null)
    {
        private Guid _generation = Guid.NewGuid();
        private Guid _endedWithoutError;

        public Exception? NextFailure { get; set; }

        public bool TakesBeforeFailure { get; set; }

        public Exception? OpenFailure { get; set; }

        public Guid? AnswersFor { get; init; }

        public int OpenCount { get; private set; }

        public int AcceptedCount { get; private set; }

        public void EndOpening(bool withoutError)
        {
            _endedWithoutError = withoutError ? _generation : Guid.Empty;
            _generation = Guid.NewGuid();
        }

        public override Task<OpenedImage> OpenAsync(OpenImage how)
        {
            OpenCount++;
            return OpenFailure is not null ? Task.FromException<OpenedImage>(OpenFailure) : Task.FromResult(new OpenedImage
            {
                Image = "vm/disk",
                Generation = _generation,
                VirtualBytes = 1 << 20,
                IsReadOnly = false,
                PreferredBytes = 65536,
                CanFastZero = true,
                ContinuesPrevious = how.Previous == _generation || how.Previous == _endedWithoutError,
                IdleTime = TimeSpan.FromMinutes(5),
            });
        }

        public override ValueTask<SectorBatchResult> SubmitAsync(SectorBatch batch)
        {
            if (NextFailure is { } failure)
            {
                NextFailure = null;
                if (TakesBeforeFailure)
                    batch.TryTake();
                return ValueTask.FromException<SectorBatchResult>(failure);
            }
            bool accepts = batch.Generation == _generation;
            AcceptedCount += accepts ? 1 : 0;
            return new(new SectorBatchResult
            {
                Image = "vm/disk",
                Generation = AnswersFor ?? _generation,
                Refusal = accepts ? SectorError.None : SectorError.StaleGeneration,
                Results = accepts ? new SectorResult[batch.Requests.Length] : default,
            });
        }

        public override ValueTask<Guid> KeepOpenAsync() => new(_generation);
    }
}
