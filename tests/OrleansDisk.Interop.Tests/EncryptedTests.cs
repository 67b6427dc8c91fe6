using System.Text;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Interop.Tests;

/// <summary>Encrypted images: QEMU makes them, the engine reads and writes them, QEMU judges.</summary>
public sealed class EncryptedTests : IDisposable
{
    private const int DiskBytes = (2 << 20) + 1536;
    private readonly TemporaryDirectory _directory = new(inMemory: true);
    private readonly string _path;

    public EncryptedTests() => _path = _directory.File("disk");

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("luks", "1.1", 65536)]
    [InlineData("luks", "1.1", 512)]
    [InlineData("luks", "0.10", 4096)]
    [InlineData("luks", "1.1", 2 << 20)]
    [InlineData("aes", "1.1", 65536)]
    [InlineData("aes", "1.1", 512)]
    [InlineData("aes", "0.10", 65536)]
    public async Task Random_writes_to_an_encrypted_image_are_what_QEMU_reads(string format, string compat, int clusterBytes)
    {
        var disk = EncryptedDisk.Create(_path, "open sesame", DiskBytes, $"compat={compat},cluster_size={clusterBytes},encrypt.format={format}");
        disk.QemuIo("write -P 0x21 0 300k", "write -P 0x22 1M 100k", "write -z 100k 64k", "discard 200k 64k");
        byte[] model = new byte[DiskBytes];
        await Exclusive.Run(async () =>
        {
            await using (Qcow2Image image = await Qcow2Image.OpenAsync(_path, disk.Writing(clusterBytes)))
                await image.ReadAsync(0, model);
            Assert.True(model.AsSpan(1 << 20, 100 << 10).IndexOfAnyExcept((byte)0x22) < 0, "the image reads something else");
            await Disk.ScribbleAsync(_path, model, seed: clusterBytes, disk.Writing(clusterBytes), groups: 30, maxBytes: 100_000);
        });
        await disk.HoldsAsync(model);
        disk.QemuIo("write -P 0x23 513k 700k");
        model.AsSpan(513 << 10, 700 << 10).Fill(0x23);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, disk.Writing(clusterBytes));
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
        });
    }

    [Theory]
    [InlineData(EncryptionMethod.Luks, 3, 65536, "aes-256", "xts", "plain64", Preallocation.Off)]
    [InlineData(EncryptionMethod.Luks, 3, 512, "aes-128", "xts", "plain64", Preallocation.Off)]
    [InlineData(EncryptionMethod.Luks, 3, 4096, "aes-256", "cbc", "essiv", Preallocation.Metadata)]
    [InlineData(EncryptionMethod.Luks, 2, 65536, "aes-192", "xts", "plain", Preallocation.Off)]
    [InlineData(EncryptionMethod.Luks, 3, 2 << 20, "aes-256", "xts", "plain64", Preallocation.Metadata)]
    [InlineData(EncryptionMethod.Aes, 3, 65536, "", "", "", Preallocation.Off)]
    [InlineData(EncryptionMethod.Aes, 2, 512, "", "", "", Preallocation.Metadata)]
    public async Task Images_that_are_encrypted_here_are_QEMUs_to_read_and_write(EncryptionMethod method, int version, int clusterBytes,
        string algorithm, string mode, string generator, Preallocation preallocation)
    {
        var disk = new EncryptedDisk(_path, "made here");
        using Secret secret = disk.NewSecret();
        var cipher = new LuksCipher { Algorithm = algorithm, Mode = mode, VectorGenerator = generator, VectorHash = generator == "essiv" ? "sha256" : null };
        await CreateOperation.CreateAsync(_path, new CreateOptions
        {
            VirtualBytes = DiskBytes,
            Version = version,
            ClusterBytes = clusterBytes,
            Preallocation = preallocation,
            Encryption = new NewEncryption { Method = method, Secret = secret, Cipher = method == EncryptionMethod.Luks ? cipher : LuksCipher.Default, Iterations = 1000 },
        });
        await Judge.OwnCheckFindsAtMostLeaksAsync(_path);
        byte[] model = Disk.MixedBytes(DiskBytes, seed: clusterBytes);
        await Exclusive.Run(async () =>
        {
            await using (Qcow2Image image = await Qcow2Image.OpenAsync(_path, disk.Writing(clusterBytes)))
                await image.WriteAsync(0, model);
            await Disk.ScribbleAsync(_path, model, seed: clusterBytes, disk.Writing(clusterBytes), groups: 10, maxBytes: 50_000);
        });
        await disk.HoldsAsync(model);
        disk.QemuIo("write -P 0x41 3k 200k", "read -P 0x41 3k 200k");
    }

    /// <summary>QEMU's own read as what the zeros in the file decipher to.</summary>
    [Theory]
    [InlineData(EncryptionMethod.Luks, Preallocation.Metadata, false)]
    [InlineData(EncryptionMethod.Luks, Preallocation.Full, false)]
    [InlineData(EncryptionMethod.Luks, Preallocation.Falloc, true)]
    [InlineData(EncryptionMethod.Aes, Preallocation.Metadata, true)]
    public async Task A_preallocated_disk_reads_as_zeros_and_is_written_where_its_space_is(EncryptionMethod method, Preallocation preallocation, bool hasSubclusters)
    {
        var disk = new EncryptedDisk(_path, "made here");
        using Secret secret = disk.NewSecret();
        await CreateOperation.CreateAsync(_path, new CreateOptions
        {
            VirtualBytes = DiskBytes,
            ExtendedL2 = hasSubclusters,
            Preallocation = preallocation,
            Encryption = new NewEncryption { Method = method, Secret = secret, Iterations = 1000 },
        });
        byte[] model = new byte[DiskBytes];
        await disk.HoldsAsync(model);
        long length = new FileInfo(_path).Length;
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, disk.Writing(65536));
            model.AsSpan(1000, 100_000).Fill(0x31);
            await image.WriteAsync(1000, model.AsMemory(1000, 100_000));
        });
        Assert.Equal(length, new FileInfo(_path).Length);
        await disk.HoldsAsync(model);
    }

    [Theory]
    [InlineData("luks")]
    [InlineData("aes")]
    public async Task Encrypted_layers_have_a_secret_each_and_copies_between_them_are_encrypted_anew(string format)
    {
        var below = EncryptedDisk.Create(_directory.File("base"), "the lower one", 1 << 20, $"encrypt.format={format}");
        below.QemuIo("write -P 0x31 0 512k");
        var above = EncryptedDisk.Create(_path, "the upper one", 1 << 20, $"encrypt.format={format}", "-u", "-b", below.Path, "-F", "qcow2");
        byte[] model = new byte[1 << 20];
        model.AsSpan(0, 512 << 10).Fill(0x31);
        await Exclusive.Run(async () =>
        {
            Qcow2Exception missing = await Assert.ThrowsAnyAsync<Qcow2Exception>(() => Qcow2Image.OpenAsync(_path, above.Writing(65536)));
            Assert.Equal("Could not open backing file: Parameter 'encrypt.key-secret' is required for cipher", missing.Message);
            Qcow2Image lower = await Qcow2Image.OpenAsync(below.Path, new Qcow2OpenOptions { Secret = below.NewSecret() });
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, above.Writing(65536) with { Backing = lower });
            foreach (int at in (int[])[1000, 65536 + 512, 200_000, 600_000])
            {
                model.AsSpan(at, 5000).Fill(0x32);
                await image.WriteAsync(at, model.AsMemory(at, 5000));
            }
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
        });
        string raw = _directory.File("expected");
        File.WriteAllBytes(raw, model);
        Tool.Run("qemu-img", "compare", "-q", "--object", "secret,id=s,data=the upper one", "--object", "secret,id=t,data=the lower one", "--image-opts",
            $"{above.ImageOptions},backing.encrypt.key-secret=t,backing.driver=qcow2,backing.file.filename={below.Path}", $"driver=raw,file.filename={raw}");
    }

    [Theory]
    [InlineData("luks")]
    [InlineData("aes")]
    public async Task Neither_what_the_guest_writes_nor_the_password_is_in_the_file(string format)
    {
        const string password = "pass phrase of the guest";
        var disk = EncryptedDisk.Create(_path, password, 1 << 20, $"encrypt.format={format}");
        byte[] mark = Encoding.ASCII.GetBytes(string.Concat(Enumerable.Repeat("no one may read this. ", 100)));
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, disk.Writing(65536));
            for (int at = 0; at < 1 << 20; at += 100_001)
                await image.WriteAsync(at, mark.AsMemory(0, Math.Min(mark.Length, (1 << 20) - at)));
            using MappingLease lease = image.Lease();
            byte[] aligned = [.. mark.AsSpan(0, 2048)];
            Assert.True(lease.TryWrite(0, aligned));
            await image.WriteAsync(65536 * 9, aligned);
        });
        byte[] file = File.ReadAllBytes(_path);
        Assert.True(file.AsSpan().IndexOf(mark.AsSpan(0, 16)) < 0, "plain text is in the file");
        Assert.True(file.AsSpan().IndexOf(Encoding.ASCII.GetBytes(password)) < 0, "the password is in the file");
    }

    [Theory]
    [InlineData("luks")]
    [InlineData("aes")]
    public async Task A_lease_reads_and_overwrites_whole_sectors_and_leaves_parts_of_them_to_turns(string format)
    {
        var disk = EncryptedDisk.Create(_path, "x", 1 << 20, $"encrypt.format={format}");
        byte[] model = Disk.MixedBytes(1 << 20, seed: 8);
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, disk.Writing(65536));
            await image.WriteAsync(0, model);
            using MappingLease lease = image.Lease();
            byte[] read = new byte[200_000];
            Assert.True(lease.TryRead(65_000, read.AsSpan(0, 100_003)));
            Assert.True(read.AsSpan(0, 100_003).SequenceEqual(model.AsSpan(65_000, 100_003)));
            Assert.False(lease.TryWrite(100, model.AsSpan(0, 512)));
            Assert.False(lease.TryWrite(512, model.AsSpan(0, 100)));
            Assert.True(lease.TryWrite(66_048, model.AsSpan(1024, 150_016)));
            model.AsSpan(1024, 150_016).ToArray().CopyTo(model, 66_048);
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
        });
        await disk.HoldsAsync(model);
    }

    [Fact]
    public async Task Parts_of_one_sector_that_are_written_at_once_are_all_there()
    {
        var disk = EncryptedDisk.Create(_path, "x", 1 << 20, "encrypt.format=luks");
        byte[] model = new byte[1 << 20];
        var turns = new Random(5);
        var file = MemoryFile.Load(File.ReadAllBytes(_path), new MemoryFile { Turns = () => turns.Next(4) });
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(file, disk.Writing(65536));
            for (int round = 0; round < 2; round++)
            {
                var writes = new List<Task>();
                for (int at = 0; at < 4096; at += 64)
                {
                    model.AsSpan(at, 64).Fill((byte)(1 + round + (at / 64)));
                    writes.Add(image.WriteAsync(at, model.AsMemory(at, 64)).AsTask());
                    writes.Add(image.WriteZeroesAsync(8192 + at, 32, mayUnmap: at % 128 == 0).AsTask());
                }
                model.AsSpan(4096, 4096).Fill((byte)round);
                writes.Add(image.WriteAsync(4096, model.AsMemory(4096, 4096)).AsTask());
                await Task.WhenAll(writes);
            }
            await new ModelDisk(image, model, seed: 0).VerifyAsync();
        });
        File.WriteAllBytes(_path, file.ToArray());
        await disk.HoldsAsync(model);
    }

    [Theory]
    [InlineData("luks", "wrong", null, "Invalid password, cannot unlock any keyslot")]
    [InlineData("luks", null, null, "Parameter 'encrypt.key-secret' is required for cipher")]
    [InlineData("aes", null, null, "Parameter 'encrypt.key-secret' is required for cipher")]
    [InlineData("luks", "right", "aes", "Header reported 'luks' encryption format but options specify 'aes'")]
    [InlineData("aes", "right", "luks", "Header reported 'aes' encryption format but options specify 'luks'")]
    [InlineData(null, "right", "luks", "No encryption in image header, but options specified format 'luks'")]
    public async Task What_does_not_fit_the_image_is_refused_in_QEMUs_words_and_changes_nothing(
        string? format, string? password, string? asked, string expected)
    {
        if (format is null)
            Disk.Create(_path, 1 << 20, "compat=1.1");
        else
            EncryptedDisk.Create(_path, "right", 1 << 20, $"encrypt.format={format}");
        string before = Judge.Fingerprint(_path);
        using Secret? secret = password is null ? null : new Secret(Encoding.UTF8.GetBytes(password));
        await Exclusive.Run(async () =>
        {
            foreach (ImageAccess access in Enum.GetValues<ImageAccess>())
            {
                var options = new Qcow2OpenOptions { Access = access, Secret = secret, EncryptionFormat = asked };
                Qcow2Exception refusal = await Assert.ThrowsAnyAsync<Qcow2Exception>(() => Qcow2Image.OpenAsync(_path, options));
                Assert.Equal(expected, refusal.Message);
            }
        });
        Assert.Equal(before, Judge.Fingerprint(_path));
        string[] theirs = ["-c", "read 0 512", "--image-opts", $"driver=qcow2,file.filename={_path}{(asked is null ? "" : $",encrypt.format={asked}")}{(password is null ? "" : ",encrypt.key-secret=s")}"];
        (_, string output) = Tool.Try("qemu-io", password is null ? theirs : ["--object", $"secret,id=s,data={password}", .. theirs]);
        Assert.Contains(expected, output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Keys_that_are_missing_or_cut_off_are_named()
    {
        EncryptedDisk.Create(_path, "right", 1 << 20, "encrypt.format=luks");
        byte[] image = File.ReadAllBytes(_path);
        await RefusedAsync(file => file.AsSpan(112, 4).Fill(0x66), "Missing CRYPTO header for crypt method 2");
        await RefusedAsync(file => file[119] = 8, "CRYPTO header extension size 8, but expected size 16");
        await RefusedAsync(file => file[127] = 1, "is not a multiple of cluster size '65536'");
        await RefusedAsync(file => file[122] = 1, "Could not read encryption header");
        await RefusedAsync(file => file[130] = 1, "is not plausible");
        await RefusedAsync(file => file[35] = 1, "CRYPTO header extension only expected with LUKS encryption method");

        async Task RefusedAsync(Action<byte[]> damage, string expected)
        {
            byte[] damaged = [.. image];
            damage(damaged);
            File.WriteAllBytes(_path, damaged);
            using var secret = new Secret("right"u8);
            await Exclusive.Run(async () =>
            {
                Qcow2FormatException refusal = await Assert.ThrowsAsync<Qcow2FormatException>(() => Qcow2Image.OpenAsync(_path, new Qcow2OpenOptions { Secret = secret }));
                Assert.Contains(expected, refusal.Message, StringComparison.Ordinal);
            });
        }
    }

    [Fact]
    public async Task Compressed_clusters_are_refused()
    {
        var disk = EncryptedDisk.Create(_path, "x", 1 << 20, "encrypt.format=luks");
        await Exclusive.Run(async () =>
        {
            await using Qcow2Image image = await Qcow2Image.OpenAsync(_path, disk.Writing(65536));
            var refusal = await Assert.ThrowsAsync<Qcow2UnsupportedException>(async () => await image.WriteCompressedAsync(0, new byte[65536]));
            Assert.Contains($"write '{_path}' uncompressed", refusal.Message, StringComparison.Ordinal);
        });
    }

    [Fact]
    public void A_secret_that_is_disposed_is_gone()
    {
        var secret = new Secret("abc"u8);
        Assert.True(secret.Bytes.SequenceEqual("abc"u8));
        secret.Dispose();
        Assert.True(secret.Bytes.SequenceEqual(new byte[3]));
    }
}
