using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Cli.Shell;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk io: a shell that reads and writes a disk, for tests and for a look at it.</summary>
internal static class IoCommand
{
    private const string Help = """
          -c, --cmd=COMMAND     do this and end; may be given again and again
          -f, --format=FORMAT   qcow2 or raw; found out when not given
          -r, --read-only       open the disk for reading
          -s, --snapshot        write to a temporary file
          -C, --copy-on-read    keep in the image what is read from below it
          -t, --cache=MODE      writethrough (default), writeback, none, directsync, unsafe
          -n, --nocache         as -t none
          -d, --discard=MODE    unmap (default) or ignore
          -U, --force-share     open the disk even while someone writes it
              --image-opts      FILE is a list of options: driver=qcow2,file.filename=...
              --object=OBJECT   secret,id=ID,data=TEXT|file=FILE,format=raw|base64
          -i, --aio=AIO         threads, native or io_uring; without effect
          -k, --native-aio      without effect
          -m, --misalign        without effect
          -T, --trace=EVENTS    without effect

        Without -c, commands come from standard input; 'help' lists them.
        """;

    public static Command Command { get; } = new(
        "io", "Read and write a disk by commands", Help,
        [
            new OptionSpec('c', "cmd", HasValue: true), new OptionSpec('f', "format", HasValue: true),
            new OptionSpec('r', "read-only", HasValue: false), new OptionSpec('s', "snapshot", HasValue: false),
            new OptionSpec('C', "copy-on-read", HasValue: false), new OptionSpec('t', "cache", HasValue: true),
            new OptionSpec('n', "nocache", HasValue: false), new OptionSpec('d', "discard", HasValue: true),
            new OptionSpec('m', "misalign", HasValue: false), new OptionSpec('k', "native-aio", HasValue: false),
            new OptionSpec('i', "aio", HasValue: true), new OptionSpec('T', "trace", HasValue: true),
            Command.ShareOption, Command.ImageOptsOption, Command.ObjectOption,
        ],
        RunAsync);

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        if (options.Operands.Count > 1)
            throw new CommandLineException($"Unexpected argument: {options.Operands[1]}");
        bool takesOptionLists = options.Has("image-opts");
        if (takesOptionLists && options.Has("format"))
            throw new CommandFailedException("--image-opts and -f are mutually exclusive");
        if (options.Value("aio") is { } aio and not ("threads" or "native" or "io_uring"))
            throw new CommandFailedException($"Invalid aio option: {aio}");
        CacheMode cache = OpenCommands.CacheOf(options.Has("nocache") ? "none" : options.Value("cache"));
        bool passDiscard = OpenCommands.DiscardOf(options.Value("discard"));
        var session = new ShellSession(terminal, Secrets.Parse(options.Values("object")), takesOptionLists);
        DiskRequest? request = null;
        if (options.Operands.Count == 1)
        {
            request = DiskRequest.Of(options.Operands[0], takesOptionLists, options.Value("format")) with
            {
                Access = options.Has("read-only") ? ImageAccess.Read : ImageAccess.Write,
                Cache = cache,
                PassDiscard = passDiscard,
                CopyOnRead = options.Has("copy-on-read"),
                IsTemporary = options.Has("snapshot"),
                Secrets = session.Secrets,
            };
            if (options.Has("force-share"))
                request = request.Sharing();
        }
        return await new ImageTurns().RunAsync(() => RunAsync(session, request, [.. options.Values("cmd")]));
    }

    private static async Task<int> RunAsync(ShellSession session, DiskRequest? request, List<string> commands)
    {
        if (request is not null && !await session.OpenAsync(request))
            return 1;
        bool succeeded = await (commands.Count > 0 ? RunAllAsync(session, commands) : RunFromInputAsync(session));
        await session.CloseAsync();
        return succeeded ? 0 : 1;
    }

    private static async Task<bool> RunAllAsync(ShellSession session, List<string> commands)
    {
        bool succeeded = true;
        foreach (string command in commands)
        {
            if (!session.HasQuit)
                succeeded &= await session.RunAsync(command);
        }
        return succeeded;
    }

    private static async Task<bool> RunFromInputAsync(ShellSession session)
    {
        using var input = new StreamReader(Console.OpenStandardInput());
        bool succeeded = true;
        while (!session.HasQuit)
        {
            session.Terminal.Write($"{session.Terminal.ProgramName}> ");
            session.Terminal.Flush();
            // Not in a turn: requests that are under way go on while nobody types.
            if (await Task.Run(input.ReadLine) is not { } line)
                break;
            succeeded &= await session.RunAsync(line);
        }
        return succeeded;
    }
}
