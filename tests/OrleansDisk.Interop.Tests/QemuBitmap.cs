using System.Diagnostics;
using System.Text.Json;

namespace OrleansDisk.Interop.Tests;

/// <summary>What QEMU says that a bitmap says.</summary>
internal static class QemuBitmap
{
    /// <summary>The dirty ranges of a bitmap, as qemu-nbd tells them.</summary>
    /// <param name="path">The image, which nobody has open.</param>
    /// <param name="name">The bitmap.</param>
    /// <param name="socket">Where the server may listen.</param>
    public static List<(long Start, long Bytes)> DirtyRanges(string path, string name, string socket)
    {
        string pidFile = socket + ".pid";
        Tool.Run("qemu-nbd", "-f", "qcow2", "-r", "-k", socket, "-B", name, "--fork", "--pid-file", pidFile, path);
        string json = Tool.Run("qemu-img", "map", "--output=json", "--image-opts",
            $"driver=nbd,export=,server.type=unix,server.path={socket},x-dirty-bitmap=qemu:dirty-bitmap:{name}");
        WaitForEnd(pidFile);
        File.Delete(socket);
        using var map = JsonDocument.Parse(json);
        // With x-dirty-bitmap, what is dirty counts as a hole.
        return [.. map.RootElement.EnumerateArray().Where(extent => !extent.GetProperty("data").GetBoolean())
            .Select(extent => (extent.GetProperty("start").GetInt64(), extent.GetProperty("length").GetInt64()))];
    }

    /// <summary>The server ends with its client, and lets go of the image then.</summary>
    private static void WaitForEnd(string pidFile)
    {
        if (!File.Exists(pidFile) || !int.TryParse(File.ReadAllText(pidFile), out int id))
            return;
        try
        {
            using var server = Process.GetProcessById(id);
            server.WaitForExit();
        }
        catch (ArgumentException)
        {
            // It has ended.
        }
    }
}
