namespace OrleansDisk.Abstractions;

/// <summary>Why a request did not do what it asked for.</summary>
public enum SectorError
{
    None = 0,

    /// <summary>The host's disk, a quota, or a limit of the format is reached.</summary>
    NoSpace,

    /// <summary>The request itself makes no sense: a range outside the disk, an impossible name or size.</summary>
    InvalidArgument,

    /// <summary>The image, or its pool, is open for reading only.</summary>
    ReadOnly,

    /// <summary>There is no such image, pool, snapshot or bitmap.</summary>
    NotFound,

    /// <summary>An image or a bitmap of that name is there already.</summary>
    AlreadyExists,

    /// <summary>Someone else holds the image's lock.</summary>
    Locked,

    /// <summary>The image needs something that this version does not have.</summary>
    NotSupported,

    /// <summary>Reading or writing the file failed, or the image's metadata is damaged where the request needed it.</summary>
    InputOutput,

    /// <summary>The image has stopped after a failed metadata write or flush; writes that were not flushed may be lost.</summary>
    Failed,

    /// <summary>The request names an earlier opening of the image and was not started; open the image again.</summary>
    StaleGeneration,

    /// <summary>The grain can't be reached: it may or may not have done what was asked.</summary>
    Unavailable,

    /// <summary>The bitmap may have missed changes, and can only be removed: what it was to tell must be found out another way.</summary>
    Inconsistent,
}
