using System.Globalization;
using System.Text;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>The facts of an image in qemu-img's words.</summary>
internal static class InfoText
{
    public static string Human(ImageInfo info)
    {
        var text = new StringBuilder();
        text.Append($"image: {info.FileName}\nfile format: {info.Format}\n");
        text.Append($"virtual size: {NumberText.Size((ulong)info.VirtualBytes)} ({info.VirtualBytes} bytes)\n");
        string diskSize = info.AllocatedBytes is { } allocated ? NumberText.Size((ulong)allocated) : "unavailable";
        text.Append($"disk size: {diskSize}\n");
        if (info.Header is { } header)
            AppendHeader(text, info, header);
        else if (info.Luks is { } luks)
            text.Append("encrypted: yes\n").Append(Specific(luks));
        return text.ToString();
    }

    private static void AppendHeader(StringBuilder text, ImageInfo info, Header header)
    {
        if (header.Encryption != EncryptionMethod.None)
            text.Append("encrypted: yes\n");
        text.Append($"cluster_size: {header.Geometry.ClusterBytes}\n");
        if (header.Incompatible.HasFlag(IncompatibleFeatures.Dirty))
            text.Append("cleanly shut down: no\n");
        if (header.BackingFile is { } backing)
        {
            text.Append($"backing file: {backing}");
            if (info.BackingPath != backing)
                text.Append($" (actual path: {info.BackingPath})");
            text.Append('\n');
            if (header.BackingFormat is { } format)
                text.Append($"backing file format: {format}\n");
        }
        if (info.Snapshots.Count > 0)
            AppendSnapshots(text, info.Snapshots);
        AppendSpecific(text, info, header);
    }

    /// <summary>The part of the facts that only a plain LUKS image has.</summary>
    public static string Specific(LuksHeader luks)
    {
        var text = new StringBuilder("Format specific information:\n");
        EncryptionText.AppendLuks(text, luks, indent: 4, isPlain: true);
        return text.ToString();
    }

    /// <summary>The part of the facts that only a qcow2 image has.</summary>
    public static string Specific(ImageInfo info)
    {
        var text = new StringBuilder();
        AppendSpecific(text, info, info.Header!);
        return text.ToString();
    }

    private static void AppendSpecific(StringBuilder text, ImageInfo info, Header header)
    {
        text.Append("Format specific information:\n");
        Line(4, $"compat: {Compat(header)}");
        Line(4, $"compression type: {CompressionType(header)}");
        if (header.Version >= 3)
            Line(4, $"lazy refcounts: {Bool(header.Compatible.HasFlag(CompatibleFeatures.LazyRefcounts))}");
        if (info.Bitmaps.Count > 0)
            Line(4, "bitmaps:");
        for (int i = 0; i < info.Bitmaps.Count; i++)
        {
            string[] flags = [.. FlagNames(info.Bitmaps[i].Flags)];
            Line(8, $"[{i}]:");
            Line(12, "flags:");
            for (int flag = 0; flag < flags.Length; flag++)
                Line(16, $"[{flag}]: {flags[flag]}");
            Line(12, $"name: {info.Bitmaps[i].Name}");
            Line(12, $"granularity: {1L << info.Bitmaps[i].GranularityBits}");
        }
        Line(4, $"refcount bits: {1 << header.Geometry.RefcountOrder}");
        if (DataFile(header) is { } dataFile)
        {
            Line(4, $"data file: {dataFile}");
            Line(4, $"data file raw: {Bool(header.Autoclear.HasFlag(AutoclearFeatures.RawExternalData))}");
        }
        if (header.Encryption != EncryptionMethod.None)
        {
            Line(4, "encrypt:");
            EncryptionText.Append(text, header, info.Luks);
        }
        if (header.Version >= 3)
        {
            Line(4, $"corrupt: {Bool(header.Incompatible.HasFlag(IncompatibleFeatures.Corrupt))}");
            Line(4, $"extended l2: {Bool(header.Incompatible.HasFlag(IncompatibleFeatures.ExtendedL2))}");
        }

        void Line(int indent, string line) => text.Append(' ', indent).Append(line).Append('\n');
    }

    /// <summary>The list of an image's snapshots.</summary>
    public static string SnapshotList(IReadOnlyList<SnapshotEntry> snapshots)
    {
        var text = new StringBuilder();
        AppendSnapshots(text, snapshots);
        return text.ToString();
    }

    /// <summary>A stored name as far as a C program sees it.</summary>
    private static string Shown(string name) => name.IndexOf('\0', StringComparison.Ordinal) is >= 0 and int end ? name[..end] : name;

    private static void AppendSnapshots(StringBuilder text, IReadOnlyList<SnapshotEntry> snapshots)
    {
        text.Append("Snapshot list:\n");
        text.Append("ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT\n");
        foreach (SnapshotEntry snapshot in snapshots)
        {
            string date = snapshot.Date.ToLocalTime().ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture);
            ulong seconds = snapshot.VmClockNanoseconds / 1_000_000_000;
            ulong milliseconds = snapshot.VmClockNanoseconds / 1_000_000 % 1000;
            string clock = $"{seconds / 3600:00}:{seconds / 60 % 60:00}:{seconds % 60:00}.{milliseconds:000}";
            string count = snapshot.InstructionCount is { } instructions && instructions != ulong.MaxValue
                ? instructions.ToString(CultureInfo.InvariantCulture) : "";
            text.Append($"{Shown(snapshot.Id),-9} {Shown(snapshot.Name),-16} {NumberText.Size(snapshot.VmStateBytes),8}");
            text.Append($"{date,20}{clock,13}{count,11}\n");
        }
    }

    public static string Json(IReadOnlyList<ImageInfo> chain, bool isArray)
    {
        var json = new JsonText();
        if (isArray)
            json.Begin(isArray: true);
        foreach (ImageInfo info in chain)
            AppendImage(json, info);
        if (isArray)
            json.End(isArray: true);
        return json.ToString();
    }

    /// <summary>One image; the keys come in the order in which QEMU's tables hold them.</summary>
    private static void AppendImage(JsonText json, ImageInfo info)
    {
        Header? header = info.Header;
        json.Begin();
        if (header is { BackingFile: not null, BackingFormat: { } backingFormat })
            json.Value("backing-filename-format", backingFormat);
        if (info.Snapshots.Count > 0)
            AppendSnapshots(json, info.Snapshots);
        json.Value("virtual-size", info.VirtualBytes);
        json.Value("filename", info.FileName);
        if (header is not null)
            json.Value("cluster-size", header.Geometry.ClusterBytes);
        json.Value("format", info.Format);
        if (info.AllocatedBytes is { } allocated)
            json.Value("actual-size", allocated);
        if (header is not null)
            AppendSpecific(json, info, header);
        else if (info.Luks is { } luks)
            AppendSpecific(json, luks);
        if (info.BackingPath is { } backingPath)
            json.Value("full-backing-filename", backingPath);
        if (header is null ? info.Luks is not null : header.Encryption != EncryptionMethod.None)
            json.Value("encrypted", true);
        if (header?.BackingFile is { } backing)
            json.Value("backing-filename", backing);
        // Of an export, where nobody knows what it takes on disk either, QEMU says nothing.
        if (header is not null || info.AllocatedBytes is not null)
            json.Value("dirty-flag", header?.Incompatible.HasFlag(IncompatibleFeatures.Dirty) == true);
        json.End();
    }

    private static void AppendSpecific(JsonText json, LuksHeader luks)
    {
        json.Begin("format-specific").Value("type", "luks").Begin("data");
        EncryptionText.AppendLuks(json, luks, isPlain: true);
        json.End().End();
    }

    private static void AppendSpecific(JsonText json, ImageInfo info, Header header)
    {
        json.Begin("format-specific").Value("type", "qcow2").Begin("data");
        json.Value("compat", Compat(header)).Value("compression-type", CompressionType(header));
        if (header.Version >= 3)
            json.Value("lazy-refcounts", header.Compatible.HasFlag(CompatibleFeatures.LazyRefcounts));
        if (info.Bitmaps.Count > 0)
            AppendBitmaps(json, info.Bitmaps);
        json.Value("refcount-bits", 1L << header.Geometry.RefcountOrder);
        if (DataFile(header) is { } dataFile)
        {
            json.Value("data-file", dataFile);
            json.Value("data-file-raw", header.Autoclear.HasFlag(AutoclearFeatures.RawExternalData));
        }
        if (header.Encryption != EncryptionMethod.None)
            EncryptionText.Append(json, header, info.Luks);
        if (header.Version >= 3)
        {
            json.Value("corrupt", header.Incompatible.HasFlag(IncompatibleFeatures.Corrupt));
            json.Value("extended-l2", header.Incompatible.HasFlag(IncompatibleFeatures.ExtendedL2));
        }
        json.End().End();
    }

    private static void AppendBitmaps(JsonText json, IReadOnlyList<BitmapEntry> bitmaps)
    {
        json.Begin("bitmaps", isArray: true);
        foreach (BitmapEntry bitmap in bitmaps)
        {
            json.Begin().Begin("flags", isArray: true);
            foreach (string flag in FlagNames(bitmap.Flags))
                json.Value(null, flag);
            json.End(isArray: true).Value("name", bitmap.Name).Value("granularity", 1L << bitmap.GranularityBits).End();
        }
        json.End(isArray: true);
    }

    private static void AppendSnapshots(JsonText json, IReadOnlyList<SnapshotEntry> snapshots)
    {
        json.Begin("snapshots", isArray: true);
        foreach (SnapshotEntry snapshot in snapshots)
        {
            json.Begin();
            if (snapshot.InstructionCount is { } instructions && instructions != ulong.MaxValue)
                json.Value("icount", (long)instructions);
            json.Value("vm-clock-nsec", (long)(snapshot.VmClockNanoseconds % 1_000_000_000));
            json.Value("name", Shown(snapshot.Name));
            json.Value("date-sec", snapshot.Date.ToUnixTimeSeconds());
            json.Value("date-nsec", snapshot.Date.Ticks % TimeSpan.TicksPerSecond * 100);
            json.Value("vm-clock-sec", (long)(snapshot.VmClockNanoseconds / 1_000_000_000));
            json.Value("id", Shown(snapshot.Id));
            json.Value("vm-state-size", (long)snapshot.VmStateBytes);
            json.End();
        }
        json.End(isArray: true);
    }

    private static IEnumerable<string> FlagNames(BitmapFlags flags)
    {
        if (flags.HasFlag(BitmapFlags.InUse))
            yield return "in-use";
        if (flags.HasFlag(BitmapFlags.Auto))
            yield return "auto";
    }

    private static string Compat(Header header) => header.Version >= 3 ? "1.1" : "0.10";

    private static string CompressionType(Header header) => header.CompressionType == Qcow2.Format.CompressionType.Zlib ? "zlib" : "zstd";

    private static string? DataFile(Header header) =>
        header.Geometry.HasExternalData ? header.DataFile ?? "" : null;

    private static string Bool(bool value) => value ? "true" : "false";
}
