namespace OrleansDisk.Nbd.Protocol;

/// <summary>Request types of the transmission phase (NBD protocol, "Request types").</summary>
public enum NbdCommand : ushort
{
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    Trim = 4,
    Cache = 5,
    WriteZeroes = 6,
    BlockStatus = 7,
}

/// <summary>Flags of a request (NBD protocol, "Command flags").</summary>
[Flags]
public enum NbdCommandFlags : ushort
{
    None = 0,

    /// <summary>Force unit access: the effect is on stable storage before the reply.</summary>
    Fua = 1 << 0,

    /// <summary>Write zeroes: keep the range allocated.</summary>
    NoHole = 1 << 1,

    /// <summary>Read: reply in one chunk.</summary>
    DontFragment = 1 << 2,

    /// <summary>Block status: at most one extent.</summary>
    RequestOne = 1 << 3,

    /// <summary>Write zeroes: fail with NBD_ENOTSUP rather than be as slow as a write.</summary>
    FastZero = 1 << 4,

    /// <summary>Extended headers: the length is that of a payload, and not of the range.</summary>
    PayloadLength = 1 << 5,
}
