using System.Globalization;
using System.Text;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Crypto;

namespace OrleansDisk.Interop.Tests;

/// <summary>An encrypted image by qemu-img, and what QEMU says of it.</summary>
internal sealed class EncryptedDisk(string path, string password)
{
    public string Path => path;

    /// <summary>How QEMU's programs are told to open it.</summary>
    public string[] Opening => ["--object", $"secret,id=s,data={password}", "--image-opts"];

    public string ImageOptions => $"driver=qcow2,encrypt.key-secret=s,file.filename={path}";

    /// <summary>Makes an image with qemu-img.</summary>
    /// <param name="path">The file.</param>
    /// <param name="password">Its password.</param>
    /// <param name="bytes">Size of the disk.</param>
    /// <param name="options">What -o takes, with encrypt.format.</param>
    /// <param name="more">Further arguments.</param>
    public static EncryptedDisk Create(string path, string password, long bytes, string options, params string[] more)
    {
        string iterTime = options.Contains("luks", StringComparison.Ordinal) ? ",encrypt.iter-time=10" : "";
        Tool.Run("qemu-img", ["create", "-q", "-f", "qcow2", .. more, "--object", $"secret,id=s,data={password}",
            "-o", $"{options},encrypt.key-secret=s{iterTime}", path, bytes.ToString(CultureInfo.InvariantCulture)]);
        return new EncryptedDisk(path, password);
    }

    public Qcow2OpenOptions Writing(int clusterBytes) => Disk.Writing(clusterBytes) with { Secret = NewSecret() };

    public Secret NewSecret() => new(Encoding.UTF8.GetBytes(password));

    /// <summary>Runs qemu-io commands; a read that finds something else fails.</summary>
    public void QemuIo(params string[] commands)
    {
        string output = Tool.Run("qemu-io", [.. commands.SelectMany(command => (string[])["-c", command]), .. Opening, ImageOptions]);
        Assert.False(output.Contains("fail", StringComparison.OrdinalIgnoreCase), output);
    }

    /// <summary>QEMU reads exactly these bytes, and neither checker finds anything.</summary>
    public async Task HoldsAsync(byte[] expected)
    {
        string raw = path + ".expected";
        File.WriteAllBytes(raw, expected);
        Tool.Run("qemu-img", ["compare", "-q", .. Opening, ImageOptions, $"driver=raw,file.filename={raw}"]);
        Tool.Run("qemu-img", ["check", "-q", .. Opening, ImageOptions]);
        await Judge.OwnCheckFindsAtMostLeaksAsync(path);
    }
}
