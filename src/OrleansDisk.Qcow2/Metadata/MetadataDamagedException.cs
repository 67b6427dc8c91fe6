namespace OrleansDisk.Qcow2.Metadata;

/// <summary>
/// Metadata was found damaged in the middle of an operation. The image turns it into a
/// <see cref="Qcow2CorruptException"/> once the damage is recorded in the file.
/// </summary>
internal sealed class MetadataDamagedException(string what) : Exception(what);
