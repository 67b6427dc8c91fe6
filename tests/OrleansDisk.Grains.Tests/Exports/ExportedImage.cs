using OrleansDisk.Abstractions;
using OrleansDisk.Client;
using OrleansDisk.Grains.Tests.Fixtures;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Server.Exports;

namespace OrleansDisk.Grains.Tests.Exports;

/// <summary>A session of an export in the process of its image's grain.</summary>
internal sealed class ExportedImage : IAsyncDisposable
{
    private readonly GrainExportSession _session;

    private ExportedImage(GrainExportSession session, CountingGrain grain) => (_session, Grain) = (session, grain);

    public CountingGrain Grain { get; }

    public static async Task<ExportedImage> OpenAsync(ImageSilo silo, string key, bool isReadOnly = false)
    {
        var grain = new CountingGrain(silo.Image(key));
        ImageConnection connection = await ImageConnection.OpenAsync(grain, isReadOnly, TimeProvider.System);
        return new ExportedImage(new GrainExportSession(connection, silo.OpenImages, isReadOnly, connection.DisposeAsync), grain);
    }

    /// <summary>Submits one request and waits for its end.</summary>
    public Task<(NbdError Error, string? Message)> RunAsync(NbdCommand command, long offset = 0, byte[]? buffer = null)
    {
        var request = new Request(command, offset, buffer ?? []);
        _session.Submit([request]);
        return request.Ended;
    }

    public Task WriteAsync(long offset, byte[] data) => SucceedAsync(NbdCommand.Write, offset, data);

    public async Task<byte[]> ReadAsync(long offset, int bytes)
    {
        byte[] buffer = new byte[bytes];
        await SucceedAsync(NbdCommand.Read, offset, buffer);
        return buffer;
    }

    public Task FlushAsync() => SucceedAsync(NbdCommand.Flush, 0, []);

    public ValueTask DisposeAsync() => _session.DisposeAsync();


    private async Task SucceedAsync(NbdCommand command, long offset, byte[] buffer) =>
        Assert.Equal((NbdError.None, null), await RunAsync(command, offset, buffer));

    private sealed class Request : NbdRequest
    {
        private readonly TaskCompletionSource<(NbdError, string?)> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public Request(NbdCommand command, long offset, byte[] buffer) =>
            (Command, Offset, Buffer, Length) = (command, offset, buffer, (uint)buffer.Length);

        public Task<(NbdError Error, string? Message)> Ended => _ended.Task;

        public override bool AddExtent(long length, NbdExtentState state) => false;

        public override bool AddExtent(int context, long length, uint flags) => false;

        public override void Complete(NbdError error, string? message = null) => _ended.SetResult((error, message));
    }
}

/// <summary>A grain that counts the batches that reach it.</summary>
internal sealed class CountingGrain(IImageGrain grain) : PassingGrain(grain)
{
    private int _batchCount;

    public int BatchCount => Volatile.Read(ref _batchCount);

    public override ValueTask<SectorBatchResult> SubmitAsync(SectorBatch batch)
    {
        Interlocked.Increment(ref _batchCount);
        return base.SubmitAsync(batch);
    }
}
