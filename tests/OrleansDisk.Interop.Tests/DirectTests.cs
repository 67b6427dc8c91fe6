using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Interop.Tests;

/// <summary>Images that pass the host's page cache by (cache.direct), on the disk on which the tests lie; QEMU finds all of it.</summary>
public sealed class DirectTests : IDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateDirectory(Path.Combine(AppContext.BaseDirectory, $"direct-{Guid.NewGuid():n}"));
    private readonly string _path;

    public DirectTests() => _path = Path.Combine(_directory.FullName, "disk");

    public void Dispose() => _directory.Delete(recursive: true);

    [Theory]
    [InlineData(512, "")]
    [InlineData(1024, ",refcount_bits=1")]
    [InlineData(4096, ",lazy_refcounts=on")]
    [InlineData(16384, ",extended_l2=on")]
    [InlineData(65536, "")]
    [InlineData(2 << 20, "")]
    public async Task What_is_written_at_random_is_there(int clusterBytes, string options)
    {
        byte[] model = new byte[(3 << 20) + 512];
        Disk.Create(_path, model.Length, $"compat=1.1,cluster_size={clusterBytes}{options}");
        await ScribbleAsync(model, Disk.Writing(clusterBytes));
        Judge.ReadsAs(_path, model);
        await Judge.FindsCleanAsync(_path);
    }

    [Fact]
    public async Task So_it_is_over_a_raw_file_of_any_length_and_with_a_data_file()
    {
        string backing = _path + ".backing";
        byte[] model = new byte[2 << 20];
        Disk.MixedBytes(1_000_001, seed: 1).CopyTo(model, 0);
        File.WriteAllBytes(backing, model[..1_000_001]);
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "raw", "-o", $"data_file={_path}.data", _path, "2M");
        await ScribbleAsync(model, Disk.Writing(65536));
        Judge.ReadsAs(_path, model);
        await Judge.FindsCleanAsync(_path);
    }

    [Fact]
    public async Task So_it_is_with_encryption()
    {
        byte[] model = new byte[2 << 20];
        var disk = EncryptedDisk.Create(_path, "password", model.Length, "encrypt.format=luks,cluster_size=4096");
        await ScribbleAsync(model, disk.Writing(4096));
        await disk.HoldsAsync(model);
    }

    [Theory]
    [InlineData(4096)]
    [InlineData(65536)]
    public async Task Compressed_clusters_that_share_sectors_are_written_side_by_side(int clusterBytes)
    {
        byte[] model = Disk.MixedBytes(4 << 20, seed: clusterBytes);
        Disk.Create(_path, model.Length, $"compat=1.1,cluster_size={clusterBytes}");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, Direct(Disk.Writing(clusterBytes)));
            for (int at = 0; at < model.Length; at += 16 * clusterBytes)
            {
                await Task.WhenAll(Enumerable.Range(0, 16).Select(i => at + (i * clusterBytes)).Where(start => start < model.Length)
                    .Select(start => image.WriteCompressedAsync(start, model.AsMemory(start, clusterBytes)).AsTask()));
            }
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
        });
        Judge.ReadsAs(_path, model);
        await Judge.FindsCleanAsync(_path);
    }

    private Task ScribbleAsync(byte[] model, Qcow2OpenOptions options) =>
        Exclusive.Run(() => Disk.ScribbleAsync(_path, model, seed: 3, Direct(options), groups: 12, maxBytes: 200_000));

    private static Qcow2OpenOptions Direct(Qcow2OpenOptions options) =>
        options with { OpenFile = (path, access) => LocalBlockFile.Open(path, access, isDirect: true) };
}
