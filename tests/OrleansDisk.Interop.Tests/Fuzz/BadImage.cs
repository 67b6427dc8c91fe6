using OrleansDisk.Qcow2;

namespace OrleansDisk.Interop.Tests.Fuzz;

/// <summary>A small image by qemu-img of which a test breaks a field.</summary>
internal sealed class BadImage : IDisposable
{
    private readonly TemporaryDirectory _directory = new(inMemory: true);

    public static async Task OpenAndCloseAsync(string path)
    {
        await using Qcow2Image image = await Qcow2Image.OpenAsync(path, new Qcow2OpenOptions());
    }

    /// <summary>Puts a big-endian value of 1 to 8 bytes into a file.</summary>
    public static void Poke(string path, int offset, int bytes, ulong value)
    {
        byte[] image = File.ReadAllBytes(path);
        for (int i = bytes - 1; i >= 0; i--, value >>= 8)
            image[offset + i] = (byte)value;
        File.WriteAllBytes(path, image);
    }

    /// <summary>A file beside the image.</summary>
    public string Sibling(string name) => _directory.File(name);

    /// <summary>
    /// 1 MiB, 64 KiB clusters, the first of them written: refcount table at host cluster 1, its block at 2, L1 table at 3,
    /// L2 table at 4.
    /// </summary>
    public string Make()
    {
        string path = Sibling("disk.qcow2");
        Disk.Create(path, 1 << 20, "compat=1.1");
        Disk.QemuIo(path, "write -P 1 0 64k");
        return path;
    }

    /// <summary>An image that says that its backing file, a raw one, has that name.</summary>
    public string MakeOverlay(string backing)
    {
        string path = Sibling("overlay.qcow2");
        Disk.Create(path, 1 << 20, "compat=1.1");
        Tool.Run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", backing, "-F", "raw", path);
        return path;
    }

    public void Dispose() => _directory.Dispose();
}
