namespace OrleansDisk.Cli.Shell;

/// <summary>The commands about the shell itself: breakpoints, waiting, ways to die, help.</summary>
internal static class ControlCommands
{
    private const int MaxSignal = 65;

    public static IEnumerable<ShellCommand> All { get; } =
    [
        new("abort", "simulate a program crash using abort(3)", (_, _) => Abort()) { NeedsNoDisk = true },
        new("break", "sets a breakpoint on event and tags the stopped request as tag", SetBreakAsync)
        {
            MinWords = 2, MaxWords = 2, Synopsis = "event tag",
        },
        new("help", "help for one or all commands", ShowHelpAsync)
        {
            ShortName = "?", MaxWords = 1, NeedsNoDisk = true, Synopsis = "[command]",
        },
        new("quit", "exit the program", QuitAsync) { ShortName = "q", MaxWords = null, NeedsNoDisk = true },
        new("remove_break", "remove a breakpoint by tag", RemoveBreakAsync) { MinWords = 1, MaxWords = 1, Synopsis = "tag" },
        new("resume", "resumes the request tagged as tag", ResumeAsync) { MinWords = 1, MaxWords = 1, Synopsis = "tag" },
        new("sigraise", "raises a signal", RaiseAsync)
        {
            MinWords = 1, MaxWords = 1, NeedsNoDisk = true, Synopsis = "signal",
        },
        new("sleep", "waits for the given value in milliseconds", SleepAsync)
        {
            MinWords = 1, MaxWords = 1, NeedsNoDisk = true,
        },
        new("wait_break", "waits for the suspension of a request", WaitForBreakAsync) { MinWords = 1, MaxWords = 1, Synopsis = "tag" },
    ];

    private static Task<bool> QuitAsync(ShellSession session, ShellArguments arguments)
    {
        session.HasQuit = true;
        return Task.FromResult(true);
    }

    private static Task<bool> SetBreakAsync(ShellSession session, ShellArguments arguments)
    {
        string? complaint = session.Disk.Blkdebug is not { } rules ? "Operation not supported"
            : rules.TryBreak(arguments.Operands[0], arguments.Operands[1]) ? null : "No such file or directory";
        return EndAsync(session, complaint is null ? null : $"Could not set breakpoint: {complaint}");
    }

    private static Task<bool> RemoveBreakAsync(ShellSession session, ShellArguments arguments)
    {
        string tag = arguments.Operands[0];
        string? complaint = session.Disk.Blkdebug is not { } rules ? "Operation not supported"
            : rules.TryRemoveBreak(tag) ? null : "No such file or directory";
        return EndAsync(session, complaint is null ? null : $"Could not remove breakpoint {tag}: {complaint}");
    }

    private static Task<bool> ResumeAsync(ShellSession session, ShellArguments arguments)
    {
        string? complaint = session.Disk.Blkdebug is not { } rules ? "Operation not supported"
            : rules.TryResume(arguments.Operands[0]) ? null : "No such file or directory";
        return EndAsync(session, complaint is null ? null : $"Could not resume request: {complaint}");
    }

    private static async Task<bool> WaitForBreakAsync(ShellSession session, ShellArguments arguments)
    {
        if (session.Disk.Blkdebug is { } rules)
            await rules.WaitForBreakAsync(arguments.Operands[0]);
        session.ShowFinished();
        return true;
    }

    private static async Task<bool> SleepAsync(ShellSession session, ShellArguments arguments)
    {
        if (!ShellNumber.TryInteger(arguments.Operands[0], out long milliseconds) || milliseconds > int.MaxValue)
            throw new ShellException($"{arguments.Operands[0]} is not a valid number");
        await Task.Delay((int)milliseconds);
        session.ShowFinished();
        return true;
    }

    private static Task<bool> RaiseAsync(ShellSession session, ShellArguments arguments)
    {
        long signal = ShellNumber.Bytes(arguments.Operands[0]);
        if (signal > MaxSignal)
            throw new ShellException($"signal argument '{arguments.Operands[0]}' is too large to be a valid signal");
        session.Terminal.Flush();
        return Raise((int)signal);
    }

    /// <summary>Ends the process at once, with what was not flushed: a signal to the process reaches it a while later.</summary>
    private static Task<bool> Abort()
    {
        SystemCalls.Abort();
        return Task.FromResult(true);
    }

    /// <summary>The signal takes the process down at once, with what was not flushed.</summary>
    private static Task<bool> Raise(int signal)
    {
        _ = SystemCalls.Kill(Environment.ProcessId, signal);
        return Task.FromResult(true);
    }

    private static Task<bool> ShowHelpAsync(ShellSession session, ShellArguments arguments)
    {
        if (arguments.Operands.Count == 0)
        {
            foreach (ShellCommand command in ShellCommands.All)
                session.Terminal.WriteLine(Line(command.Name, command));
            session.Terminal.Write("\nUse 'help commandname' for extended help.\n");
            return Task.FromResult(true);
        }
        string name = arguments.Operands[0];
        if (ShellCommands.Find(name) is not { } found)
            return EndAsync(session, $"command {name} not found");
        session.Terminal.WriteLine(Line(name, found));
        if (found.Help.Length > 0)
            session.Terminal.Write($"\n{found.Help}\n");
        return Task.FromResult(true);
    }

    private static string Line(string name, ShellCommand command) =>
        command.Synopsis is null ? $"{name} -- {command.Summary}" : $"{name} {command.Synopsis} -- {command.Summary}";

    /// <summary>Shows a complaint if there is one.</summary>
    private static Task<bool> EndAsync(ShellSession session, string? complaint)
    {
        if (complaint is not null)
            session.Terminal.WriteLine(complaint);
        return Task.FromResult(complaint is null);
    }
}
