using System.Buffers.Binary;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests.Fuzz;

/// <summary>
/// Everything that can be done to an image, done to a mutant: info, check, map, read, write, zero, discard, flush, grow,
/// snapshots, close, check. An error that a caller expects is an answer; everything else fails.
/// </summary>
internal sealed class MutantPass(string path, byte[] bytes, int seed)
{
    /// <summary>What guest data consists of: found in metadata, it tells that the guest wrote there.</summary>
    private const byte Marker = 0xa7;

    private const int MarkerRun = 64;
    private const long ReadLimit = 2 << 20;
    private const int MaxExtents = 4096;
    private const int WriteCount = 16;
    private readonly Random _random = new(seed);
    private MutantFile _file = null!;
    private byte[]? _model;

    public bool WasChecked { get; private set; }

    public bool WasWritten { get; private set; }

    public bool WasConsistent { get; private set; }

    public async Task RunAsync()
    {
        await TryAsync(async () => await ImageInfo.ReadAsync(Open(isReadOnly: true), "qcow2"));
        CheckReport? before = await CheckAsync(Open(isReadOnly: true));
        WasChecked = before is not null;
        WasConsistent = before is { CorruptionCount: 0, CheckErrorCount: 0 };
        await TryAsync(ReadAsync);
        _file = Open(isReadOnly: false);
        await TryAsync(WriteAsync);
        CheckReport? after = await CheckAsync(_file);
        if (!WasWritten)
            return;
        if (WasConsistent)
        {
            Assert.True(after is { CorruptionCount: 0, CheckErrorCount: 0 },
                $"writes corrupted an image that was consistent: {string.Join("; ", after?.Findings.Take(5) ?? [])}");
            // Refcounts of clusters past the end of the file are no leaks until the file reaches there.
            MutantFile longer = Open(isReadOnly: false);
            await longer.SetLengthAsync(Math.Max(_file.LengthBytes, longer.LengthBytes));
            long leaksBefore = (await CheckAsync(longer))!.LeakCount;
            Assert.True(after!.LeakCount <= leaksBefore, $"writes leaked {after.LeakCount - leaksBefore} clusters");
        }
        new MetadataAreas(_file).MustNotHold(Marker, MarkerRun);
    }

    /// <summary>A data file in memory, whatever its name has become: a pass writes no file that is there.</summary>
    private static IBlockFile OpenBeside(string name, ImageAccess access) => access == ImageAccess.Write || name.EndsWith(Corpus.DataFile, StringComparison.Ordinal)
        ? new MutantFile(name, File.Exists(name) ? File.ReadAllBytes(name) : [], access != ImageAccess.Write)
        : LocalBlockFile.Open(name, access);

    private MutantFile Open(bool isReadOnly) => new(path, bytes, isReadOnly);

    /// <summary>Whether the action succeeded; the errors that callers expect are no failure of the test.</summary>
    private static async Task<bool> TryAsync(Func<Task> action)
    {
        try
        {
            await action();
            return true;
        }
        catch (Exception e) when (e is Qcow2Exception or BlockFileException)
        {
            Assert.NotEmpty(e.Message);
            return false;
        }
    }

    private static async Task<CheckReport?> CheckAsync(MutantFile file)
    {
        CheckReport? report = null;
        await TryAsync(async () => report = await ImageCheck.RunAsync(file, new CheckOptions { MaxKeptFindings = 20 }));
        return report;
    }

    private async Task ReadAsync()
    {
        await using Qcow2Image image = await Qcow2Image.OpenAsync(Open(isReadOnly: true), new Qcow2OpenOptions { OpenFile = OpenBeside, Secret = Corpus.Secret });
        byte[] buffer = new byte[64 << 10];
        long end = Math.Min(image.VirtualBytes, ReadLimit);
        byte[] all = new byte[end];
        bool isWhole = end == image.VirtualBytes;
        using MappingLease lease = image.Lease();
        for (long at = 0; at < end; at += buffer.Length)
        {
            int count = (int)Math.Min(buffer.Length, end - at);
            Memory<byte> part = all.AsMemory((int)at, count);
            bool isRead = await TryAsync(async () => await image.ReadAsync(at, part));
            isWhole &= isRead;
            if (lease.TryRead(at, buffer.AsSpan(0, count)))
                Assert.True(isRead && part.Span.SequenceEqual(buffer.AsSpan(0, count)), $"a lease reads something else at 0x{at:x}");
        }
        await TryAsync(async () => await image.ReadAsync(Math.Max(0, image.VirtualBytes - buffer.Length), buffer));
        if (isWhole && WasConsistent)
            _model = all;
        await TryAsync(() => MapAsync(image));
    }

    private static async Task MapAsync(Qcow2Image image)
    {
        int count = 0;
        long at = 0;
        await foreach (MapExtent extent in MapOperation.WalkAsync(MapOperation.LayersOf(image), 0, ReadLimit))
        {
            Assert.Equal(at, extent.Start);
            Assert.True(extent.Bytes > 0, "an extent of no bytes");
            at += extent.Bytes;
            if (++count == MaxExtents)
                return;
        }
        Assert.Equal(Math.Min(image.VirtualBytes, ReadLimit), at);
    }

    private async Task WriteAsync()
    {
        int clusterBytes = 1 << Math.Clamp((int)BinaryPrimitives.ReadUInt32BigEndian(_file.Peek(20, 4)), 9, 21);
        Qcow2Image image = await Qcow2Image.OpenAsync(_file, Disk.Writing(clusterBytes) with { OpenFile = OpenBeside, Secret = Corpus.Secret });
        WasWritten = true;
        try
        {
            for (int i = 0; i < WriteCount && image.VirtualBytes > 0; i++)
                await ChangeAsync(image);
            await VerifyAsync(image);
            await ChangeSnapshotsAsync(image);
            // Never so large that the L1 table alone would fill the file.
            if (_random.Next(3) == 0 && image.VirtualBytes < 1L << 34)
                await TryAsync(() => image.ResizeAsync(image.VirtualBytes + (_random.Next(2) == 0 ? 1 << 20 : 1 << 26)));
        }
        finally
        {
            await TryAsync(image.CloseAsync);
        }
        if (image.Header.Encryption == EncryptionMethod.Luks && EncryptionHeader.Of(image.Header) is var keys)
            Assert.True(_file.Peek(keys.Start.Bytes, (int)keys.Bytes).AsSpan().SequenceEqual(Open(isReadOnly: true).Peek(keys.Start.Bytes, (int)keys.Bytes)), "the keys have changed");
    }

    /// <summary>A snapshot is taken; one that was there is deleted, or becomes the disk.</summary>
    private async Task ChangeSnapshotsAsync(Qcow2Image image)
    {
        await TryAsync(() => image.CreateSnapshotAsync(new SnapshotDescription { Name = "new", Date = DateTimeOffset.UnixEpoch }));
        await VerifyAsync(image);
        IReadOnlyList<SnapshotEntry> snapshots = await image.ListSnapshotsAsync();
        if (snapshots.Count == 0)
            return;
        string id = snapshots[_random.Next(snapshots.Count)].Id;
        if (_random.Next(2) == 0)
        {
            await TryAsync(() => image.DeleteSnapshotAsync(id));
            await VerifyAsync(image);
            return;
        }
        _model = null;
        await TryAsync(() => image.ApplySnapshotAsync(id));
    }

    private async Task ChangeAsync(Qcow2Image image)
    {
        long limit = Math.Min(image.VirtualBytes, 1 << 20);
        int length = (int)Math.Min(1 + _random.Next(40_000), limit);
        long start = _random.NextInt64(limit - length + 1);
        // The last bytes too: a size that is wrong shows there.
        if (_random.Next(8) == 0)
            start = image.VirtualBytes - length;
        int kind = _random.Next(6);
        byte[] data = new byte[length];
        data.AsSpan().Fill(Marker);
        using MappingLease lease = image.Lease();
        bool done = kind > 3 && _random.Next(2) == 0 && lease.TryWrite(start, data);
        done = done || await TryAsync(async () => await (kind switch
        {
            0 => image.DiscardAsync(start, length),
            1 => image.WriteZeroesAsync(start, length, mayUnmap: true),
            2 => image.WriteZeroesAsync(start, length, mayUnmap: false),
            3 => image.FlushAsync(),
            _ => image.WriteAsync(start, data),
        }));
        if (!done || kind == 0)
            _model = null; // what a discard leaves is the image's choice, what a failure leaves is not known
        else if (kind != 3)
            _model?.AsSpan((int)start, length).Fill(kind < 3 ? (byte)0 : Marker);
    }

    private async Task VerifyAsync(Qcow2Image image)
    {
        if (_model is null)
            return;
        byte[] read = new byte[_model.Length];
        await image.ReadAsync(0, read);
        int same = read.AsSpan().CommonPrefixLength(_model);
        Assert.True(same == read.Length, $"the disk differs from the model at 0x{same:x}");
    }
}
