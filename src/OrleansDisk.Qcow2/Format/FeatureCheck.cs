namespace OrleansDisk.Qcow2.Format;

/// <summary>What a header's feature bits allow.</summary>
internal static class FeatureCheck
{
    /// <summary>The autoclear features that whoever writes here keeps true.</summary>
    public const AutoclearFeatures KnownAutoclear = AutoclearFeatures.Bitmaps | AutoclearFeatures.RawExternalData;

    private const IncompatibleFeatures Known = IncompatibleFeatures.Dirty | IncompatibleFeatures.Corrupt
        | IncompatibleFeatures.ExternalDataFile | IncompatibleFeatures.CompressionType | IncompatibleFeatures.ExtendedL2;

    /// <summary>Refuses bits that nobody told us about, by the names that the image gives them.</summary>
    public static void RefuseUnknown(IncompatibleFeatures features, IReadOnlyList<HeaderExtension> extensions)
    {
        ulong unknown = (ulong)(features & ~Known);
        if (unknown == 0)
            return;
        var names = new List<string>();
        HeaderExtension? table = extensions.LastOrDefault(e => e.Type == HeaderExtensionType.FeatureNames);
        foreach (FeatureName name in table?.ParseFeatureNames() ?? [])
        {
            if (name.Type != 0 || name.Bit > 63 || (unknown & (1UL << name.Bit)) == 0)
                continue;
            names.Add(name.Name);
            unknown &= ~(1UL << name.Bit);
        }
        if (unknown != 0)
            names.Add($"Unknown incompatible feature: {unknown:x}");
        throw new Qcow2FormatException($"Unsupported qcow2 feature(s): {string.Join(", ", names)}");
    }

    /// <summary>Subclusters are at least a sector.</summary>
    public static void ValidateSubclusters(int clusterBytes, IncompatibleFeatures features)
    {
        if (features.HasFlag(IncompatibleFeatures.ExtendedL2) && clusterBytes < 1 << ClusterGeometry.MinSubclusteredBits)
            throw new Qcow2FormatException($"Unsupported subcluster size: {clusterBytes / SubclusterBitmap.Count}");
    }

    /// <summary>The compression type is known, and its feature bit says the same.</summary>
    public static void ValidateCompressionType(byte type, IncompatibleFeatures features)
    {
        bool hasBit = features.HasFlag(IncompatibleFeatures.CompressionType);
        if (type > 1)
            throw new Qcow2FormatException($"qcow2: unknown compression type: {type}");
        if (type == 0 && hasBit)
            throw new Qcow2FormatException("qcow2: Compression type incompatible feature bit must not be set");
        if (type != 0 && !hasBit)
            throw new Qcow2FormatException("qcow2: Compression type incompatible feature bit must be set");
    }

    /// <summary>Refuses writing where only reading is safe.</summary>
    public static void RefuseUnwritable(Header header)
    {
        if (header.Incompatible.HasFlag(IncompatibleFeatures.Corrupt))
            throw new Qcow2Exception("qcow2: Image is corrupt; cannot be opened read/write");
    }
}
