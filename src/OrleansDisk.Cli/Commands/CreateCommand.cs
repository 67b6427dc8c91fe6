using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Output;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk create: a new image.</summary>
internal static class CreateCommand
{
    private const string Help = """
          -f FORMAT     qcow2, luks or raw (default)
          -b FILE       backing file; its size is the default size
          -F FORMAT     format of the backing file
          -u            do not look at the backing file
          -o OPTIONS    name=value,...; -o help lists them
          -q            say nothing
          --object OBJECT  secret,id=ID,data=TEXT|file=FILE,format=raw|base64

        SIZE is in bytes, or has a suffix: k, M, G, T, P, E.
        """;

    public static Command Command { get; } = new(
        "create", "Make a new image", Help,
        [
            Command.FormatOption, Command.QuietOption, new OptionSpec('b', null, HasValue: true),
            new OptionSpec('F', null, HasValue: true), new OptionSpec('u', null, HasValue: false),
            new OptionSpec('o', null, HasValue: true), Command.ObjectOption,
        ],
        RunAsync)
    {
        Operands = "FILE [SIZE]",
    };

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        string format = options.Value("f") ?? "raw";
        CreationOptions.ValidateLists(options.Values("o"));
        if (options.Values("o").Any(CreationOptions.AsksForHelp))
        {
            NewImage.RequireFormat(format);
            terminal.Write(FormatOptions.CreateHelp(format, hasFile: options.Operands.Count > 0));
            return 0;
        }
        if (options.Operands.Count == 0)
            throw new CommandLineException("Expecting image file name");
        if (options.Operands.Count > 2)
            throw new CommandLineException($"Unexpected argument: {options.Operands[2]}");
        string path = options.Operands[0];
        long? size = options.Operands.Count == 2 ? SizeText.ParseImageSize(options.Operands[1]) : null;
        try
        {
            var image = new NewImage(path, format, options, size);
            await image.ResolveSizeAsync();
            if (!options.Has("q"))
                terminal.WriteLine(image.Describe());
            terminal.Flush();
            await image.CreateAsync();
            return 0;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CommandFailedException)
        {
            throw new CommandFailedException($"{path}: {e.Message}");
        }
    }
}
