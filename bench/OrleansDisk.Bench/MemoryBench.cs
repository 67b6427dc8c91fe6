using System.Globalization;
using OrleansDisk.Bench.Servers;
using OrleansDisk.Bench.Tools;
using OrleansDisk.Nbd.Client;

namespace OrleansDisk.Bench;

/// <summary>Memory of odiskd with many open images that do nothing, each with one NBD client.</summary>
internal sealed class MemoryBench(BenchOptions options, Workspace workspace)
{
    private const long RssLimitBytes = 400L << 20;
    private const long PerImageLimitBytes = 1L << 20;

    /// <summary>Places in an image that hold data; each needs an L2 table of its own once the image is large.</summary>
    private const int ExtentCount = 16;
    private const int ExtentKiB = 128;

    private static readonly long[] _sizes = [1L << 30, 8L << 30, 64L << 30, 256L << 30, 1L << 40];

    private readonly string _folder = Path.Combine(workspace.Memory, "pool");
    private readonly string _probe = Path.Combine(workspace.Memory, "probe.socket");
    private readonly string _socket = Path.Combine(workspace.Memory, "odiskd.socket");

    /// <summary>What the daemon holds at one moment.</summary>
    private readonly record struct Footprint(long Resident, long Anonymous, int Threads, Counters Managed);

    /// <summary>Prints a table; gives 1 as exit code when a limit is passed.</summary>
    public async Task<int> RunAsync(CancellationToken cancellation)
    {
        await MakeImagesAsync(cancellation);
        ServerProgram daemon = ServerProgram.All.Single(s => s.Name == ServerProgram.OdiskdName);
        var start = new ServerStart(Path.Combine(_folder, Endpoint.Export + ".qcow2"), Endpoint.Unix(_socket), IsDirect: false);
        await using RunningServer server = await RunningServer.StartAsync(daemon, start, cancellation, _probe);
        Console.WriteLine($"{options.ImageCount} images of 1 GiB to 1 TiB in one odiskd, one NBD client each; MiB\n");
        Console.WriteLine("| odiskd with | RSS | of it anonymous | threads | managed heap | committed | large | pinned | RSS per image, KiB |");
        Console.WriteLine("|---|---|---|---|---|---|---|---|---|");
        var clients = new List<NbdClient>();
        try
        {
            Footprint empty = await FootprintAsync(server, afterCollection: true, cancellation);
            Print("one image", empty, empty);
            for (int i = 0; i < options.ImageCount; i++)
                clients.Add(await NbdClient.ConnectUnixAsync(_socket, $"bench/{i}", cancellation: cancellation));
            Footprint opened = await FootprintAsync(server, afterCollection: true, cancellation);
            Print("all images open", opened, empty);
            await ReadAllAsync(clients, cancellation);
            Footprint read = await FootprintAsync(server, afterCollection: false, cancellation);
            Print($"{ExtentCount} places of each read", read, empty);
            Print("the same, after a collection", await FootprintAsync(server, afterCollection: true, cancellation), empty);
            return Judge(empty, opened, read);
        }
        finally
        {
            foreach (NbdClient client in clients)
                await client.DisposeAsync();
        }
    }

    private async Task MakeImagesAsync(CancellationToken cancellation)
    {
        Directory.CreateDirectory(_folder);
        for (int i = 0; i < _sizes.Length; i++)
        {
            string master = Path.Combine(_folder, $"{(i == 0 ? Endpoint.Export : $"master-{i}")}.qcow2");
            await Tool.RunAsync("qemu-img", ["create", "-q", "-f", "qcow2", master, $"{_sizes[i]}"], cancellation);
            IEnumerable<string> writes = Enumerable.Range(0, ExtentCount)
                .SelectMany(place => (string[])["-c", $"write -q -P {place + 1} {OffsetOf(place, _sizes[i])} {ExtentKiB}k"]);
            await Tool.RunAsync("qemu-io", ["-f", "qcow2", .. writes, master], cancellation);
            for (int image = i; image < options.ImageCount; image += _sizes.Length)
                File.Copy(master, Path.Combine(_folder, $"{image}.qcow2"));
        }
    }

    private static long OffsetOf(int place, long diskBytes) => diskBytes / ExtentCount * place;

    private static async Task ReadAllAsync(List<NbdClient> clients, CancellationToken cancellation)
    {
        byte[] buffer = new byte[4096];
        for (int image = 0; image < clients.Count; image++)
        {
            cancellation.ThrowIfCancellationRequested();
            for (int place = 0; place < ExtentCount; place++)
            {
                await clients[image].ReadAsync(OffsetOf(place, clients[image].Bytes), buffer);
                if (buffer[0] != place + 1)
                    throw new BenchException($"image {image} has {buffer[0]} where {place + 1} was written");
            }
        }
    }

    private async Task<Footprint> FootprintAsync(RunningServer server, bool afterCollection, CancellationToken cancellation)
    {
        Counters managed = await Counters.ReadAsync(_probe, afterCollection, cancellation);
        var status = (await File.ReadAllLinesAsync($"/proc/{server.ProcessId}/status", cancellation))
            .Select(line => line.Split(':', 2)).ToDictionary(parts => parts[0], parts => parts[1].Trim());
        return new Footprint(KiB("VmRSS") << 10, KiB("RssAnon") << 10, (int)KiB("Threads"), managed);

        long KiB(string name) => long.Parse(status[name].Split(' ')[0], CultureInfo.InvariantCulture);
    }

    private int Judge(Footprint empty, Footprint opened, Footprint read)
    {
        long perImage = (opened.Resident - empty.Resident) / options.ImageCount;
        bool isSmall = read.Resident < RssLimitBytes;
        bool isCheap = perImage < PerImageLimitBytes;
        Console.WriteLine($"\n{(isSmall ? '✓' : '✗')} RSS {Math.Max(opened.Resident, read.Resident) >> 20} MiB, the limit is {RssLimitBytes >> 20} MiB");
        Console.WriteLine($"{(isCheap ? '✓' : '✗')} {perImage >> 10} KiB per open image without what was read, the limit is {PerImageLimitBytes >> 10} KiB");
        return isSmall && isCheap ? 0 : 1;
    }

    private void Print(string what, Footprint now, Footprint empty)
    {
        Counters managed = now.Managed;
        long perImage = (now.Resident - empty.Resident) / options.ImageCount;
        Console.WriteLine($"| {what} | {MiB(now.Resident)} | {MiB(now.Anonymous)} | {now.Threads} | {MiB(managed.Heap)} "
            + $"| {MiB(managed.Committed)} | {MiB(managed.Large)} | {MiB(managed.Pinned)} | {perImage >> 10} |");
    }

    private static string MiB(long bytes) => (bytes / (double)(1 << 20)).ToString("0.0", CultureInfo.InvariantCulture);
}
