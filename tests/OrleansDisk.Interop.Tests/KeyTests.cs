using System.Buffers.Binary;
using System.Text;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Interop.Tests;

/// <summary>Keys and ciphers of encrypted images, against QEMU's.</summary>
public sealed class KeyTests : IDisposable
{
    private const int ClusterBytes = 65536;
    private readonly TemporaryDirectory _directory = new(inMemory: true);
    private readonly string _path;

    public KeyTests() => _path = _directory.File("disk");

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("aes-256", "sha256")]
    [InlineData("aes-128", "sha256")]
    [InlineData("aes-256", "sha1")]
    [InlineData("aes-256", "sha512")]
    [InlineData("aes-192", "sha384")]
    [InlineData("aes-256,encrypt.cipher-mode=cbc", "sha256")]
    [InlineData("aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain", "sha256")]
    [InlineData("aes-256,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256", "sha1")]
    [InlineData("aes-192,encrypt.cipher-mode=xts,encrypt.ivgen-alg=essiv", "sha256")]
    public void A_passphrase_opens_the_LUKS_image_that_QEMU_made_and_its_clusters_decrypt(string cipherName, string hash)
    {
        CreateLuks("opensesame", $"encrypt.cipher-alg={cipherName},encrypt.hash-alg={hash}");
        QemuIo("opensesame", "write -P 0x11 0 64k", "write -P 0x5a 64k 64k");
        using LuksKeys keys = ReadKeys();
        Assert.False(keys.TryUnlock("opensesam"u8));
        Assert.False(keys.IsUnlocked);
        Assert.True(keys.TryUnlock("opensesame"u8));
        using SectorCipher cipher = keys.CreateCipher();
        byte[] image = File.ReadAllBytes(_path);
        for (int cluster = 0; cluster < 2; cluster++)
        {
            long host = HostOf(image, cluster);
            Span<byte> data = image.AsSpan((int)host, ClusterBytes);
            cipher.Decrypt(data, (ulong)host / SectorCipher.SectorBytes);
            Assert.Equal(-1, data.IndexOfAnyExcept((byte)(cluster == 0 ? 0x11 : 0x5a)));
            cipher.Encrypt(data, (ulong)host / SectorCipher.SectorBytes);
        }
        Assert.True(image.AsSpan().SequenceEqual(File.ReadAllBytes(_path)));
    }

    [Fact]
    public async Task QEMU_opens_an_image_whose_keys_were_made_here()
    {
        CreateLuks("theirs", "");
        using var keys = LuksKeys.Create("ours"u8, 2000);
        WriteKeys(keys);
        QemuIo("ours", "write -P 0x33 1M 128k", "read -P 0x33 1M 128k");
        Assert.NotEqual(0, TryQemuIo("theirs", "read 0 512"));
        using SectorCipher cipher = keys.CreateCipher();
        byte[] image = File.ReadAllBytes(_path);
        long host = HostOf(image, 16);
        Span<byte> data = image.AsSpan((int)host, ClusterBytes);
        cipher.Decrypt(data, (ulong)host / SectorCipher.SectorBytes);
        Assert.Equal(-1, data.IndexOfAnyExcept((byte)0x33));
        await FindsCleanAsync("ours");
    }

    [Fact]
    public async Task Slots_that_are_filled_open_and_slots_that_are_erased_do_not()
    {
        CreateLuks("first", "");
        QemuIo("first", "write -P 0x44 0 64k");
        using (LuksKeys keys = ReadKeys())
        {
            Assert.True(keys.TryUnlock("first"u8));
            keys.Fill(5, "second"u8, 1500);
            Assert.True(keys.Opens(5, "second"u8));
            Assert.False(keys.Opens(5, "first"u8));
            WriteKeys(keys);
        }
        QemuIo("first", "read -P 0x44 0 64k");
        QemuIo("second", "read -P 0x44 0 64k");
        using (LuksKeys keys = ReadKeys())
        {
            keys.Erase(0);
            WriteKeys(keys);
            Assert.False(keys.TryUnlock("first"u8));
            Assert.True(keys.TryUnlock("second"u8));
        }
        Assert.NotEqual(0, TryQemuIo("first", "read 0 512"));
        QemuIo("second", "read -P 0x44 0 64k");
        await FindsCleanAsync("second");
    }

    [Theory]
    [InlineData("secret")]
    [InlineData("a password that is longer than sixteen bytes")]
    public void Clusters_of_the_legacy_encryption_decrypt_with_the_guest_sectors_number(string password)
    {
        byte[] disk = new byte[4 * ClusterBytes];
        new Random(7).NextBytes(disk);
        File.WriteAllBytes(_path + ".raw", disk);
        Tool.Run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "--object", $"secret,id=s,data={password}",
            "-o", "encrypt.format=aes,encrypt.key-secret=s", _path + ".raw", _path);
        using var cipher = AesCbcCipher.Legacy(Encoding.UTF8.GetBytes(password));
        byte[] image = File.ReadAllBytes(_path);
        for (int cluster = 0; cluster < 4; cluster++)
        {
            Span<byte> data = image.AsSpan((int)HostOf(image, cluster), ClusterBytes);
            byte[] encrypted = data.ToArray();
            ulong sector = (ulong)cluster * ClusterBytes / SectorCipher.SectorBytes;
            cipher.Decrypt(data, sector);
            Assert.True(data.SequenceEqual(disk.AsSpan(cluster * ClusterBytes, ClusterBytes)), $"cluster {cluster}");
            cipher.Encrypt(data, sector);
            Assert.True(data.SequenceEqual(encrypted), $"cluster {cluster}, encrypted again");
        }
    }

    [Theory]
    [InlineData(0, "not in LUKS format")] // magic
    [InlineData(7, "LUKS version")]
    [InlineData(9, "LUKS with the cipher")]
    [InlineData(41, "LUKS with the cipher")]
    [InlineData(73, "LUKS with the hash")]
    [InlineData(108, "master key length")]
    [InlineData(164, "master key iteration count")]
    [InlineData(208, "Keyslot 0 state is corrupted")]
    [InlineData(212, "Keyslot 0 iteration count")]
    [InlineData(208 + 40, "Keyslot 0 is corrupted")] // material offset
    [InlineData(208 + 46, "stripes")]
    public void A_damaged_header_is_named_and_refused(int at, string expected)
    {
        using var keys = LuksKeys.Create("x"u8, 1000);
        byte[] area = keys.Area.ToArray();
        area[at] ^= 0x7f;
        var refusal = Assert.ThrowsAny<Qcow2Exception>(() => LuksKeys.Parse(area));
        Assert.Contains(expected, refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Slots_that_share_key_material_and_an_area_that_is_cut_off_are_refused()
    {
        using var keys = LuksKeys.Create("x"u8, 1000);
        byte[] area = keys.Area.ToArray();
        area.AsSpan(208 + 40, 4).CopyTo(area.AsSpan(208 + 48 + 40));
        Assert.Contains("overlapping", Assert.ThrowsAny<Qcow2Exception>(() => LuksKeys.Parse(area)).Message, StringComparison.Ordinal);
        byte[] cut = keys.Area[..^4096].ToArray(); // the last bytes are padding
        Assert.Contains("Keyslot 7", Assert.ThrowsAny<Qcow2Exception>(() => LuksKeys.Parse(cut)).Message, StringComparison.Ordinal);
    }

    private void CreateLuks(string passphrase, string options) => Tool.Run(
        "qemu-img", "create", "-q", "-f", "qcow2", "--object", $"secret,id=s,data={passphrase}",
        "-o", $"encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,{options}".TrimEnd(','), _path, "16M");

    private Task FindsCleanAsync(string passphrase)
    {
        Tool.Run("qemu-img", "check", "-q", "--object", $"secret,id=s,data={passphrase}", "--image-opts", ImageOptions);
        return Judge.OwnCheckFindsAtMostLeaksAsync(_path);
    }

    private string ImageOptions => $"driver=qcow2,encrypt.key-secret=s,file.filename={_path}";

    private void QemuIo(string passphrase, params string[] commands) =>
        Assert.Equal(0, TryQemuIo(passphrase, commands));

    private int TryQemuIo(string passphrase, params string[] commands)
    {
        (int status, string output) = Tool.Try("qemu-io", ["--object", $"secret,id=s,data={passphrase}", .. commands.SelectMany(command => (string[])["-c", command]),
            "--image-opts", ImageOptions]);
        return output.Contains("failed", StringComparison.Ordinal) ? 1 : status;
    }

    private LuksKeys ReadKeys()
    {
        byte[] image = File.ReadAllBytes(_path);
        (int start, int bytes) = KeyArea(image);
        return LuksKeys.Parse(image.AsSpan(start, bytes).ToArray());
    }

    private void WriteKeys(LuksKeys keys)
    {
        byte[] image = File.ReadAllBytes(_path);
        (int start, int bytes) = KeyArea(image);
        Assert.Equal(bytes, keys.Area.Length);
        keys.Area.Span.CopyTo(image.AsSpan(start));
        File.WriteAllBytes(_path, image);
    }

    private static (int Start, int Bytes) KeyArea(byte[] image)
    {
        HeaderExtension extension = HeaderExtension.ParseAll(image.AsSpan(112..ClusterBytes)).Single(one => one.Type == HeaderExtensionType.Encryption);
        return ((int)BinaryPrimitives.ReadUInt64BigEndian(extension.Data), (int)BinaryPrimitives.ReadUInt64BigEndian(extension.Data.AsSpan(8)));
    }

    /// <summary>Where a cluster of the first L2 table lies.</summary>
    private static long HostOf(byte[] image, int cluster)
    {
        long l1 = BinaryPrimitives.ReadInt64BigEndian(image.AsSpan(40));
        long l2 = BinaryPrimitives.ReadInt64BigEndian(image.AsSpan((int)l1)) & 0x00ff_ffff_ffff_fe00;
        return BinaryPrimitives.ReadInt64BigEndian(image.AsSpan((int)l2 + (8 * cluster))) & 0x00ff_ffff_ffff_fe00;
    }
}
