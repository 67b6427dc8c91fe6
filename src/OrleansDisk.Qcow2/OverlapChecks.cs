namespace OrleansDisk.Qcow2;

/// <summary>Kinds of metadata that a write is not to hit (overlap-check).</summary>
[Flags]
public enum OverlapChecks
{
    None = 0,
    MainHeader = 1 << 0,
    ActiveL1 = 1 << 1,
    ActiveL2 = 1 << 2,
    RefcountTable = 1 << 3,
    RefcountBlock = 1 << 4,
    SnapshotTable = 1 << 5,
    InactiveL1 = 1 << 6,
    InactiveL2 = 1 << 7,
    BitmapDirectory = 1 << 8,

    /// <summary>What never moves while nothing is resized.</summary>
    Constant = MainHeader | ActiveL1 | RefcountTable | SnapshotTable | BitmapDirectory,

    /// <summary>What is known without reading the file.</summary>
    Cached = Constant | ActiveL2 | RefcountBlock | InactiveL1,

    All = Cached | InactiveL2,
}
