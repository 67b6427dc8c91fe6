namespace OrleansDisk.Qcow2.Format;

/// <summary>A position in the disk that the guest sees, in bytes.</summary>
public readonly record struct GuestOffset(long Bytes)
{
    public static GuestOffset operator +(GuestOffset offset, long bytes) => new(offset.Bytes + bytes);

    public override string ToString() => $"0x{Bytes:x}";
}

/// <summary>A position in the image file, in bytes.</summary>
public readonly record struct HostOffset(long Bytes)
{
    public static HostOffset operator +(HostOffset offset, long bytes) => new(offset.Bytes + bytes);

    public override string ToString() => $"0x{Bytes:x}";
}

/// <summary>A cluster of the disk that the guest sees, counted from 0.</summary>
public readonly record struct GuestCluster(long Index)
{
    public static GuestCluster operator +(GuestCluster cluster, long count) => new(cluster.Index + count);

    public override string ToString() => $"guest cluster {Index}";
}

/// <summary>A cluster of the image file, counted from 0.</summary>
public readonly record struct HostCluster(long Index)
{
    public static HostCluster operator +(HostCluster cluster, long count) => new(cluster.Index + count);

    public override string ToString() => $"host cluster {Index}";
}
