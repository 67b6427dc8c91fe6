namespace OrleansDisk.Cli.Shell;

/// <summary>A command of the shell.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Summary">What it does, in one line.</param>
/// <param name="RunAsync">Does it; false when it failed, which the exit code tells.</param>
internal sealed record ShellCommand(string Name, string Summary, Func<ShellSession, ShellArguments, Task<bool>> RunAsync)
{
    /// <summary>Its other name, or null.</summary>
    public string? ShortName { get; init; }

    /// <summary>Options and operands as the usage line shows them, or null.</summary>
    public string? Synopsis { get; init; }

    /// <summary>The letters of its options, each with a colon when a value follows.</summary>
    public string Letters { get; init; } = "";

    /// <summary>Words that must follow its name, at least.</summary>
    public int MinWords { get; init; }

    /// <summary>Words that may follow its name, at most; null for any number.</summary>
    public int? MaxWords { get; init; } = 0;

    /// <summary>Whether it works without a disk.</summary>
    public bool NeedsNoDisk { get; init; }

    /// <summary>Whether it changes the disk.</summary>
    public bool Writes { get; init; }

    /// <summary>More about it, one line an option; empty when the summary says it all.</summary>
    public string Help { get; init; } = "";

    /// <summary>The line that is shown when a command can't be read.</summary>
    public string Usage => $"{Name} {Synopsis} -- {Summary}";
}
