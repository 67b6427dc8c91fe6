namespace OrleansDisk.Server;

/// <summary>What the process ends with, for service managers: the numbers of sysexits.h.</summary>
internal enum ExitCode
{
    Success = 0,

    /// <summary>The command line makes no sense.</summary>
    Usage = 64,

    /// <summary>An address could not be had.</summary>
    Unavailable = 69,

    /// <summary>A fault of the program.</summary>
    Software = 70,

    /// <summary>An image could not be closed with everything written: writes that were not flushed may be lost.</summary>
    InputOutput = 74,

    /// <summary>A setting is wrong; the message names it.</summary>
    Configuration = 78,
}
