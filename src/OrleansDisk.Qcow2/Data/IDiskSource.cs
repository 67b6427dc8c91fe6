namespace OrleansDisk.Qcow2.Data;

/// <summary>Something that can be read as a disk: an image, or a raw file below one. Offsets and lengths are bytes.</summary>
public interface IDiskSource : IAsyncDisposable
{
    /// <summary>The file's name as it was opened.</summary>
    string FileName { get; }

    /// <summary>The name of the file in which its host offsets lie.</summary>
    string DataFileName => FileName;

    /// <summary>"qcow2" or "raw".</summary>
    string Format { get; }

    /// <summary>Size of the disk in bytes.</summary>
    long VirtualBytes { get; }

    /// <summary>The next disk of the chain, or null.</summary>
    IDiskSource? Backing { get; }

    /// <summary>Fills the buffer; what lies past the end of the disk reads as zeros.</summary>
    ValueTask ReadAsync(long offset, Memory<byte> buffer);

    /// <summary>
    /// What this layer alone says of the range that starts at <paramref name="offset"/>, for as far as that is the
    /// same, at most <paramref name="bytes"/>. The range must lie inside the disk.
    /// </summary>
    ValueTask<DiskExtent> GetExtentAsync(long offset, long bytes);
}

/// <summary>A range that one layer of a chain describes in one way.</summary>
/// <param name="Bytes">Length, at least 1.</param>
/// <param name="State">Where its bytes come from.</param>
/// <param name="HostOffset">Position in the layer's file of the first byte, or null.</param>
public readonly record struct DiskExtent(long Bytes, DiskExtentState State, long? HostOffset)
{
    /// <summary>Whether the bytes lie compressed in the file.</summary>
    public bool IsCompressed { get; init; }
}

/// <summary>Where the bytes of a range come from.</summary>
public enum DiskExtentState
{
    /// <summary>Not from this layer: from its backing file, or zeros when it has none.</summary>
    Unallocated,

    /// <summary>Data of this layer.</summary>
    Data,

    /// <summary>Zeros, says this layer; nothing is allocated.</summary>
    Zero,

    /// <summary>Zeros, says this layer, with space allocated for it.</summary>
    ZeroAllocated,

    /// <summary>Data of this layer of which it says that they are zeros.</summary>
    DataOfZeros,

    /// <summary>Nothing is allocated in this layer, and what it reads as is not known: it must be read.</summary>
    Unknown,
}
