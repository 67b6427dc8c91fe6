using System.Diagnostics;

namespace OrleansDisk.Cli.Shell;

/// <summary>The commands that move bytes: read, write, their vectored forms and those that do not wait, and discard.</summary>
internal static class TransferCommands
{
    /// <summary>Longest request, in bytes: whole sectors below 2 GiB.</summary>
    public const long MaxBytes = int.MaxValue & ~511L;

    private const byte DefaultPattern = 0xcd;
    private const int SectorBytes = 512;

    public static IEnumerable<ShellCommand> All { get; } =
    [
        new("read", "reads a number of bytes at a specified offset", ReadAsync)
        {
            ShortName = "r", Letters = "bCl:pP:qs:v", MinWords = 2, MaxWords = null,
            Synopsis = "[-abCqv] [-P pattern [-s off] [-l len]] off len",
            Help = """
                 -b  read the VM state, not the disk
                 -C  report in one line of values
                 -l  how many bytes are compared with the pattern
                 -p  no effect
                 -P  the byte that must be read all over
                 -q  report nothing
                 -s  where the comparison starts, from off
                 -v  show what was read

                """,
        },
        new("readv", "reads a number of bytes at a specified offset", ReadVectorAsync)
        {
            Letters = "CP:qv", MinWords = 2, MaxWords = null, Synopsis = "[-Cqv] [-P pattern] off len [len..]",
            Help = """
                 The lengths are those of buffers that are filled one behind the other.
                 -C  report in one line of values
                 -P  the byte that must be read all over
                 -q  report nothing
                 -v  show what was read

                """,
        },
        new("write", "writes a number of bytes at a specified offset", WriteAsync)
        {
            ShortName = "w", Letters = "bcCfnpP:qs:uz", MinWords = 2, MaxWords = null, Writes = true,
            Synopsis = "[-bcCfnquz] [-P pattern | -s source_file] off len",
            Help = """
                 -b  write the VM state, not the disk
                 -c  write compressed clusters
                 -C  report in one line of values
                 -f  put it on stable storage before the command ends
                 -n  with -z, fail when zeros would have to be written out
                 -p  no effect
                 -P  the byte that is written all over (0xcd)
                 -q  report nothing
                 -s  a file whose bytes are written, again and again
                 -u  with -z, give space up
                 -z  write zeros

                """,
        },
        new("writev", "writes a number of bytes at a specified offset", WriteVectorAsync)
        {
            Letters = "CfqP:", MinWords = 2, MaxWords = null, Writes = true, Synopsis = "[-Cfq] [-P pattern] off len [len..]",
            Help = """
                 The lengths are those of buffers that are written one behind the other.
                 -C  report in one line of values
                 -f  put it on stable storage before the command ends
                 -P  the byte that is written all over (0xcd)
                 -q  report nothing

                """,
        },
        new("aio_read", "asynchronously reads a number of bytes", StartReadAsync)
        {
            Letters = "CP:iqv", MinWords = 2, MaxWords = null, Synopsis = "[-Ciqv] [-P pattern] off len [len..]",
            Help = """
                 The next command is read at once; aio_flush waits for the end.
                 -C  report in one line of values
                 -i  only count a request that makes no sense
                 -P  the byte that must be read all over
                 -q  report nothing
                 -v  show what was read

                """,
        },
        new("aio_write", "asynchronously writes a number of bytes", StartWriteAsync)
        {
            Letters = "CfiqP:uz", MinWords = 2, MaxWords = null, Writes = true, Synopsis = "[-Cfiquz] [-P pattern] off len [len..]",
            Help = """
                 The next command is read at once; aio_flush waits for the end.
                 -C  report in one line of values
                 -f  put it on stable storage before it ends
                 -i  only count a request that makes no sense
                 -P  the byte that is written all over (0xcd)
                 -q  report nothing
                 -u  with -z, give space up
                 -z  write zeros

                """,
        },
        new("discard", "discards a number of bytes at a specified offset", DiscardAsync)
        {
            ShortName = "d", Letters = "Cq", MinWords = 2, MaxWords = null, Writes = true, Synopsis = "[-Cq] off len",
            Help = """
                 -C  report in one line of values
                 -q  report nothing

                """,
        },
    ];

    private static async Task<bool> ReadAsync(ShellSession session, ShellArguments arguments)
    {
        long? verified = arguments.Value('l') is { } length ? ShellNumber.Bytes(length) : null;
        byte? pattern = arguments.Value('P') is { } text ? ShellNumber.Pattern(text) : null;
        long skipped = arguments.Value('s') is { } skip ? ShellNumber.Bytes(skip) : 0;
        (long offset, long bytes) = Range(arguments);
        if (bytes > MaxBytes)
            throw new ShellException($"length cannot exceed {MaxBytes}, given {arguments.Operands[1]}");
        if (pattern is null && (arguments.Has('l') || arguments.Has('s')))
            throw new ShellUsageException(arguments.Command);
        long compared = verified ?? bytes - skipped;
        if (compared < 0 || compared + skipped > bytes)
            throw new ShellException("pattern verification range exceeds end of read data");
        if (arguments.Has('b'))
            RequireSectors(offset, bytes);
        return await TransferAsync(session, "read", new Transfer(arguments, offset, bytes)
        {
            Pattern = pattern,
            ComparedFrom = skipped,
            ComparedBytes = compared,
            IsVmState = arguments.Has('b'),
        });
    }

    private static Task<bool> ReadVectorAsync(ShellSession session, ShellArguments arguments) =>
        TransferAsync(session, "readv", VectorRead(arguments));

    private static Task<bool> WriteVectorAsync(ShellSession session, ShellArguments arguments) =>
        TransferAsync(session, "writev", VectorWrite(arguments));

    private static Task<bool> StartReadAsync(ShellSession session, ShellArguments arguments) =>
        StartAsync(session, arguments, "readv", "read", VectorRead);

    private static Task<bool> StartWriteAsync(ShellSession session, ShellArguments arguments) =>
        StartAsync(session, arguments, "aio_write", "write", VectorWrite);

    private static Task<bool> StartAsync(
        ShellSession session, ShellArguments arguments, string name, string kind, Func<ShellArguments, Transfer> parse)
    {
        if (arguments.Has('i'))
        {
            session.Terminal.WriteLine($"injecting invalid {kind} request");
            return Task.FromResult(true);
        }
        Transfer transfer = parse(arguments);
        session.Start(async () => (await transfer.RunAsync(session, name)).Text);
        return Task.FromResult(true);
    }

    private static Task<bool> WriteAsync(ShellSession session, ShellArguments arguments)
    {
        byte pattern = arguments.Value('P') is { } text ? ShellNumber.Pattern(text) : DefaultPattern;
        if (arguments.Operands.Count != 2)
            throw new ShellUsageException(arguments.Command);
        RefuseContradictions(arguments);
        (long offset, long bytes) = Range(arguments);
        if (bytes > MaxBytes && !arguments.Has('n'))
            throw new ShellException($"length cannot exceed {MaxBytes} without -n, given {arguments.Operands[1]}");
        if (arguments.Has('b') || arguments.Has('c'))
            RequireSectors(offset, bytes);
        return TransferAsync(session, "write", new Transfer(arguments, offset, bytes)
        {
            IsWrite = true,
            Pattern = pattern,
            SourceFile = arguments.Value('s'),
            IsZeroes = arguments.Has('z'),
            IsVmState = arguments.Has('b'),
            IsCompressed = arguments.Has('c'),
            NeedsFastZeroes = arguments.Has('n'),
        });
    }

    private static void RefuseContradictions(ShellArguments arguments)
    {
        bool Has(char letter) => arguments.Has(letter);
        string? complaint = 0 switch
        {
            _ when Has('b') && Has('z') => "-b and -z cannot be specified at the same time",
            _ when Has('f') && (Has('b') || Has('c')) => "-f and -b or -c cannot be specified at the same time",
            _ when Has('n') && !Has('z') => "-n requires -z to be specified",
            _ when Has('u') && !Has('z') => "-u requires -z to be specified",
            _ when "zPs".Count(Has) > 1 => "Only one of -z, -P, and -s can be specified at the same time",
            _ => null,
        };
        if (complaint is not null)
            throw new ShellException(complaint);
    }

    private static Transfer VectorRead(ShellArguments arguments)
    {
        byte? pattern = arguments.Value('P') is { } text ? ShellNumber.Pattern(text) : null;
        (long offset, long bytes) = VectorRange(arguments);
        return new Transfer(arguments, offset, bytes) { Pattern = pattern, ComparedBytes = bytes };
    }

    private static Transfer VectorWrite(ShellArguments arguments)
    {
        byte pattern = arguments.Value('P') is { } text ? ShellNumber.Pattern(text) : DefaultPattern;
        bool isZeroes = arguments.Has('z');
        if (isZeroes && arguments.Operands.Count > 2)
            throw new ShellException("-z supports only a single length parameter");
        if (arguments.Has('u') && !isZeroes)
            throw new ShellException("-u requires -z to be specified");
        (long offset, long bytes) = VectorRange(arguments);
        return new Transfer(arguments, offset, bytes) { IsWrite = true, Pattern = pattern, IsZeroes = isZeroes };
    }

    private static (long Offset, long Bytes) VectorRange(ShellArguments arguments)
    {
        if (arguments.Operands.Count < 2)
            throw new ShellUsageException(arguments.Command);
        long offset = ShellNumber.Bytes(arguments.Operands[0]);
        long total = 0;
        foreach (string length in arguments.Operands.Skip(1))
        {
            long bytes = ShellNumber.Bytes(length);
            if (bytes > MaxBytes)
                throw new ShellException($"Argument '{length}' exceeds maximum size {MaxBytes}");
            if (total > MaxBytes - bytes)
                throw new ShellException($"The total number of bytes exceed the maximum size {MaxBytes}");
            total += bytes;
        }
        return (offset, total);
    }

    private static async Task<bool> DiscardAsync(ShellSession session, ShellArguments arguments)
    {
        (long offset, long bytes) = Range(arguments);
        if (bytes > MaxBytes)
            throw new ShellException($"length cannot exceed {MaxBytes}, given {arguments.Operands[1]}");
        long start = Stopwatch.GetTimestamp();
        try
        {
            Transfer.RequireInside(session, offset, bytes);
            if (session.Disk.Request.PassDiscard)
                await session.Writable.DiscardAsync(offset, bytes);
        }
        catch (Exception e) when (Transfer.IsFailure(e))
        {
            session.ShowFinished();
            session.Terminal.WriteLine($"discard failed: {session.Complain(e)}");
            return false;
        }
        session.ShowFinished();
        if (!arguments.Has('q'))
            session.Terminal.Write(ShellText.Report("discard", offset, bytes, Stopwatch.GetElapsedTime(start), arguments.Has('C')));
        return true;
    }

    private static async Task<bool> TransferAsync(ShellSession session, string name, Transfer transfer)
    {
        (bool succeeded, string text) = await transfer.RunAsync(session, name);
        session.ShowFinished();
        session.Terminal.Write(text);
        return succeeded;
    }

    private static (long Offset, long Bytes) Range(ShellArguments arguments)
    {
        if (arguments.Operands.Count != 2)
            throw new ShellUsageException(arguments.Command);
        return (ShellNumber.Bytes(arguments.Operands[0]), ShellNumber.Bytes(arguments.Operands[1]));
    }

    private static void RequireSectors(long offset, long bytes)
    {
        if (offset % SectorBytes != 0)
            throw new ShellException($"{offset} is not a sector-aligned value for 'offset'");
        if (bytes % SectorBytes != 0)
            throw new ShellException($"{bytes} is not a sector-aligned value for 'count'");
    }
}
