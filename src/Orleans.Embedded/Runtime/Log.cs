using Microsoft.Extensions.Logging;

namespace Orleans.Runtime;

/// <summary>What the runtime logs.</summary>
internal static partial class Log
{
    [LoggerMessage(Level = LogLevel.Error, Message = "{Grain} could not be activated")]
    public static partial void ActivationFailed(ILogger logger, Exception exception, GrainId grain);

    [LoggerMessage(Level = LogLevel.Error, Message = "{Grain} was not deactivated cleanly")]
    public static partial void DeactivationFailed(ILogger logger, Exception exception, GrainId grain);

    [LoggerMessage(Level = LogLevel.Error, Message = "{Grain} had not ended when the silo stopped waiting for it")]
    public static partial void DeactivationAbandoned(ILogger logger, GrainId grain);

    [LoggerMessage(Level = LogLevel.Warning, Message = "A timer of {Grain} failed; it goes on")]
    public static partial void TimerFailed(ILogger logger, Exception exception, GrainId grain);
}
