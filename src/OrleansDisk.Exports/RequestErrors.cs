using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Exports;

/// <summary>What an NBD client is told of an exception.</summary>
internal static class RequestErrors
{
    public static NbdError Of(Exception e) => e switch
    {
        NoSpaceException or BlockFileException { IsNoSpace: true } => NbdError.NoSpace,
        BlockFileException { ErrorNumber: 1 } => NbdError.NotPermitted, // EPERM
        NotSupportedException => NbdError.NotSupported,
        ArgumentOutOfRangeException => NbdError.InvalidArgument,
        _ => NbdError.InputOutput,
    };
}
