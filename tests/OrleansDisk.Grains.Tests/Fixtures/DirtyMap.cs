using System.Text.Json;

namespace OrleansDisk.Grains.Tests.Fixtures;

/// <summary>What a backup program does with a bitmap of an export.</summary>
internal static class DirtyMap
{
    /// <summary>The dirty ranges, as nbdinfo finds them.</summary>
    public static async Task<List<(long Start, int Bytes)>> ReadAsync(string uri, string bitmap)
    {
        using var map = JsonDocument.Parse(await Tool.RunAsync("nbdinfo", "--json", $"--map=qemu:dirty-bitmap:{bitmap}", uri));
        return [.. map.RootElement.EnumerateArray().Where(extent => (extent.GetProperty("type").GetInt32() & 1) != 0)
            .Select(extent => (extent.GetProperty("offset").GetInt64(), extent.GetProperty("length").GetInt32()))];
    }

    /// <summary>Brings a copy up to date; how many bytes that took.</summary>
    public static async Task<long> CopyAsync(string uri, string bitmap, Func<long, Memory<byte>, Task> read, string copy)
    {
        using FileStream file = File.OpenWrite(copy);
        long bytes = 0;
        foreach ((long start, int length) in await ReadAsync(uri, bitmap))
        {
            byte[] buffer = new byte[length];
            await read(start, buffer);
            file.Position = start;
            await file.WriteAsync(buffer);
            bytes += length;
        }
        return bytes;
    }
}
