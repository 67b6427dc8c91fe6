using OrleansDisk.Bench.Tools;
using OrleansDisk.Bench.Workloads;

namespace OrleansDisk.Bench.Servers;

/// <summary>What a server is started with.</summary>
/// <param name="Image">The file to serve.</param>
/// <param name="Endpoint">Where to listen.</param>
/// <param name="IsDirect">Whether the page cache is to be passed by.</param>
internal readonly record struct ServerStart(string Image, Endpoint Endpoint, bool IsDirect);

/// <summary>One of the programs that are compared.</summary>
/// <param name="Name">What --servers and the targets know it by.</param>
/// <param name="Program">What is run.</param>
/// <param name="IsRaw">Whether it serves a raw file.</param>
/// <param name="Arguments">Its arguments.</param>
internal sealed record ServerProgram(string Name, string Program, bool IsRaw, Func<ServerStart, string[]> Arguments)
{
    public const string OdiskdName = "odiskd";
    public const string OdiskName = "odisk";
    public const string NbdkitName = "nbdkit";
    public const string StorageDaemonName = "qemu-storage-daemon";

    /// <summary>qemu-nbd in its modes; where the table says qemu-nbd it means the better one.</summary>
    public const string QemuNbdName = "qemu-nbd";

    public static IReadOnlyList<ServerProgram> All { get; } =
    [
        QemuNbd("io_uring"),
        QemuNbd("threads"),
        new(StorageDaemonName, StorageDaemonName, IsRaw: false, StorageDaemonArguments),
        new(NbdkitName, "nbdkit", IsRaw: true, start => ["-f", .. ListenNbdkit(start.Endpoint), "file", start.Image]),
        new(OdiskName, Repository.Odisk, IsRaw: false, start =>
        [
            "nbd", .. Listen(start.Endpoint), "-t", "-e", "16", "-x", Endpoint.Export, "-f", "qcow2",
            .. start.IsDirect ? ["--cache=none"] : Array.Empty<string>(), start.Image,
        ]),
        new(OdiskdName, Repository.Odiskd, IsRaw: false, OdiskdArguments),
    ];

    /// <summary>Whether the server has what a workload asks for.</summary>
    public bool Supports(Workload workload) => workload.Place != Place.DiskDirect || Name switch
    {
        NbdkitName or OdiskdName => false,
        _ => true,
    };

    private static ServerProgram QemuNbd(string aio) => new($"{QemuNbdName}-{aio}", QemuNbdName, IsRaw: false, start =>
    [
        .. Listen(start.Endpoint), "-t", "-e", "16", "-x", Endpoint.Export, "-f", "qcow2",
        $"--cache={(start.IsDirect ? "none" : "writeback")}", $"--aio={aio}", start.Image,
    ]);

    private static string[] Listen(Endpoint endpoint) => endpoint.SocketPath is { } path
        ? ["-k", path] : ["-b", "127.0.0.1", "-p", $"{endpoint.Port}"];

    private static string[] ListenNbdkit(Endpoint endpoint) => endpoint.SocketPath is { } path
        ? ["-U", path] : ["-i", "127.0.0.1", "-p", $"{endpoint.Port}"];

    private static string[] StorageDaemonArguments(ServerStart start)
    {
        string address = start.Endpoint.SocketPath is { } path
            ? $"addr.type=unix,addr.path={path}" : $"addr.type=inet,addr.host=127.0.0.1,addr.port={start.Endpoint.Port}";
        string cache = start.IsDirect ? "on" : "off";
        return
        [
            "--blockdev", $"driver=file,node-name=file,filename={start.Image},aio=io_uring,cache.direct={cache}",
            "--blockdev", $"driver=qcow2,node-name=disk,file=file,cache.direct={cache}",
            "--nbd-server", address,
            "--export", $"type=nbd,id=disk,node-name=disk,name={Endpoint.Export},writable=on",
        ];
    }

    private static string[] OdiskdArguments(ServerStart start) =>
    [
        "--pool", $"bench={Path.GetDirectoryName(start.Image)}",
        "--export", $"{Endpoint.Export}=bench/{Path.GetFileNameWithoutExtension(start.Image)}",
        .. start.Endpoint.SocketPath is { } path ? (string[])["--unix", path] : ["--tcp", $"127.0.0.1:{start.Endpoint.Port}"],
    ];
}
