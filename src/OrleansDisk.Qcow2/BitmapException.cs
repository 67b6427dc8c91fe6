namespace OrleansDisk.Qcow2;

/// <summary>Why something can't be done with a bitmap.</summary>
public enum BitmapError
{
    /// <summary>The image has no bitmap of that name.</summary>
    NotFound,

    /// <summary>The image has one of that name.</summary>
    AlreadyExists,

    /// <summary>Nobody stored the bitmap after its last use: it may have missed changes, and can only be removed.</summary>
    Inconsistent,

    /// <summary>The format, or a limit of it, keeps the image from having such a bitmap.</summary>
    Impossible,
}

/// <summary>Something can't be done with a bitmap; nothing has changed.</summary>
public sealed class BitmapException(BitmapError error, string message) : Qcow2Exception(message)
{
    public BitmapError Error { get; } = error;
}
