using System.Collections.Concurrent;
using OrleansDisk.Abstractions;

namespace OrleansDisk.Grains.Tests.Fixtures;

/// <summary>A batch as a client in the silo's process sends it, which notes what it hears.</summary>
internal sealed class TestBatch : ISectorCompletions
{
    private readonly SectorRequest[] _requests;
    private readonly byte[]?[] _read;

    public TestBatch(OpenedImage opened, params SectorRequest[] requests)
    {
        _requests = requests;
        _read = new byte[requests.Length][];
        Message = new SectorBatch { Image = opened.Image, Generation = opened.Generation, Requests = requests, Completions = this };
    }

    public SectorBatch Message { get; }

    public ConcurrentDictionary<int, (SectorError Error, string? Message)> Ended { get; } = [];

    public ConcurrentQueue<SectorExtent> Extents { get; } = [];

    public byte[] Read(int index) => _read[index]!;

    public static SectorRequest ReadOf(long offset, int bytes) =>
        new() { Command = SectorCommand.Read, Offset = offset, Bytes = bytes };

    public static SectorRequest WriteOf(long offset, byte[] data, SectorFlags flags = SectorFlags.None) =>
        new() { Command = SectorCommand.Write, Offset = offset, Bytes = data.Length, Payload = data, Flags = flags };

    public static SectorRequest Of(SectorCommand command, long offset = 0, long bytes = 0, SectorFlags flags = SectorFlags.None) =>
        new() { Command = command, Offset = offset, Bytes = bytes, Flags = flags };

    public static byte[] Filled(int bytes, byte value)
    {
        byte[] data = new byte[bytes];
        data.AsSpan().Fill(value);
        return data;
    }

    /// <summary>Sends it; every request must end exactly once, and without an error.</summary>
    public async Task RunAsync(IImageGrain image)
    {
        SectorBatchResult result = await image.SubmitAsync(Message);
        Assert.Equal(SectorError.None, result.Refusal);
        Assert.Equal(_requests.Length, Ended.Count);
        Assert.All(Ended, one => Assert.True(one.Value.Error == SectorError.None, $"request {one.Key}: {one.Value}"));
    }

    Memory<byte> ISectorCompletions.ReadTarget(int index) => _read[index] ??= new byte[_requests[index].Bytes];

    bool ISectorCompletions.AddExtent(int index, SectorExtent extent)
    {
        Extents.Enqueue(extent);
        return true;
    }

    void ISectorCompletions.Complete(int index, SectorError error, string? message) =>
        Assert.True(Ended.TryAdd(index, (error, message)), $"request {index} ended twice");
}
