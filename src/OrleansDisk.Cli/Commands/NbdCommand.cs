using System.Runtime.InteropServices;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Nbd;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Opening.Drivers;
using OrleansDisk.Cli.Output;
using OrleansDisk.Exports;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk nbd: serves an image to NBD clients.</summary>
internal static class NbdCommand
{
    /// <summary>How long clients may take to read their last replies when the server ends.</summary>
    private static readonly TimeSpan _drain = TimeSpan.FromSeconds(10);

    private const string Help = """
          -k, --socket=PATH        listen on a unix socket
          -b, --bind=ADDRESS       listen on this address (default: all)
          -p, --port=PORT          TCP port (default: 10809)
          -f, --format=FORMAT      qcow2 or raw; found out when not given
          -r, --read-only          refuse writing
          -o, --offset=BYTES       serve the disk from here on
          -s, --snapshot           keep what is written in a temporary file that is gone at the end
          -l, --load-snapshot=SNAPSHOT
                                   serve an internal snapshot, read-only: ID_OR_NAME,
                                   or snapshot.id=ID,snapshot.name=NAME
          -x, --export-name=NAME   the name that clients ask for (default: empty)
          -D, --description=TEXT   tell clients this about the export
          -B, --bitmap=NAME        tell clients of this dirty bitmap; may be given several times
          -A, --allocation-depth   tell clients which layer of the chain holds what
          -e, --shared=N           clients at once (default: 1; 0: any number)
          -t, --persistent         go on when the last client has left
              --image-opts         FILE is a list of options: driver=qcow2,file.filename=...
              --object=OBJECT      secret,id=ID,data=TEXT|file=FILE,format=raw|base64, or
                                   tls-creds-x509,id=ID,dir=DIRECTORY,endpoint=server|client,verify-peer=yes|no
              --tls-creds=ID       the credentials that clients must use TLS with; with -L, our own
              --tls-hostname=NAME  with -L: the name that the server's certificate must have
              --cache=MODE         writeback (default), none, writethrough, directsync, unsafe
          -n, --nocache            as --cache=none
              --aio=AIO            threads, native or io_uring; without effect
          -c, --connect=DEVICE     tell how to serve FILE to the kernel, with nbd-client
          -d, --disconnect         FILE is a device: tell how to disconnect it
          -T, --trace=EVENTS       without effect
              --detect-zeroes=MODE
                                   off (default); on: written zeros become zero clusters; unmap: their space is given up
              --discard=MODE       unmap (default): trimmed space goes back to the host; ignore: it stays
          -L, --list               show what another server has: with -k, or -b and -p
              --fork               run in the background, return when clients can connect
              --pid-file=PATH      write the process id there
          -v, --verbose            report connections that fail

        Sockets passed by systemd (LISTEN_FDS) are used in place of -k, -b and -p.
        SIGTERM and SIGINT end the server after what it received is done and written back.
        """;

    public static Command Command { get; } = new(
        "nbd", "Serve an image to NBD clients", Help,
        [
            new OptionSpec('k', "socket", HasValue: true), new OptionSpec('b', "bind", HasValue: true),
            new OptionSpec('p', "port", HasValue: true), new OptionSpec('f', "format", HasValue: true),
            new OptionSpec('r', "read-only", HasValue: false), new OptionSpec('x', "export-name", HasValue: true),
            new OptionSpec('D', "description", HasValue: true), new OptionSpec('e', "shared", HasValue: true),
            new OptionSpec('B', "bitmap", HasValue: true), new OptionSpec('A', "allocation-depth", HasValue: false),
            new OptionSpec('t', "persistent", HasValue: false), new OptionSpec('\0', "discard", HasValue: true),
            new OptionSpec('\0', "fork", HasValue: false), new OptionSpec('\0', "pid-file", HasValue: true),
            new OptionSpec('v', "verbose", HasValue: false), Command.ImageOptsOption, Command.ObjectOption,
            new OptionSpec('\0', "cache", HasValue: true), new OptionSpec('n', "nocache", HasValue: false),
            new OptionSpec('\0', "aio", HasValue: true), new OptionSpec('\0', "detect-zeroes", HasValue: true),
            new OptionSpec('o', "offset", HasValue: true), new OptionSpec('s', "snapshot", HasValue: false),
            new OptionSpec('l', "load-snapshot", HasValue: true), new OptionSpec('L', "list", HasValue: false),
            new OptionSpec('c', "connect", HasValue: true), new OptionSpec('d', "disconnect", HasValue: false),
            new OptionSpec('T', "trace", HasValue: true), new OptionSpec('\0', "tls-creds", HasValue: true),
            new OptionSpec('\0', "tls-hostname", HasValue: true),
        ],
        RunAsync);

    private static async Task<int> RunAsync(ParsedOptions parsed, Terminal terminal)
    {
        if (parsed.Has("list"))
            return await ExportList.RunAsync(parsed, terminal);
        if (parsed.Has("disconnect"))
        {
            throw parsed.Operands.Count == 1 ? KernelDevice.CanNotDisconnect(parsed.Operands[0])
                : new CommandLineException("Give the device to disconnect");
        }
        var options = NbdOptions.From(parsed);
        if (options.Forks && !Background.IsChild)
            return await Background.StartAsync(parsed.Arguments);
        if (Background.IsChild)
            Background.Detach();
        var turns = new ImageTurns();
        (SharedDisk disk, Qcow2Image? image) = await turns.RunAsync(() => OpenAsync(options, turns));
        try
        {
            IReadOnlyList<DiskContext> contexts = await turns.RunAsync(() =>
                ExportContexts.FindAsync(options, options.OffsetBytes == 0 && image is not null ? image : disk.Source));
            var export = new DiskExport(options.ExportName, options.Description, disk, canMultiConnect: options.ClientLimit > 1) { Contexts = contexts };
            using var upkeep = new DiskUpkeep(disk, TimeProvider.System);
            await ServeAsync(options, export, terminal);
        }
        finally
        {
            await turns.RunAsync(disk.CloseAsync);
        }
        return 0;
    }

    private static async Task ServeAsync(NbdOptions options, DiskExport export, Terminal terminal)
    {
        var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        using PosixSignalRegistration terminate = EndOn(PosixSignal.SIGTERM, ended);
        using PosixSignalRegistration interrupt = EndOn(PosixSignal.SIGINT, ended);
        using PosixSignalRegistration hangUp = EndOn(PosixSignal.SIGHUP, ended);
        INbdExport[] exports = [export];
        await using var server = new NbdServer(Addresses(options), () => exports, new NbdServerOptions
        {
            MaxConnections = options.ClientLimit,
            WaitAtConnectionLimit = true,
            Tls = options.Tls,
            Log = line => Report(options, terminal, line),
        });
        if (!options.IsPersistent)
        {
            server.ConnectionCountChanged += count =>
            {
                if (count == 0)
                    ended.TrySetResult();
            };
        }
        await server.StartAsync();
        try
        {
            if (options.PidFile is not null)
                Background.WritePidFile(options.PidFile);
            if (Background.IsChild)
                Background.TellReady();
            await ended.Task;
            await server.StopAsync(_drain);
        }
        finally
        {
            if (options.PidFile is not null)
                Background.RemovePidFile(options.PidFile);
        }
    }

    private static async Task<(SharedDisk Disk, Qcow2Image? Image)> OpenAsync(NbdOptions options, ImageTurns turns)
    {
        OpenedDisk disk = await SnapshotView.OpenAsync(options.Disk);
        try
        {
            if (options.OffsetBytes == 0 && options.Disk.Cache is { Writethrough: false, NoFlush: false })
                return (new SharedDisk(disk.Source, await disk.LayersAsync(), turns), disk.Image);
            IWritableDisk source = new CacheModeDisk((IWritableDisk)disk.Source, options.Disk.Cache);
            if (options.OffsetBytes > 0)
                source = new RawWindow(source, options.OffsetBytes, bytes: null);
            return (new SharedDisk(source, MapOperation.LayersOf(source), turns), disk.Image);
        }
        catch
        {
            await disk.DisposeAsync();
            throw;
        }
    }

    private static IReadOnlyCollection<NbdListenAddress> Addresses(NbdOptions options)
    {
        IReadOnlyList<NbdListenAddress> passed = SocketActivation.Addresses();
        if (passed.Count > 0)
            return passed;
        return [options.SocketPath is { } path ? NbdListenAddress.Unix(path) : NbdListenAddress.Tcp(options.Address, options.Port)];
    }

    private static PosixSignalRegistration EndOn(PosixSignal signal, TaskCompletionSource ended) =>
        PosixSignalRegistration.Create(signal, context =>
        {
            context.Cancel = true;
            ended.TrySetResult();
        });

    private static void Report(NbdOptions options, Terminal terminal, string line)
    {
        if (options.IsVerbose)
            terminal.Error(line);
    }
}
