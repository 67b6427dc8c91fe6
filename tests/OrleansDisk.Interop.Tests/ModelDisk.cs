using OrleansDisk.Qcow2;

namespace OrleansDisk.Interop.Tests;

/// <summary>
/// Drives an image with a seeded list of operations, several at a time, and keeps what the disk must hold.
/// Operations under way at once never overlap, so the model is exact.
/// </summary>
internal sealed class ModelDisk(Qcow2Image image, byte[] model, int seed)
{
    private readonly Random _random = new(seed);

    public byte[] Bytes => model;

    /// <summary>Runs operations in groups of up to <paramref name="depth"/> at once.</summary>
    public async Task RunAsync(int groups, int depth, int maxBytes)
    {
        for (int group = 0; group < groups; group++)
        {
            var ranges = new List<(int Start, int End)>();
            var running = new List<Task>();
            for (int i = 0; i < depth; i++)
            {
                int length = 1 + _random.Next(_random.Next(4) == 0 ? maxBytes : Math.Min(maxBytes, 8192));
                int start = _random.Next(Math.Max(1, model.Length - length));
                if (_random.Next(2) == 0)
                    (start, length) = (start & ~511, (length + 511) & ~511);
                length = Math.Min(length, model.Length - start);
                int end = start + length;
                if (ranges.Exists(r => r.Start < end && start < r.End))
                    continue;
                ranges.Add((start, end));
                running.Add(RunOneAsync(start, length));
            }
            if (_random.Next(8) == 0)
                running.Add(image.FlushAsync().AsTask());
            await Task.WhenAll(running);
        }
    }

    /// <summary>Reads the whole disk and compares it with the model.</summary>
    public async Task VerifyAsync()
    {
        byte[] read = new byte[model.Length];
        const int step = 1 << 20;
        for (int at = 0; at < read.Length; at += step)
            await image.ReadAsync(at, read.AsMemory(at, Math.Min(step, read.Length - at)));
        int different = read.AsSpan().CommonPrefixLength(model);
        Assert.True(different == model.Length, $"seed {seed}: the disk differs from the model at 0x{different:x}");
    }

    private async Task RunOneAsync(int start, int length)
    {
        switch (_random.Next(10))
        {
            case 0:
                model.AsSpan(start, length).Clear();
                await image.WriteZeroesAsync(start, length, mayUnmap: true);
                break;
            case 1:
                model.AsSpan(start, length).Clear();
                await image.WriteZeroesAsync(start, length, mayUnmap: false);
                break;
            case 2:
                await DiscardAsync(start, length);
                break;
            case 3:
                byte[] read = new byte[length];
                byte[] expected = model.AsSpan(start, length).ToArray();
                await image.ReadAsync(start, read);
                Assert.True(read.AsSpan().SequenceEqual(expected), $"seed {seed}: a read at 0x{start:x} of {length} differs");
                break;
            default:
                byte[] data = new byte[length];
                _random.NextBytes(data);
                data.CopyTo(model, start);
                await image.WriteAsync(start, data, fua: _random.Next(16) == 0);
                break;
        }
    }

    /// <summary>What a discard leaves is the image's choice: whole clusters read as zeros, the rest as before.</summary>
    private async Task DiscardAsync(int start, int length)
    {
        await image.DiscardAsync(start, length);
        await image.ReadAsync(start, model.AsMemory(start, length));
    }
}
