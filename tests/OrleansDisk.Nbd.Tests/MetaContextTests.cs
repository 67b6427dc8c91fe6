using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Nbd.Tests.Fixtures;

namespace OrleansDisk.Nbd.Tests;

/// <summary>Metadata contexts beside base:allocation, as QEMU names them.</summary>
public sealed class MetaContextTests
{
    private const string Depth = "qemu:allocation-depth";
    private const string First = "qemu:dirty-bitmap:first";
    private const string Second = "qemu:dirty-bitmap:second";

    [Theory]
    [InlineData("qemu:", Depth, First, Second)]
    [InlineData("qemu:dirty-bitmap:", First, Second)]
    [InlineData("qemu:dirty-bitmap", "")]
    [InlineData(Second, Second)]
    [InlineData("base:", "base:allocation")]
    [InlineData("qemu:dirty-bitmap:third", "")]
    public async Task Lists_are_asked_for_by_a_namespace_or_a_name(string query, params string[] expected)
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = Connect(server);
        List<OptionReply> listed = client.Option(NbdOption.ListMetaContext, Wire.MetaContext("", query));
        Assert.Equal(expected.Where(name => name.Length > 0), listed[..^1].Select(NameOf));
        bool isName = expected.Contains(query);
        List<OptionReply> set = client.Option(NbdOption.SetMetaContext, Wire.MetaContext("", query));
        Assert.Equal(isName ? [query] : [], set[..^1].Select(NameOf));
    }

    [Fact]
    public async Task Without_a_query_all_are_listed()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = Connect(server);
        List<OptionReply> listed = client.Option(NbdOption.ListMetaContext, Wire.MetaContext(""));
        Assert.Equal(["base:allocation", Depth, First, Second], listed[..^1].Select(NameOf));
    }

    [Fact]
    public async Task Each_context_that_was_selected_answers_with_a_chunk_of_its_own()
    {
        MemoryExport export = Export();
        export.Intercept = request =>
        {
            if (request.Command != NbdCommand.BlockStatus)
                return false;
            Assert.False(request.AddExtent(0, 10, 1)); // nobody asked for the depth
            Assert.True(request.AddExtent(1, 4096, 1));
            Assert.False(request.AddExtent(1, 61440, 0));
            Assert.True(request.AddExtent(65000, NbdExtentState.Data));
            Assert.False(request.AddExtent(2, 65536, 0));
            Assert.False(request.AddExtent(3, 65536, 0));
            request.Complete(NbdError.None);
            return true;
        };
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = Connect(server);
        List<OptionReply> set = client.Option(NbdOption.SetMetaContext, Wire.MetaContext("", Second, First, "base:allocation", First));
        Assert.Equal(["base:allocation", First, Second], set[..^1].Select(NameOf));
        byte[][] ids = [.. set[..^1].Select(reply => reply.Data[..4])];
        client.Go("");
        client.SendRequest(NbdCommand.BlockStatus, cookie: 7, 0, 65536);
        ReplyChunk[] chunks = [client.ReceiveReply(), client.ReceiveReply(), client.ReceiveReply()];
        Assert.Equal([false, false, true], chunks.Select(chunk => chunk.IsLast));
        Assert.Equal([.. ids[0], .. Wire.U32(65000), .. Wire.U32(0)], chunks[0].Data);
        Assert.Equal([.. ids[1], .. Wire.U32(4096), .. Wire.U32(1), .. Wire.U32(61440), .. Wire.U32(0)], chunks[1].Data);
        Assert.Equal([.. ids[2], .. Wire.U32(65536), .. Wire.U32(0)], chunks[2].Data);
    }

    [Fact]
    public async Task A_context_that_the_export_says_nothing_of_is_an_error()
    {
        MemoryExport export = Export();
        export.Intercept = request =>
        {
            request.AddExtent(1, 512, 0);
            request.Complete(NbdError.None);
            return true;
        };
        await using TestServer server = await TestServer.StartAsync(export);
        using RawClient client = Connect(server);
        client.Acknowledged(NbdOption.SetMetaContext, Wire.MetaContext("", First, Second));
        client.Go("");
        Assert.Equal(NbdError.InputOutput, client.Request(NbdCommand.BlockStatus, 0, 512).Error);
    }

    private static string NameOf(OptionReply reply) => System.Text.Encoding.UTF8.GetString(reply.Data.AsSpan(4));

    private static RawClient Connect(TestServer server)
    {
        RawClient client = server.Connect();
        client.Greet();
        client.Acknowledged(NbdOption.StructuredReply, []);
        return client;
    }

    private static MemoryExport Export() => new("", MemoryExport.FullInfo(1 << 20)) { MetaContexts = [Depth, First, Second] };
}
