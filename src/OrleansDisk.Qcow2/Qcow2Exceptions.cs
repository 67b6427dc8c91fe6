namespace OrleansDisk.Qcow2;

/// <summary>Any reason why an image can't do what was asked; the message names the thing and the remedy.</summary>
public class Qcow2Exception : IOException
{
    public Qcow2Exception(string message) : base(message) { }

    public Qcow2Exception(string message, Exception? inner) : base(message, inner) { }
}

/// <summary>The bytes of the file break the qcow2 specification.</summary>
public class Qcow2FormatException(string message) : Qcow2Exception(message);

/// <summary>A check can't begin: the snapshot table can't be read, and what it keeps would all look lost.</summary>
/// <param name="message">What is wrong with it.</param>
/// <param name="reason">The system's words for it.</param>
public sealed class SnapshotTableException(string message, string reason) : Qcow2FormatException(message)
{
    public string Reason { get; } = reason;
}

/// <summary>The image is sound but uses something that this version does not support.</summary>
public sealed class Qcow2UnsupportedException(string feature, string remedy)
    : Qcow2Exception($"{feature} is not supported by this version; {remedy}")
{
    public string Feature { get; } = feature;
}

/// <summary>Metadata found damaged while the image was in use; the image has stopped.</summary>
public sealed class Qcow2CorruptException(string message) : Qcow2Exception(message);

/// <summary>A metadata write or a flush failed: what is on disk is no longer known, and the image has stopped.</summary>
public sealed class Qcow2FailedException(string message, Exception? cause) : Qcow2Exception(message, cause);

/// <summary>Another process, or another handle of this one, holds the image.</summary>
public sealed class ImageLockedException(string message) : Qcow2Exception(message);

/// <summary>The file system, or the format's limits, have no room for what was asked.</summary>
public sealed class NoSpaceException(string message, Exception? inner = null) : Qcow2Exception(message, inner);
