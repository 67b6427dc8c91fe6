using Microsoft.Extensions.Logging;

namespace OrleansDisk.Grains;

internal static partial class Log
{
    [LoggerMessage(1, LogLevel.Information, "image {Image} opened for {Access} as {Generation}")]
    public static partial void Opened(ILogger logger, string image, Guid generation, string access);

    [LoggerMessage(2, LogLevel.Information, "image {Image} closed ({Generation})")]
    public static partial void Closed(ILogger logger, string image, Guid generation);

    [LoggerMessage(3, LogLevel.Error, "image {Image} closed with an error ({Generation}); writes that were not flushed may be lost: {Reason}")]
    public static partial void ClosedWithError(ILogger logger, string image, Guid generation, string reason);

    [LoggerMessage(4, LogLevel.Information, "image {Image} created with {VirtualBytes} bytes")]
    public static partial void Created(ILogger logger, string image, long virtualBytes);
}
