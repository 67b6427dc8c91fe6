namespace OrleansDisk.Nbd.Client;

/// <summary>A range that a metadata context describes in one way (NBD protocol, "NBD_REPLY_TYPE_BLOCK_STATUS").</summary>
/// <param name="Bytes">Length, at least 1.</param>
/// <param name="Flags">What the context says; for base:allocation, 1 is a hole and 2 are zeros.</param>
public readonly record struct NbdExtent(uint Bytes, uint Flags);
