using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Qcow2.Tests.Io;

/// <summary>
/// Files that pass the page cache by, on the disk on which the tests lie: requests of any alignment do what they do elsewhere.
/// Blocks of 4096 bytes are what some disks have; on others they are just more cautious.
/// </summary>
public sealed class DirectFileTests : IDisposable
{
    private readonly string _path = Path.Combine(AppContext.BaseDirectory, $"direct-{Guid.NewGuid():n}");

    public void Dispose() => File.Delete(_path);

    [Theory]
    [InlineData(512)]
    [InlineData(4096)]
    public async Task Bytes_lengths_and_holes_are_those_of_a_file_with_a_cache(int blockBytes)
    {
        var random = new Random(blockBytes);
        byte[] model = [];
        File.WriteAllBytes(_path, model);
        await using (var file = LocalBlockFile.OpenDirect(_path, ImageAccess.Write, blockBytes))
        {
            for (int i = 0; i < 400; i++)
            {
                int offset = random.Next(random.Next(2) == 0 ? 3 << 20 : model.Length + 5000);
                int bytes = 1 + random.Next(random.Next(8) == 0 ? 2 << 20 : 9000);
                switch (random.Next(8))
                {
                    case 0:
                        bytes = random.Next(4 << 20);
                        Array.Resize(ref model, bytes);
                        await file.SetLengthAsync(bytes);
                        break;
                    case 1:
                        model.AsSpan(Math.Min(offset, model.Length), Math.Clamp(model.Length - offset, 0, bytes)).Clear();
                        Assert.True(await file.PunchHoleAsync(offset, bytes));
                        break;
                    case 2:
                        byte[] read = new byte[bytes];
                        await file.ReadAsync(offset, read);
                        byte[] expected = new byte[bytes];
                        model.AsSpan(Math.Min(offset, model.Length), Math.Clamp(model.Length - offset, 0, bytes)).CopyTo(expected);
                        Assert.Equal(expected, read);
                        break;
                    default:
                        byte[] data = new byte[bytes];
                        random.NextBytes(data);
                        if (model.Length < offset + bytes)
                            Array.Resize(ref model, offset + bytes);
                        data.CopyTo(model, offset);
                        if (random.Next(2) == 0)
                            await file.WriteAsync(offset, data);
                        else
                            await file.WriteAsync(offset, [data.AsMemory(0, bytes / 3), data.AsMemory(bytes / 3)]);
                        break;
                }
                Assert.Equal(model.Length, file.LengthBytes);
            }
            await file.FlushAsync();
        }
        Assert.True(model.AsSpan().SequenceEqual(File.ReadAllBytes(_path)));
    }

    [Theory]
    [InlineData(512)]
    [InlineData(4096)]
    public async Task Writes_and_holes_that_share_blocks_lose_nothing_of_each_other(int blockBytes)
    {
        const int pieceBytes = 100;
        const int count = 400;
        File.WriteAllBytes(_path, []);
        await using (var file = LocalBlockFile.OpenDirect(_path, ImageAccess.Write, blockBytes))
        {
            for (int round = 1; round <= 5; round++)
            {
                byte value = (byte)round;
                await Task.WhenAll(Enumerable.Range(0, count).Select(i => i % 7 == 0 && round > 1
                    ? file.PunchHoleAsync(i * pieceBytes, pieceBytes).AsTask()
                    : file.WriteAsync(i * pieceBytes, Enumerable.Repeat(value, pieceBytes).ToArray()).AsTask()));
            }
            Assert.Equal(count * pieceBytes, file.LengthBytes);
        }
        byte[] expected = [.. Enumerable.Range(0, count).SelectMany(i => Enumerable.Repeat((byte)(i % 7 == 0 ? 0 : 5), pieceBytes))];
        Assert.Equal(expected, File.ReadAllBytes(_path));
    }

    [Fact]
    public async Task An_image_whose_clusters_are_parts_of_blocks_keeps_all_that_is_written_at_once()
    {
        const int disk = 1 << 20;
        await CreateOperation.CreateAsync(_path, new CreateOptions { VirtualBytes = disk, ClusterBytes = 512 });
        byte[] model = new byte[disk];
        new Random(1).NextBytes(model);
        await new TaskFactory(new ConcurrentExclusiveSchedulerPair().ExclusiveScheduler).StartNew(async () =>
        {
            var file = LocalBlockFile.OpenDirect(_path, ImageAccess.Write, blockBytes: 4096);
            await using Qcow2Image image = await Qcow2Image.OpenAsync(file, new Qcow2OpenOptions { Access = ImageAccess.Write });
            for (int part = 0; part < disk; part += 64 << 10)
                await Task.WhenAll(Enumerable.Range(0, 64).Select(i => image.WriteAsync(part + (i << 10), model.AsMemory(part + (i << 10), 1 << 10)).AsTask()));
        }).Unwrap();
        File.WriteAllBytes(_path + ".raw", model);
        try
        {
            string directory = Path.GetDirectoryName(_path)!;
            Testing.ExternalTool.QemuImg(directory, "compare", "-f", "qcow2", "-F", "raw", _path, _path + ".raw").Succeeded();
            Testing.ExternalTool.QemuImg(directory, "check", _path).Succeeded();
        }
        finally
        {
            File.Delete(_path + ".raw");
        }
    }

    [Fact]
    public void A_file_system_without_it_refuses_in_QEMUs_words()
    {
        Qcow2Exception e = Assert.Throws<Qcow2Exception>(() => LocalBlockFile.Open("/proc/version", ImageAccess.Read, isDirect: true));
        Assert.Equal("Could not open '/proc/version': filesystem does not support O_DIRECT", e.Message);
    }
}
