using System.Net;
using Microsoft.Extensions.Logging;

namespace OrleansDisk.Server;

internal static partial class Log
{
    [LoggerMessage(100, LogLevel.Information, "odiskd {Version} serves {PoolCount} pools and {ExportCount} configured exports")]
    public static partial void Started(ILogger logger, string version, int poolCount, int exportCount);

    [LoggerMessage(101, LogLevel.Information, "listening on {Address}")]
    public static partial void Listening(ILogger logger, EndPoint address);

    [LoggerMessage(102, LogLevel.Information, "stopping: {ConnectionCount} connections get their replies")]
    public static partial void Draining(ILogger logger, int connectionCount);

    [LoggerMessage(103, LogLevel.Information, "stopped; every image is closed")]
    public static partial void Stopped(ILogger logger);

    [LoggerMessage(104, LogLevel.Error, "stopped; {Count} images were not closed cleanly, writes that were not flushed may be lost")]
    public static partial void StoppedWithErrors(ILogger logger, long count);

    [LoggerMessage(105, LogLevel.Error, "not everything stopped in time: {Reason}")]
    public static partial void StoppedLate(ILogger logger, string reason);

    [LoggerMessage(110, LogLevel.Warning, "{Line}")]
    public static partial void OfConnection(ILogger logger, string line);

    [LoggerMessage(111, LogLevel.Debug, "{Count} NBD connections")]
    public static partial void Connections(ILogger logger, int count);

    [LoggerMessage(112, LogLevel.Error, "the directory of pool {Pool} can't be read: {Reason}")]
    public static partial void PoolUnreadable(ILogger logger, string pool, string reason);
}
