namespace OrleansDisk.Qcow2.Bitmaps;

/// <summary>A part of the disk that is alike in a bitmap.</summary>
/// <param name="Bytes">Length, at least 1.</param>
/// <param name="IsDirty">Whether the bits are set.</param>
public readonly record struct BitmapExtent(long Bytes, bool IsDirty);

/// <summary>What is known of a bitmap without looking at its bits.</summary>
/// <param name="Name">Its name.</param>
/// <param name="GranularityBytes">How many bytes of the disk one bit stands for.</param>
/// <param name="IsEnabled">Whether changes of the disk set bits.</param>
/// <param name="IsInconsistent">Whether its bits mean nothing, because nobody stored it after its last use.</param>
public readonly record struct BitmapDescription(string Name, long GranularityBytes, bool IsEnabled, bool IsInconsistent);
