namespace OrleansDisk.Simulation.Host;

/// <summary>A part of a disk that is a file of its own.</summary>
internal readonly record struct FileRegion(long Start, long Bytes)
{
    public bool Holds(long offset) => offset >= Start && offset < Start + Bytes;
}
