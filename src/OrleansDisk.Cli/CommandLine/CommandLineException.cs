namespace OrleansDisk.Cli.CommandLine;

/// <summary>The command line does not mean anything; the message says what is wrong with it.</summary>
internal sealed class CommandLineException(string message, bool showsHelpHint = true) : Exception(message)
{
    /// <summary>Whether the reader is pointed to --help.</summary>
    public bool ShowsHelpHint { get; } = showsHelpHint;
}

/// <summary>A command can't do its work; the message is all there is to say.</summary>
/// <param name="message">What went wrong.</param>
/// <param name="secondMessage">More of it, printed as a message of its own; null when there is none.</param>
internal sealed class CommandFailedException(string message, string? secondMessage = null) : Exception(message)
{
    public string? SecondMessage { get; } = secondMessage;
}
