using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Commands;

/// <summary>One of the words that can follow the program's name.</summary>
/// <param name="Name">The word.</param>
/// <param name="Summary">One line of what it does.</param>
/// <param name="Help">What --help prints below the usage line.</param>
/// <param name="Options">The options it knows, --help aside.</param>
/// <param name="RunAsync">Does it, and gives the exit code.</param>
internal sealed record Command(
    string Name, string Summary, string Help, IReadOnlyList<OptionSpec> Options, Func<ParsedOptions, Terminal, Task<int>> RunAsync)
{
    /// <summary>What --help calls the operands.</summary>
    public string Operands { get; init; } = "FILE";

    /// <summary>Whether the last word is an operand, whatever it begins with.</summary>
    public bool LastIsOperand { get; init; }

    public static OptionSpec HelpOption { get; } = new('h', "help", HasValue: false);

    public static OptionSpec FormatOption { get; } = new('f', null, HasValue: true);

    /// <summary>The same option for the commands in which it has a long name, too.</summary>
    public static OptionSpec LongFormatOption { get; } = FormatOption with { Long = "format" };

    public static OptionSpec OutputOption { get; } = new('\0', "output", HasValue: true);

    public static OptionSpec QuietOption { get; } = new('q', null, HasValue: false);

    public static OptionSpec ShareOption { get; } = new('U', "force-share", HasValue: false);

    /// <summary>The operand is a list of block driver options, and no name.</summary>
    public static OptionSpec ImageOptsOption { get; } = new('\0', "image-opts", HasValue: false);

    /// <summary>Defines a secret.</summary>
    public static OptionSpec ObjectOption { get; } = new('\0', "object", HasValue: true);

    /// <summary>Shows how far the command has come.</summary>
    public static OptionSpec ProgressOption { get; } = new('p', null, HasValue: false);

    /// <summary>The cache mode of -t or -T, in the words of qemu-img.</summary>
    /// <param name="value">What was given, or null: writeback.</param>
    /// <param name="kind">"cache" or "source cache".</param>
    public static CacheMode CacheOf(string? value, string kind = "cache") =>
        CacheMode.Parse(value ?? "writeback", name => $"Invalid {kind} option: {name}");

    /// <summary>The disk that an operand means, with -f, --image-opts, --object and -U.</summary>
    public static DiskRequest RequestOf(ParsedOptions options, string operand, ImageAccess access) =>
        DiskRequest.Of(operand, options.Has("image-opts"), options.Value("f")) with
        {
            Access = access == ImageAccess.Read ? ReadAccess(options) : access,
            Secrets = Secrets.Parse(options.Values("object")),
        };

    /// <summary>The only operand of a command that works on one image.</summary>
    public static string SingleFile(ParsedOptions options) => options.Operands.Count == 1
        ? options.Operands[0] : throw new CommandLineException("Expecting one image file name");

    /// <summary>Whether --output asks for JSON.</summary>
    public static bool WantsJson(ParsedOptions options) => options.Value("output") switch
    {
        null or "human" => false,
        "json" => true,
        _ => throw new CommandLineException("--output must be used with human or json as argument.", showsHelpHint: false),
    };

    /// <summary>How an image that is only read is opened.</summary>
    public static ImageAccess ReadAccess(ParsedOptions options) =>
        options.Has("force-share") ? ImageAccess.ReadShared : ImageAccess.Read;

    /// <summary>Opens, and says which file it was when that fails.</summary>
    public static async Task<T> OpeningAsync<T>(string file, Func<Task<T>> open)
    {
        try
        {
            return await open();
        }
        catch (Exception e) when (e is (IOException or UnauthorizedAccessException or CommandFailedException) and not SnapshotTableException)
        {
            throw new CommandFailedException($"Could not open '{file}': {e.Message}");
        }
    }
}
