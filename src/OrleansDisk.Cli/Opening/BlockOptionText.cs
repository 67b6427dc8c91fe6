using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Output;

namespace OrleansDisk.Cli.Opening;

/// <summary>Reads the texts in which people write the options of a disk.</summary>
internal static class BlockOptionText
{
    private const string JsonPrefix = "json:";

    public static bool IsJson(string name) => name.StartsWith(JsonPrefix, StringComparison.Ordinal);

    /// <summary>Reads "driver=qcow2,file.filename=x": the last value of a name counts, two commas stand for one.</summary>
    /// <param name="text">The list.</param>
    /// <param name="firstName">What a first value without a name belongs to, or null.</param>
    public static BlockOptions ParseList(string text, string? firstName)
    {
        var options = new BlockOptions();
        bool isFirst = true;
        foreach (string option in CreationOptions.Split(text))
        {
            int equals = option.IndexOf('=', StringComparison.Ordinal);
            if (equals >= 0)
                options[option[..equals]] = option[(equals + 1)..];
            else if (isFirst && firstName is not null)
                options[firstName] = option;
            else if (option.Length > 0)
                SetSwitch(options, option);
            isFirst = false;
        }
        return options;
    }

    /// <summary>Reads "json:{...}".</summary>
    /// <exception cref="CommandFailedException">It is no JSON, or no object.</exception>
    public static BlockOptions ParseJson(string name)
    {
        var options = new BlockOptions();
        JsonOptions.Read(name[JsonPrefix.Length..], options);
        return options;
    }

    private static void SetSwitch(BlockOptions options, string option)
    {
        bool isOff = option.StartsWith("no", StringComparison.Ordinal);
        (string name, string value) = isOff ? (option[2..], "off") : (option, "on");
        Terminal.Warn($"short-form boolean option '{option}' deprecated\nPlease use {name}={value} instead");
        options[name] = value;
    }
}
