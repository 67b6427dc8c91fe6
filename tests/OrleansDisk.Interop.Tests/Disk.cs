using System.Globalization;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>Images that QEMU makes, and how tests open them.</summary>
internal static class Disk
{
    /// <summary>Makes an image with qemu-img.</summary>
    /// <param name="path">The file.</param>
    /// <param name="bytes">Size of the disk.</param>
    /// <param name="options">What -o takes.</param>
    public static void Create(string path, long bytes, string options) =>
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, bytes.ToString(CultureInfo.InvariantCulture));

    /// <summary>Makes an overlay with qemu-img.</summary>
    public static void CreateOverlay(string path, string backing, string backingFormat, long bytes, string options = "compat=1.1") =>
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", backing, "-F", backingFormat, "-o", options, path,
            bytes.ToString(CultureInfo.InvariantCulture));

    /// <summary>Runs qemu-io commands on an image.</summary>
    public static void QemuIo(string path, params string[] commands)
    {
        string output = Tool.Run("qemu-io", ["-f", "qcow2", .. commands.SelectMany(command => (string[])["-c", command]), path]);
        Assert.False(output.Contains("fail", StringComparison.OrdinalIgnoreCase) || output.Contains("error", StringComparison.OrdinalIgnoreCase),
            $"qemu-io {string.Join("; ", commands)}:\n{output}");
    }

    /// <summary>For writing, with caches so small that tables come and go.</summary>
    public static Qcow2OpenOptions Writing(int clusterBytes) => new()
    {
        Access = ImageAccess.Write,
        L2CacheBytes = Math.Min(clusterBytes, ClusterGeometry.MaxL2SliceBytes) * 3L,
        RefcountCacheBytes = clusterBytes * 2L,
    };

    /// <summary>Opens an image for writing, does something with it, and closes it.</summary>
    public static Task OnImageAsync(string path, int clusterBytes, Func<Qcow2Image, Task> act) => Exclusive.Run(async () =>
    {
        await using Qcow2Image image = await Qcow2Image.OpenAsync(path, Writing(clusterBytes));
        await act(image);
    });

    /// <summary>Writes an image at random and leaves in <paramref name="model"/> what it then holds.</summary>
    public static async Task ScribbleAsync(string path, byte[] model, int seed, Qcow2OpenOptions options, int groups, int maxBytes)
    {
        await using (Qcow2Image image = await Qcow2Image.OpenAsync(path, options))
        {
            var disk = new ModelDisk(image, model, seed);
            await disk.VerifyAsync();
            await disk.RunAsync(groups, depth: 8, maxBytes);
            await disk.VerifyAsync();
        }
        await using (Qcow2Image image = await Qcow2Image.OpenAsync(path, options with { Access = ImageAccess.Read }))
            await new ModelDisk(image, model, seed).VerifyAsync();
    }

    /// <summary>Bytes with stretches of random data, of one value, and of zeros.</summary>
    public static byte[] MixedBytes(int count, int seed)
    {
        var random = new Random(seed);
        byte[] bytes = new byte[count];
        for (int at = 0; at < count;)
        {
            Span<byte> part = bytes.AsSpan(at, Math.Min(count - at, 1 + random.Next(24 << 10)));
            if (random.Next(3) is var kind && kind == 0)
                random.NextBytes(part);
            else if (kind == 1)
                part.Fill((byte)(1 + random.Next(255)));
            at += part.Length;
        }
        return bytes;
    }
}
