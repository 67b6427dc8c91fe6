using System.Text.Json;

namespace OrleansDisk.Interop.Tests.Differential;

/// <summary>For each sector of a disk, which layer holds it and how, as qemu-img map says.</summary>
internal static class MapOfDisk
{
    private const int SectorBytes = 512;

    /// <summary>
    /// 'z' for zeros that take no space, 'a' for zeros for which the top layer has a cluster, '0' to '9' for data of
    /// the layer of that depth.
    /// </summary>
    public static char[] Read(string path)
    {
        using var json = JsonDocument.Parse(Tool.Run("qemu-img", "map", "--output=json", "-f", "qcow2", path));
        var sectors = new List<char>();
        foreach (JsonElement extent in json.RootElement.EnumerateArray())
        {
            int depth = extent.GetProperty("depth").GetInt32();
            // A data cluster that is a hole in the file is data all the same.
            bool isData = extent.GetProperty("data").GetBoolean();
            bool hasCluster = depth == 0 && extent.TryGetProperty("offset", out _);
            char kind = isData ? (char)('0' + depth) : hasCluster ? 'a' : 'z';
            sectors.AddRange(Enumerable.Repeat(kind, (int)(extent.GetProperty("length").GetInt64() / SectorBytes)));
        }
        return [.. sectors];
    }
}
