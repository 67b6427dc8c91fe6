using OrleansDisk.Abstractions;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Grains;

/// <summary>Says in the words of the messages what went wrong in the engine.</summary>
internal static class ImageErrors
{
    public static SectorError Of(Exception e) => e switch
    {
        ImageException known => known.Error,
        NoSpaceException => SectorError.NoSpace,
        BlockFileException { IsNoSpace: true } => SectorError.NoSpace,
        SnapshotException { Error: SnapshotError.NotFound } => SectorError.NotFound,
        SnapshotException { Error: SnapshotError.TooLarge or SnapshotError.RefcountsFull } => SectorError.NoSpace,
        SnapshotException => SectorError.NotSupported,
        BitmapException { Error: BitmapError.NotFound } => SectorError.NotFound,
        BitmapException { Error: BitmapError.AlreadyExists } => SectorError.AlreadyExists,
        BitmapException { Error: BitmapError.Inconsistent } => SectorError.Inconsistent,
        BitmapException => SectorError.InvalidArgument,
        ImageLockedException => SectorError.Locked,
        Qcow2UnsupportedException => SectorError.NotSupported,
        Qcow2FailedException or InvariantException => SectorError.Failed,
        ArgumentException or ShrinkNotAllowedException => SectorError.InvalidArgument,
        _ => SectorError.InputOutput,
    };

    /// <summary>What a control call fails with.</summary>
    public static ImageException Describe(ImageKey key, Exception e) =>
        e as ImageException ?? new ImageException(Of(e), $"image '{key}': {e.Message}");
}
