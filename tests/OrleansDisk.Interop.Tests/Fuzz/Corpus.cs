using System.Text;
using OrleansDisk.Qcow2.Crypto;

namespace OrleansDisk.Interop.Tests.Fuzz;

/// <summary>A sound image that mutants are made of.</summary>
/// <param name="Name">What it is, in words.</param>
/// <param name="Path">Where it lies; its backing file lies beside it.</param>
/// <param name="Bytes">The file.</param>
internal sealed record CorpusImage(string Name, string Path, byte[] Bytes)
{
    public ImageFields Fields { get; } = new(Bytes);
}

/// <summary>Images by qemu-img, one of every variant of the format. Made once; always in the same order.</summary>
public sealed class Corpus : IDisposable
{
    /// <summary>How the names of data files end.</summary>
    public const string DataFile = "data.raw";

    private const string Password = "fuzz";
    private const string SecretObject = $"--object=secret,id=key,data={Password}";
    private readonly TemporaryDirectory _directory = new(inMemory: true);
    private readonly List<CorpusImage> _images = [];

    public Corpus()
    {
        byte[] data = Disk.MixedBytes(700_000, seed: 3);
        Array.Resize(ref data, 1 << 20);
        File.WriteAllBytes(_directory.File("raw"), data);
        foreach (string options in (string[])[
            "compat=0.10,cluster_size=512", "compat=0.10,cluster_size=64k", "compat=1.1,cluster_size=512",
            "compat=1.1,cluster_size=4k,refcount_bits=1", "compat=1.1,cluster_size=4k,refcount_bits=2",
            "compat=1.1,cluster_size=1k,refcount_bits=8", "compat=1.1,cluster_size=64k,refcount_bits=64",
            "compat=1.1,cluster_size=32k,lazy_refcounts=on", "compat=1.1,cluster_size=2M"])
        {
            Convert(options, options);
        }
        Convert("compressed, 4 KiB clusters", "compat=1.1,cluster_size=4k", "-c");
        Convert("compressed, version 2", "compat=0.10,cluster_size=64k", "-c");
        Convert("compressed, zstd", "compat=1.1,compression_type=zstd", "-c");
        Snapshots("snapshots", "compat=1.1,cluster_size=4k");
        Snapshots("snapshots, version 2, 512-byte clusters", "compat=0.10,cluster_size=512");
        Snapshots("snapshots, 32-bit refcounts", "compat=1.1,cluster_size=64k,refcount_bits=32");
        Backing("a qcow2 backing file", "qcow2", "compat=1.1,cluster_size=4k");
        Backing("a raw backing file, version 2", "raw", "compat=0.10,cluster_size=1k");
        Bitmaps();
        Create("extended L2 entries", "extended_l2=on,cluster_size=16k", "write -P 1 0 5k", "write -z 64k 2k");
        Create("external data file", $"data_file={_directory.File("1" + DataFile)}", "write -P 1 0 100k", "write -z 256k 64k");
        Create("raw data file, extended L2 entries", $"data_file={_directory.File("2" + DataFile)},data_file_raw=on,extended_l2=on", "write -P 1 0 100k");
        Encrypted("LUKS", "encrypt.format=luks,encrypt.iter-time=10");
        Encrypted("AES", "encrypt.format=aes");
    }

    /// <summary>The password of the encrypted images.</summary>
    internal static Secret Secret { get; } = new(Encoding.ASCII.GetBytes(Password));

    internal IReadOnlyList<CorpusImage> Images => _images;

    public void Dispose() => _directory.Dispose();

    private string NewPath() => _directory.File($"image{_images.Count}.qcow2");

    private void Add(string name, string path) => _images.Add(new CorpusImage(name, path, File.ReadAllBytes(path)));

    private void Convert(string name, string options, params string[] arguments)
    {
        string path = NewPath();
        Tool.Run("qemu-img", ["convert", "-q", .. arguments, "-f", "raw", "-O", "qcow2", "-o", options, _directory.File("raw"), path]);
        if (options.StartsWith("compat=1.1", StringComparison.Ordinal))
            Disk.QemuIo(path, "write -z 64k 100k", "write -z -u 300k 64k");
        Add(name, path);
    }

    private void Create(string name, string options, params string[] commands)
    {
        string path = NewPath();
        Disk.Create(path, 2 << 20, options);
        Disk.QemuIo(path, commands);
        Add(name, path);
    }

    private void Snapshots(string name, string options)
    {
        string path = NewPath();
        Disk.Create(path, 1 << 20, options);
        Disk.QemuIo(path, "write -P 1 0 200k");
        Tool.Run("qemu-img", "snapshot", "-c", "the first", path);
        Disk.QemuIo(path, "write -P 2 64k 100k", "discard 0 32k");
        Tool.Run("qemu-img", "snapshot", "-c", "the second", path);
        Disk.QemuIo(path, "write -P 3 100k 30k");
        Add(name, path);
    }

    private void Backing(string name, string format, string options)
    {
        string below = _directory.File($"backing{_images.Count}.{format}");
        Tool.Run("qemu-img", "convert", "-q", "-f", "raw", "-O", format, _directory.File("raw"), below);
        string path = NewPath();
        Disk.CreateOverlay(path, Path.GetFileName(below), format, 1 << 20, options);
        Disk.QemuIo(path, "write -P 4 10k 50k", "write -P 5 500k 3k");
        Add(name, path);
    }

    private void Bitmaps()
    {
        string path = NewPath();
        Disk.Create(path, 2 << 20, "compat=1.1,cluster_size=4k");
        Disk.QemuIo(path, "write -P 1 0 64k");
        Tool.Run("qemu-img", "bitmap", "--add", "-g", "4k", path, "first");
        Tool.Run("qemu-img", "bitmap", "--add", "--disable", "-g", "64k", path, "second");
        Disk.QemuIo(path, "write -P 2 32k 64k");
        Add("persistent bitmaps", path);
    }

    private void Encrypted(string name, string options)
    {
        string path = NewPath();
        Tool.Run("qemu-img", "create", "-q", SecretObject, "-f", "qcow2", "-o", $"{options},encrypt.key-secret=key,cluster_size=4k", path, "1M");
        Tool.Run("qemu-io", SecretObject, "-c", "write -P 1 0 100k", "-c", "write -z 40k 10k",
            "--image-opts", $"driver=qcow2,file.filename={path},encrypt.key-secret=key");
        Add(name, path);
    }
}
