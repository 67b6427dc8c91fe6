using System.Net;
using System.Net.Sockets;
using OrleansDisk.Nbd.Client;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Nbd.Tests.Fixtures;
using OrleansDisk.Nbd.Tls;

namespace OrleansDisk.Nbd.Tests;

/// <summary>TLS, on the server and on the client, with each other and with those of libnbd.</summary>
public sealed class TlsTests : IDisposable
{
    private const int DiskBytes = 8 << 20;

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("nbd-tls-");
    private readonly string _ours;
    private readonly string _others;

    public TlsTests()
    {
        _ours = TlsFiles.Create(Path.Combine(_directory.FullName, "ours"));
        _others = TlsFiles.Create(Path.Combine(_directory.FullName, "others"));
    }

    public void Dispose() => _directory.Delete(recursive: true);

    [Fact]
    public async Task What_is_written_encrypted_is_read_back_and_the_server_keeps_its_order_of_closing()
    {
        var export = new MemoryExport("", MemoryExport.FullInfo(DiskBytes)) { IsAsynchronous = true };
        await using TestServer server = await StartAsync(export);
        byte[] data = new byte[5 << 20];
        new Random(1).NextBytes(data);
        await using (NbdClient client = await NbdClient.ConnectAsync(Options(server)))
        {
            await Task.WhenAll(Enumerable.Range(0, 5).Select(i => client.WriteAsync(i << 20, data.AsMemory(i << 20, 1 << 20))));
            byte[] read = new byte[data.Length];
            await Task.WhenAll(Enumerable.Range(0, 5).Select(i => client.ReadAsync(i << 20, read.AsMemory(i << 20, 1 << 20))));
            Assert.Equal(data, read);
            Assert.True(client.HasBlockStatus);
            Assert.Equal(new NbdExtent(5 << 20, 0), (await client.GetBlockStatusAsync(0, DiskBytes))[0]);
            await client.FlushAsync();
        }
        await Eventually.IsTrueAsync(() => server.Server.ConnectionCount == 0);
        Assert.Equal(0, export.SessionCount);
        Assert.Empty(server.Lines);
    }

    [Fact]
    public async Task Before_tls_all_options_but_abort_are_refused()
    {
        await using TestServer server = await StartAsync(Export());
        using (RawClient client = server.Connect())
        {
            client.Greet();
            client.Fails(NbdOption.StructuredReply, [], NbdOptionReply.ErrorTlsRequired);
            client.Fails(NbdOption.List, [], NbdOptionReply.ErrorTlsRequired);
            client.Fails(NbdOption.Go, [0, 0, 0, 0, 0, 0], NbdOptionReply.ErrorTlsRequired);
            client.Fails((NbdOption)12345, [1, 2, 3], NbdOptionReply.ErrorTlsRequired);
            client.Fails(NbdOption.StartTls, [1], NbdOptionReply.ErrorInvalid);
            client.Acknowledged(NbdOption.Abort, []);
            client.IsClosed();
        }
        using RawClient old = server.Connect();
        old.Greet();
        old.SendOption(NbdOption.ExportName, []);
        old.IsClosed();
        IOException plain = await Assert.ThrowsAsync<IOException>(() => NbdClient.ConnectUnixAsync(server.SocketPath, ""));
        Assert.StartsWith("TLS negotiation required before option 7 (go)", plain.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_without_credentials_says_so()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        IOException refused = await Assert.ThrowsAsync<IOException>(() => NbdClient.ConnectAsync(Options(server)));
        Assert.Equal("Denied by server for option 5 (starttls)\nserver reported: TLS not configured", refused.Message);
        using RawClient client = server.Connect();
        client.Greet();
        client.Fails(NbdOption.StartTls, [], NbdOptionReply.ErrorPolicy);
        client.Go("");
    }

    [Fact]
    public async Task Only_a_server_with_the_right_authority_and_name_is_trusted()
    {
        await using TestServer server = await StartAsync(Export());
        await ExpectAsync("The certificate hasn't got a known issuer", Options(server) with { Tls = new NbdTlsCredentials(_others, isServer: false) });
        await ExpectAsync("Certificate does not match the hostname elsewhere.test", Options(server) with { TlsHostName = "elsewhere.test" });
        await ExpectAsync("No hostname for certificate validation", Options(server) with { TlsHostName = null });
        await using NbdClient byAddress = await NbdClient.ConnectAsync(Options(server) with { TlsHostName = "127.0.0.1" });
        var trusting = new NbdTlsCredentials(_ours, isServer: false, verifiesPeer: false);
        await using NbdClient anyName = await NbdClient.ConnectAsync(Options(server) with { Tls = trusting, TlsHostName = null });
        Assert.Equal(DiskBytes, anyName.Bytes);

        static async Task ExpectAsync(string message, NbdClientOptions options) =>
            Assert.Equal(message, (await Assert.ThrowsAsync<IOException>(() => NbdClient.ConnectAsync(options))).Message);
    }

    [Fact]
    public async Task Only_a_client_with_a_certificate_of_the_authority_is_served_unless_any_may_come()
    {
        string none = TlsFiles.CopyWithoutClient(_ours, Path.Combine(_directory.FullName, "none"));
        File.Copy(Path.Combine(_ours, "ca-cert.pem"), Path.Combine(_others, "ca-cert.pem"), overwrite: true);
        await using (TestServer server = await StartAsync(Export()))
        {
            foreach (string directory in (string[])[none, _others])
            {
                await Assert.ThrowsAnyAsync<IOException>(() => NbdClient.ConnectAsync(
                    Options(server) with { Tls = new NbdTlsCredentials(directory, isServer: false) }));
            }
            await Eventually.IsTrueAsync(() => server.Lines.Count == 2);
            Assert.All(server.Lines, line => Assert.Contains("TLS handshake failed", line, StringComparison.Ordinal));
            await using NbdClient served = await NbdClient.ConnectAsync(Options(server));
        }
        await using TestServer open = await StartAsync(Export(), verifiesPeer: false);
        await using NbdClient client = await NbdClient.ConnectAsync(Options(open) with { Tls = new NbdTlsCredentials(none, isServer: false) });
        Assert.Equal(DiskBytes, client.Bytes);
    }

    [Fact]
    public async Task What_follows_starttls_in_the_open_is_no_part_of_the_handshake()
    {
        await using TestServer server = await StartAsync(Export());
        using (RawClient client = server.Connect())
        {
            client.Greet();
            client.Send([.. Wire.U64(NbdMagic.Option), .. Wire.U32((uint)NbdOption.StartTls), .. Wire.U32(0),
                .. Wire.U64(NbdMagic.Option), .. Wire.U32((uint)NbdOption.StructuredReply), .. Wire.U32(0)]);
            client.Receive(20);
            await Eventually.IsTrueAsync(() => server.Server.ConnectionCount == 0);
        }
        await using NbdClient other = await NbdClient.ConnectAsync(Options(server));
        Assert.Equal(DiskBytes, other.Bytes);
    }

    [Fact]
    public async Task A_client_that_goes_silent_in_the_handshake_of_tls_is_cut_off_in_time()
    {
        var time = new ManualTime();
        await using TestServer server = await TestServer.StartAsync(
            log => new NbdServerOptions { Log = log, TimeProvider = time, Tls = new NbdTlsCredentials(_ours, isServer: true) }, Export());
        using RawClient client = server.Connect();
        client.Greet();
        client.Acknowledged(NbdOption.StartTls, []);
        client.Send([22, 3, 1]);
        time.Advance(TimeSpan.FromSeconds(11));
        client.IsClosed();
    }

    [Fact]
    public async Task Stopping_answers_what_was_received_and_cuts_clients_off_that_do_not_read()
    {
        var export = new MemoryExport("", MemoryExport.FullInfo(DiskBytes));
        TestServer server = await StartAsync(export);
        await using NbdClient client = await NbdClient.ConnectAsync(Options(server));
        NbdRequest? held = null;
        export.Intercept = request =>
        {
            held = request;
            return true;
        };
        Task read = client.ReadAsync(0, new byte[1 << 20]);
        await Eventually.IsTrueAsync(() => held is not null);
        Task stopping = server.Server.StopAsync(TimeSpan.FromMinutes(1));
        held!.Complete(NbdError.None);
        await read;
        await stopping;
        await Assert.ThrowsAsync<NbdConnectionException>(() => client.FlushAsync());
        await server.DisposeAsync();
    }

    [Fact]
    public async Task Libnbd_speaks_with_the_server_by_tls()
    {
        MemoryExport export = Export();
        await using var server = new NbdServer([NbdListenAddress.Tcp("127.0.0.1", 0)], () => [export], new NbdServerOptions
        {
            Tls = new NbdTlsCredentials(_ours, isServer: true),
        });
        await server.StartAsync();
        string uri = $"nbds://127.0.0.1:{((IPEndPoint)server.EndPoints[0]).Port}/?tls-certificates={_ours}";
        Assert.Contains("newstyle-fixed with TLS", await Tool.RunAsync("nbdinfo", uri), StringComparison.Ordinal);
        byte[] data = new byte[DiskBytes];
        new Random(2).NextBytes(data);
        string from = Path.Combine(_directory.FullName, "from");
        string to = Path.Combine(_directory.FullName, "to");
        await File.WriteAllBytesAsync(from, data);
        await Tool.RunAsync("nbdcopy", from, uri);
        await Tool.RunAsync("nbdcopy", uri, to);
        Assert.Equal(data, export.Contents);
        Assert.Equal(data, await File.ReadAllBytesAsync(to));
    }

    [Fact]
    public void Credentials_that_are_missing_or_no_use_are_named()
    {
        string empty = Path.Combine(_directory.FullName, "empty");
        IOException missing = Assert.Throws<IOException>(() => new NbdTlsCredentials(empty, isServer: true));
        Assert.Equal($"Unable to access credentials {empty}/ca-cert.pem: No such file or directory", missing.Message);
        File.Delete(Path.Combine(_ours, "server-key.pem"));
        Assert.Contains("server-key.pem", Assert.Throws<IOException>(() => new NbdTlsCredentials(_ours, isServer: true)).Message, StringComparison.Ordinal);
        File.WriteAllText(Path.Combine(_ours, "client-key.pem"), "no key");
        Assert.Contains("client-key.pem", Assert.Throws<IOException>(() => new NbdTlsCredentials(_ours, isServer: false)).Message, StringComparison.Ordinal);
        File.WriteAllText(Path.Combine(_others, "ca-crl.pem"), "");
        Assert.Contains("ca-crl.pem", Assert.Throws<IOException>(() => new NbdTlsCredentials(_others, isServer: false)).Message, StringComparison.Ordinal);
    }

    private static MemoryExport Export() => new("", MemoryExport.FullInfo(DiskBytes));

    private Task<TestServer> StartAsync(MemoryExport export, bool verifiesPeer = true) => TestServer.StartAsync(
        log => new NbdServerOptions { Log = log, Tls = new NbdTlsCredentials(_ours, isServer: true, verifiesPeer) }, export);

    private NbdClientOptions Options(TestServer server) => new()
    {
        Server = new UnixDomainSocketEndPoint(server.SocketPath),
        Tls = new NbdTlsCredentials(_ours, isServer: false),
        TlsHostName = "disks.test",
        MetaContext = "base:allocation",
    };
}
