using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Shell;

/// <summary>The commands that change which disk is open, and how.</summary>
internal static class OpenCommands
{
    public static IEnumerable<ShellCommand> All { get; } =
    [
        new("open", "open the file specified by path", OpenAsync)
        {
            ShortName = "o", Letters = "snCro:ki:t:d:U", MinWords = 1, MaxWords = null, NeedsNoDisk = true,
            Synopsis = "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
            Help = """
                 -C  keep in the image what is read from below it
                 -d  what becomes of discards: unmap or ignore
                 -i  no effect
                 -k  no effect
                 -n  pass the host's page cache by, as -t none does
                 -o  options of the block drivers: name=value,...
                 -r  open read-only
                 -s  write to a temporary file
                 -t  the cache mode
                 -U  open it even while someone writes it

                """,
        },
        new("close", "close the current open file", CloseAsync) { ShortName = "c" },
        new("reopen", "reopens an image with new options", ReopenAsync)
        {
            Letters = "c:o:rw", MaxWords = null, Synopsis = "[(-r|-w)] [-c cache] [-o options]",
            Help = """
                 -c  the cache mode
                 -o  options of the block drivers: name=value,...
                 -r  read-only from now on
                 -w  for writing from now on

                """,
        },
    ];

    private static async Task<bool> OpenAsync(ShellSession session, ShellArguments arguments)
    {
        if (arguments.Has('o') && session.TakesOptionLists)
            throw new ShellException("--image-opts and 'open -o' are mutually exclusive");
        if (arguments.Operands.Count > 1)
            throw new ShellUsageException(arguments.Command);
        BlockOptions options = OptionsOf(arguments);
        string? name = arguments.Operands.FirstOrDefault();
        if (session.TakesOptionLists && name is not null)
        {
            options.Merge(BlockOptionText.ParseList(name, firstName: null));
            name = null;
        }
        var request = new DiskRequest
        {
            Name = name,
            Options = options,
            DisplayName = name ?? "",
            Access = arguments.Has('r') ? ImageAccess.Read : ImageAccess.Write,
            Cache = CacheOf(arguments.Has('n') ? "none" : arguments.Value('t')),
            PassDiscard = DiscardOf(arguments.Value('d')),
            CopyOnRead = arguments.Has('C'),
            IsTemporary = arguments.Has('s'),
            Secrets = session.Secrets,
        };
        return await session.OpenAsync(arguments.Has('U') ? request.Sharing() : request);
    }

    private static async Task<bool> CloseAsync(ShellSession session, ShellArguments arguments)
    {
        await session.CloseAsync();
        return true;
    }

    private static async Task<bool> ReopenAsync(ShellSession session, ShellArguments arguments)
    {
        DiskRequest old = session.Disk.Request;
        if (arguments.Options.Count(option => option.Letter is 'r' or 'w') > 1)
            throw new CommandFailedException("Only one -r/-w option may be given");
        if (arguments.Operands.Count > 0)
            throw new ShellUsageException(arguments.Command);
        BlockOptions options = OptionsOf(arguments);
        bool changesAccess = arguments.Has('r') || arguments.Has('w');
        if (changesAccess && options.Has("read-only"))
            throw new CommandFailedException("Cannot set both -r/-w and 'read-only'");
        if (arguments.Has('c') && (options.Has("cache.direct") || options.Has("cache.no-flush")))
            throw new CommandFailedException("Cannot set both -c and the cache options");
        ImageAccess access = arguments.Has('r') ? ImageAccess.Read : arguments.Has('w') ? ImageAccess.Write : old.Access;
        if (options.TakeSwitch("read-only") is { } isReadOnly)
            access = isReadOnly ? ImageAccess.Read : ImageAccess.Write;
        return await session.ReopenAsync(old with
        {
            Options = ReopenOptions.Join(options, old.Options, session.Disk.Source),
            Access = access,
            Cache = arguments.Value('c') is { } cache ? CacheOf(cache) : old.Cache,
        });
    }

    private static BlockOptions OptionsOf(ShellArguments arguments)
    {
        var options = new BlockOptions();
        foreach ((char letter, string value) in arguments.Options)
        {
            if (letter == 'o')
                options.Merge(BlockOptionText.ParseList(value, firstName: null));
        }
        return options;
    }

    /// <summary>The cache mode of a name; without one, each write is followed by a flush.</summary>
    internal static CacheMode CacheOf(string? name) => name is null ? CacheMode.Parse("writethrough", _ => "")
        : CacheMode.Parse(name, unknown => $"Invalid cache option: {unknown}");

    /// <summary>Whether discards are passed on.</summary>
    internal static bool DiscardOf(string? mode) => mode switch
    {
        null or "unmap" or "on" => true,
        "ignore" or "off" => false,
        _ => throw new CommandFailedException($"Invalid discard option: {mode}"),
    };
}
