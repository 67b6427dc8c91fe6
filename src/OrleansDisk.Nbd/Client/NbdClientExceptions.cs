using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Client;

/// <summary>The server answered a request with an error; the connection goes on.</summary>
public sealed class NbdRequestException(NbdError error, string message) : IOException(message)
{
    public NbdError Error => error;
}

/// <summary>The connection has ended, or the server has broken the protocol: no request will be answered any more.</summary>
public sealed class NbdConnectionException(string message, Exception? cause = null) : IOException(message, cause);
