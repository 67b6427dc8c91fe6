using System.Globalization;
using OrleansDisk.Cli.CommandLine;

namespace OrleansDisk.Cli.Opening.Blkdebug;

/// <summary>Reads rules from a configuration file and from the options inject-error.N and set-state.N.</summary>
internal static class BlkdebugConfiguration
{
    private const int InputOutputError = 5;
    private const int SectorBytes = 512;
    private const string InjectError = "inject-error";
    private const string SetState = "set-state";

    /// <param name="path">The configuration file, or null.</param>
    /// <param name="options">The driver's options; those of rules are taken.</param>
    public static BlkdebugRules Read(string? path, BlockOptions options)
    {
        var rules = new List<BlkdebugRule>();
        if (path is not null)
            ReadFile(path, rules);
        foreach (string kind in (ReadOnlySpan<string>)[InjectError, SetState])
        {
            for (int index = 0; options.HasChild($"{kind}.{index}"); index++)
                rules.Add(ToRule(kind, options.TakeChild($"{kind}.{index}")));
        }
        return new BlkdebugRules(rules);
    }

    private static void ReadFile(string path, List<BlkdebugRule> rules)
    {
        string[] lines;
        try
        {
            lines = File.ReadAllLines(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandFailedException($"Could not read blkdebug config file: {e.Message}");
        }
        string? kind = null;
        var section = new BlockOptions();
        for (int number = 1; number <= lines.Length; number++)
        {
            string line = lines[number - 1].Trim();
            if (line.Length == 0 || line[0] == '#')
                continue;
            if (line[0] == '[' && line[^1] == ']')
            {
                if (kind is not null)
                    rules.Add(ToRule(kind, section));
                (kind, section) = (KindOf(line[1..^1].Trim()), new BlockOptions());
                continue;
            }
            int equals = line.IndexOf('=', StringComparison.Ordinal);
            if (equals < 0 || kind is null)
                throw new CommandFailedException($"{path}:{number}: parse error");
            section[line[..equals].Trim()] = line[(equals + 1)..].Trim().Trim('"');
        }
        if (kind is not null)
            rules.Add(ToRule(kind, section));
    }

    private static string KindOf(string name) => name is InjectError or SetState ? name
        : throw new CommandFailedException($"There is no option group '{name}'");

    private static BlkdebugRule ToRule(string kind, BlockOptions options)
    {
        string name = options.Take("event") ?? throw new CommandFailedException("Missing event name for rule");
        if (!BlkdebugEvents.Exists(name))
            throw new CommandFailedException($"Parameter 'event' does not accept value '{name}'");
        var rule = new BlkdebugRule(name) { State = (int)(Number(options, "state") ?? 0) };
        if (kind == SetState)
        {
            rule = rule with { NewState = (int)(Number(options, "new_state") ?? 0) };
        }
        else
        {
            long sector = Number(options, "sector") ?? -1;
            _ = options.TakeSwitch("immediately"); // an error comes at once here, or a turn later: nobody can tell
            rule = rule with
            {
                ErrorNumber = (int)(Number(options, "errno") ?? InputOutputError),
                Once = options.TakeSwitch("once") ?? false,
                Offset = sector == -1 ? -1 : sector * SectorBytes,
                IoTypes = IoTypeOf(options.Take("iotype")),
            };
        }
        if (options.Names.FirstOrDefault() is { } unknown)
            throw new CommandFailedException($"Invalid parameter '{unknown}'");
        return rule;
    }

    private static BlkdebugIoTypes IoTypeOf(string? name) => name switch
    {
        null => BlkdebugIoTypes.Default,
        "read" => BlkdebugIoTypes.Read,
        "write" => BlkdebugIoTypes.Write,
        "write-zeroes" => BlkdebugIoTypes.WriteZeroes,
        "discard" => BlkdebugIoTypes.Discard,
        "flush" => BlkdebugIoTypes.Flush,
        "block-status" => BlkdebugIoTypes.BlockStatus,
        _ => throw new CommandFailedException($"Parameter 'iotype' does not accept value '{name}'"),
    };

    private static long? Number(BlockOptions options, string name)
    {
        if (options.Take(name) is not { } text)
            return null;
        return long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out long number)
            ? number : throw new CommandFailedException($"Parameter '{name}' expects a number");
    }
}
