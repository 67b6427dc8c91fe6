namespace OrleansDisk.Qcow2.Format;

/// <summary>Bytes that go into the first cluster, or to the keys; a barrier follows.</summary>
internal readonly record struct HeaderWrite(long Offset, byte[] Bytes);

/// <summary>
/// The order in which the first cluster of an image becomes another one. A disk writes whole sectors of 512 bytes, and
/// of several it may write some: so each step changes one sector, or what no header on disk leads to. After every step,
/// and in the middle of each, the cluster says what it said before or what it is to say, but for the names of features,
/// which are there for error messages and may be missing (docs/consistency.md, "The header").
/// </summary>
internal sealed class HeaderRewrite
{
    private const int SectorBytes = 512;
    private readonly List<HeaderWrite> _steps = [];

    /// <summary>The cluster as the steps so far leave it.</summary>
    private readonly byte[] _now;

    private HeaderRewrite(byte[] before) => _now = [.. before];

    /// <summary>The steps from one first cluster to another, both whole and valid.</summary>
    /// <remarks>
    /// Where the extensions, without the names, do not fit the first sector, or a small cluster has no room for two backing
    /// file names, the first sector is written last, and a crash in between may leave old fields with new extensions.
    /// </remarks>
    public static IReadOnlyList<HeaderWrite> Plan(byte[] before, byte[] after)
    {
        var rewrite = new HeaderRewrite(before);
        if (rewrite.ChangedSectors(after, 0, after.Length).Count > 1 && !rewrite.TrySwitch(before, after))
            rewrite.Add(after, SectorBytes, after.Length);
        rewrite.Add(after, 0, SectorBytes);
        // Nothing leads to what is left.
        rewrite.Add(after, SectorBytes, after.Length);
        return rewrite._steps;
    }

    /// <summary>All steps but the last ones, which put the new first sector in its place and clear what is behind it.</summary>
    private bool TrySwitch(byte[] before, byte[] after)
    {
        var oldHeader = Header.Parse(before);
        var newHeader = Header.Parse(after);
        int oldEnd = EndWithoutNames(oldHeader);
        int newEnd = EndWithoutNames(newHeader);
        (int oldName, int oldNameBytes) = NameOf(before);
        (int name, int nameBytes) = NameOf(after);
        int end = name == 0 ? newEnd + NamesBytes(newHeader) : name + nameBytes;
        if (Math.Max(oldEnd, newEnd) > SectorBytes)
            return false;
        int place = nameBytes == 0 ? 0 : FindPlace(newEnd, nameBytes, name, Math.Max(end, oldName + oldNameBytes));
        if (place + nameBytes > after.Length)
            return false;

        // 1. The old header with a list that ends in the first sector: nothing leads behind it but to the old name.
        AddFirstSector(_now, oldHeader, oldName);
        // 2. The new name where nothing leads yet. 3. The switch.
        byte[] switched = [.. _now];
        after.AsSpan(name, nameBytes).CopyTo(switched.AsSpan(place));
        Add(switched, SectorBytes, after.Length);
        byte[] sector = [.. after];
        after.AsSpan(name, nameBytes).CopyTo(sector.AsSpan(place));
        AddFirstSector(sector, newHeader, place);
        // 4. What the new first sector is to lead to.
        Add(after, SectorBytes, end);
        return true;

        int FindPlace(int first, int bytes, int final, int free)
        {
            if (first + bytes <= SectorBytes)
                return first;
            return final >= oldName + oldNameBytes || final + bytes <= oldName ? final : (free + 7) & ~7;
        }
    }

    private static (int Offset, int Bytes) NameOf(byte[] cluster)
    {
        int offset = (int)HeaderField.ReadUInt64(cluster, HeaderField.BackingFileOffset);
        return offset == 0 ? default : (offset, (int)HeaderField.ReadUInt32(cluster, HeaderField.BackingFileSize));
    }

    private static int NamesBytes(Header header) => header.Extensions.Sum(extension =>
        extension.Type == HeaderExtensionType.FeatureNames ? extension.StoredBytes : 0);

    /// <summary>Where the extensions end without the names, with the one that ends them.</summary>
    private static int EndWithoutNames(Header header) => header.HeaderBytes + HeaderExtension.PrefixBytes
        + header.Extensions.Sum(extension => extension.StoredBytes) - NamesBytes(header);

    /// <summary>Adds the step that writes a header's first sector without the names.</summary>
    private void AddFirstSector(byte[] cluster, Header header, int name)
    {
        byte[] sector = [.. cluster[..SectorBytes]];
        if (NamesBytes(header) > 0)
        {
            int at = header.HeaderBytes;
            foreach (HeaderExtension extension in header.Extensions)
            {
                if (extension.Type != HeaderExtensionType.FeatureNames)
                    at += extension.WriteTo(sector.AsSpan(at));
            }
            sector.AsSpan(at, HeaderExtension.PrefixBytes).Clear();
        }
        HeaderField.WriteUInt64(sector, HeaderField.BackingFileOffset, (ulong)name);
        Add(sector, 0, SectorBytes);
    }

    /// <summary>Adds the step that makes a part of the cluster what it is in <paramref name="wanted"/>, if it differs.</summary>
    private void Add(byte[] wanted, int from, int to)
    {
        List<int> changed = ChangedSectors(wanted, from, to);
        if (changed.Count == 0)
            return;
        int first = changed[0] * SectorBytes;
        int end = Math.Min((changed[^1] + 1) * SectorBytes, to);
        byte[] bytes = wanted[first..end];
        bytes.CopyTo(_now, first);
        _steps.Add(new HeaderWrite(first, bytes));
    }

    private List<int> ChangedSectors(byte[] wanted, int from, int to)
    {
        var changed = new List<int>();
        for (int start = from & ~(SectorBytes - 1); start < to; start += SectorBytes)
        {
            int end = Math.Min(start + SectorBytes, to);
            if (!wanted.AsSpan(start, end - start).SequenceEqual(_now.AsSpan(start, end - start)))
                changed.Add(start / SectorBytes);
        }
        return changed;
    }
}
