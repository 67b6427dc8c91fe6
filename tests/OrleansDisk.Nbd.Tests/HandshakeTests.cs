using System.Buffers.Binary;
using OrleansDisk.Nbd.Protocol;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Nbd.Tests.Fixtures;

namespace OrleansDisk.Nbd.Tests;

/// <summary>Each option of the handshake, byte by byte.</summary>
public sealed class HandshakeTests
{
    private const long ExportBytes = 1 << 20;

    private static MemoryExport Export(string name = "") =>
        new(name, MemoryExport.FullInfo(ExportBytes)) { Description = $"description of {name}" };

    private static async Task<(TestServer Server, RawClient Client)> ConnectAsync(params INbdExport[] exports)
    {
        TestServer server = await TestServer.StartAsync(exports);
        RawClient client = server.Connect();
        client.Greet();
        return (server, client);
    }

    [Fact]
    public async Task List_names_each_export_with_its_description()
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export("one"), Export("two"));
        await using (server)
        {
            List<OptionReply> replies = client.Option(NbdOption.List, []);
            Assert.Equal(3, replies.Count);
            Assert.All(replies[..2], reply => Assert.Equal(NbdOptionReply.Server, reply.Type));
            Assert.Equal([.. Wire.Text("one"), .. "description of one"u8], replies[0].Data);
            Assert.Equal([.. Wire.Text("two"), .. "description of two"u8], replies[1].Data);
        }
    }

    [Theory]
    [InlineData((int)NbdOption.List)]
    [InlineData((int)NbdOption.StructuredReply)]
    public async Task Data_where_there_is_none_is_invalid(int option)
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export());
        await using (server)
        {
            client.Fails((NbdOption)option, [1, 2, 3], NbdOptionReply.ErrorInvalid);
            client.Go("");
        }
    }

    [Fact]
    public async Task Abort_is_acknowledged_and_closes()
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export());
        await using (server)
        {
            client.Acknowledged(NbdOption.Abort, [9]);
            client.IsClosed();
            Assert.Empty(server.Lines);
        }
    }

    [Theory]
    [InlineData(4, 0)]
    [InlineData(0x7fffffff, 5000)]
    public async Task Unknown_options_are_unsupported_and_their_data_is_skipped(int option, int dataBytes)
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export());
        await using (server)
        {
            client.Fails((NbdOption)option, new byte[dataBytes], NbdOptionReply.ErrorUnsupported);
            client.Go("");
        }
    }

    [Fact]
    public async Task An_option_too_long_to_hold_is_skipped()
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export());
        await using (server)
        {
            client.Fails(NbdOption.Go, new byte[200_000], NbdOptionReply.ErrorTooBig);
            client.Go("");
        }
    }

    [Fact]
    public async Task An_option_too_long_to_skip_closes()
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export());
        await using (server)
        {
            client.Send([.. Wire.U64(NbdMagic.Option), .. Wire.U32((uint)NbdOption.List), .. Wire.U32(0xffffffff)]);
            client.IsClosed();
            Assert.Contains("4294967295 bytes", Assert.Single(server.Lines));
        }
    }

    [Fact]
    public async Task Info_tells_everything_asked_for_and_goes_on_with_the_handshake()
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export("disk"));
        await using (server)
        {
            List<OptionReply> replies = client.Option(NbdOption.Info, Wire.Info("", 0, 1, 2, 3, 99));
            Assert.Equal(5, replies.Count);
            Assert.Equal([0, 0, .. Wire.U64(ExportBytes), .. Wire.U16(0xd6d & ~0x80)], replies[0].Data);
            Assert.Equal([0, 1, .. "disk"u8], replies[1].Data);
            Assert.Equal([0, 2, .. "description of disk"u8], replies[2].Data);
            Assert.Equal([0, 3, .. Wire.U32(1), .. Wire.U32(4096), .. Wire.U32(32 << 20)], replies[3].Data);
            client.Go("disk");
            Assert.Equal(ExportBytes, (long)client.ExportBytes);
        }
    }

    [Fact]
    public async Task Info_and_go_use_one_session_of_the_export()
    {
        MemoryExport export = Export("disk");
        (TestServer server, RawClient client) = await ConnectAsync(export, Export("other"));
        await using (server)
        {
            client.Acknowledged(NbdOption.Info, Wire.Info("disk"));
            Assert.Equal(1, export.SessionCount);
            client.Go("disk");
            Assert.Equal(1, export.SessionCount);
            client.Dispose();
            await Eventually.IsTrueAsync(() => export.SessionCount == 0);
        }
    }

    [Fact]
    public async Task Info_of_another_export_ends_the_first_ones_session()
    {
        MemoryExport export = Export("disk");
        (TestServer server, RawClient client) = await ConnectAsync(export, Export("other"));
        await using (server)
        {
            client.Acknowledged(NbdOption.Info, Wire.Info("disk"));
            client.Acknowledged(NbdOption.Info, Wire.Info("other"));
            Assert.Equal(0, export.SessionCount);
        }
    }

    [Fact]
    public async Task An_unknown_export_is_an_error_and_the_handshake_goes_on()
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export("one"), Export("two"));
        await using (server)
        {
            client.Fails(NbdOption.Info, Wire.Info("three"), NbdOptionReply.ErrorUnknown);
            client.Fails(NbdOption.Go, Wire.Info("three"), NbdOptionReply.ErrorUnknown);
            // Two exports: neither is the default one.
            client.Fails(NbdOption.Go, Wire.Info(""), NbdOptionReply.ErrorUnknown);
            client.Go("two");
        }
    }

    [Fact]
    public async Task The_export_named_with_the_empty_string_is_the_default()
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export("one"), Export(""));
        await using (server)
        {
            List<OptionReply> replies = client.Option(NbdOption.Go, Wire.Info("", 1));
            Assert.Equal([0, 1], replies[1].Data);
        }
    }

    [Fact]
    public async Task Exports_can_come_and_go_while_the_server_runs()
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export("one"));
        await using (server)
        {
            server.Exports = [Export("two")];
            client.Fails(NbdOption.Info, Wire.Info("one"), NbdOptionReply.ErrorUnknown);
            client.Go("two");
        }
    }

    [Fact]
    public async Task An_export_that_cannot_be_opened_tells_the_client_why()
    {
        var broken = new MemoryExport("broken", new NbdExportInfo(1)) { ConnectError = "the image is locked" };
        var impossible = new MemoryExport("odd", new NbdExportInfo(4096) { MinimumBlockBytes = 3 });
        (TestServer server, RawClient client) = await ConnectAsync(broken, impossible, Export());
        await using (server)
        {
            OptionReply reply = Assert.Single(client.Option(NbdOption.Go, Wire.Info("broken")));
            Assert.Equal(NbdOptionReply.ErrorUnknown, reply.Type);
            Assert.Equal("the image is locked", reply.Text);
            client.Fails(NbdOption.Go, Wire.Info("odd"), NbdOptionReply.ErrorUnknown);
            Assert.Equal(0, impossible.SessionCount);
            client.Go("");
        }
    }

    [Theory]
    [InlineData(3u, 10)]
    [InlineData(1u, 134)]
    [InlineData(0u, 134)]
    public async Task Export_name_enters_transmission_with_or_without_zeroes(uint clientFlags, int replyBytes)
    {
        await using TestServer server = await TestServer.StartAsync(Export("disk"));
        using RawClient client = server.Connect();
        client.Greet(clientFlags);
        client.SendOption(NbdOption.ExportName, "disk"u8);
        byte[] reply = client.Receive(replyBytes);
        Assert.Equal(ExportBytes, BinaryPrimitives.ReadInt64BigEndian(reply));
        Assert.All(reply[10..], b => Assert.Equal(0, b));
        // Without structured replies a read is a simple reply.
        client.SendRequest(NbdCommand.Read, 5, 0, 512);
        Assert.Equal(512, client.ReceiveReply(512).Data.Length);
    }

    [Fact]
    public async Task Export_name_closes_when_the_export_is_unknown()
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export("disk"));
        await using (server)
        {
            client.SendOption(NbdOption.ExportName, "nothing"u8);
            client.IsClosed();
            Assert.Contains("nothing", Assert.Single(server.Lines));
        }
    }

    [Fact]
    public async Task Only_export_name_is_open_to_clients_without_fixed_newstyle()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = server.Connect();
        client.Greet(0);
        client.SendOption(NbdOption.List, []);
        client.IsClosed();
        Assert.Single(server.Lines);
    }

    [Fact]
    public async Task Unknown_client_flags_close()
    {
        await using TestServer server = await TestServer.StartAsync(Export());
        using RawClient client = server.Connect();
        client.Greet(4);
        client.IsClosed();
        Assert.Contains("flags 0x4", Assert.Single(server.Lines));
    }

    [Fact]
    public async Task A_wrong_option_magic_closes()
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export());
        await using (server)
        {
            client.Send([.. Wire.U64(NbdMagic.Option + 1), .. Wire.U32(3), .. Wire.U32(0)]);
            client.IsClosed();
            Assert.Contains("magic", Assert.Single(server.Lines));
        }
    }

    [Fact]
    public async Task Meta_contexts_need_structured_replies()
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export());
        await using (server)
        {
            byte[] data = Wire.MetaContext("", "base:allocation");
            client.Fails(NbdOption.SetMetaContext, data, NbdOptionReply.ErrorInvalid);
            client.Fails(NbdOption.ListMetaContext, data, NbdOptionReply.ErrorInvalid);
        }
    }

    [Theory]
    [InlineData("", true, true)]
    [InlineData("base:", true, false)]
    [InlineData("base:allocation", true, true)]
    [InlineData("base:other", false, false)]
    [InlineData("x-unknown:thing", false, false)]
    public async Task Meta_context_queries_find_base_allocation(string query, bool isListed, bool isSet)
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export());
        await using (server)
        {
            client.Acknowledged(NbdOption.StructuredReply, []);
            // Without a query, everything is listed and nothing selected.
            byte[] data = query.Length == 0 ? Wire.MetaContext("") : Wire.MetaContext("", query, query);
            Assert.Equal(isListed ? 2 : 1, client.Option(NbdOption.ListMetaContext, data).Count);
            List<OptionReply> set = client.Option(NbdOption.SetMetaContext, data);
            Assert.Equal(isSet && query.Length > 0 ? 2 : 1, set.Count);
            if (set.Count == 2)
                Assert.Equal("base:allocation"u8, set[0].Data.AsSpan(4));
            Assert.Equal(NbdOptionReply.Acknowledge, set[^1].Type);
        }
    }

    [Fact]
    public async Task Meta_contexts_hold_only_for_the_export_they_were_set_for()
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export("one"), Export("two"));
        await using (server)
        {
            client.Acknowledged(NbdOption.StructuredReply, []);
            client.Fails(NbdOption.SetMetaContext, Wire.MetaContext("three", "base:allocation"), NbdOptionReply.ErrorUnknown);
            client.Acknowledged(NbdOption.SetMetaContext, Wire.MetaContext("one", "base:allocation"));
            client.Go("two");
            Assert.Equal(NbdError.InvalidArgument, client.Request(NbdCommand.BlockStatus, 0, 4096).Error);
        }
    }

    [Fact]
    public async Task A_failed_set_meta_context_clears_the_selection()
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export());
        await using (server)
        {
            client.Acknowledged(NbdOption.StructuredReply, []);
            client.Acknowledged(NbdOption.SetMetaContext, Wire.MetaContext("", "base:allocation"));
            client.Fails(NbdOption.SetMetaContext, [0, 0], NbdOptionReply.ErrorInvalid);
            client.Go("");
            Assert.Equal(NbdError.InvalidArgument, client.Request(NbdCommand.BlockStatus, 0, 4096).Error);
        }
    }

    public static TheoryData<int, byte[]> MalformedData() => new()
    {
        { (int)NbdOption.Go, [] },
        { (int)NbdOption.Go, Wire.U32(7) },
        { (int)NbdOption.Go, [.. Wire.U32(0xfffffff0), 1, 2] },
        { (int)NbdOption.Go, [.. Wire.Text("x"), .. Wire.U16(2), .. Wire.U16(1)] },
        { (int)NbdOption.Go, [.. Wire.Info(""), 1] },
        { (int)NbdOption.Info, [.. Wire.U32(2), 0xff, 0xfe, .. Wire.U16(0)] },
        { (int)NbdOption.Info, [.. Wire.U32(1), 0, .. Wire.U16(0)] },
        { (int)NbdOption.Info, Wire.Info(new string('n', 4097)) },
        { (int)NbdOption.SetMetaContext, [.. Wire.Text(""), .. Wire.U32(3), .. Wire.Text("base:")] },
        { (int)NbdOption.SetMetaContext, [.. Wire.Text(""), .. Wire.U32(0xffffffff)] },
        { (int)NbdOption.ListMetaContext, [.. Wire.MetaContext("", "base:"), 0] },
    };

    [Theory]
    [MemberData(nameof(MalformedData))]
    public async Task Malformed_option_data_is_invalid_and_the_handshake_goes_on(int option, byte[] data)
    {
        (TestServer server, RawClient client) = await ConnectAsync(Export());
        await using (server)
        {
            client.Acknowledged(NbdOption.StructuredReply, []);
            client.Fails((NbdOption)option, data, NbdOptionReply.ErrorInvalid);
            Assert.Single(server.Lines);
            client.Go("");
        }
    }

    [Fact]
    public async Task Transmission_flags_follow_the_export_and_the_negotiation()
    {
        var readOnly = MemoryExport.FullInfo(ExportBytes) with { IsReadOnly = true, CanCache = false };
        var plain = new NbdExportInfo(ExportBytes);
        await using TestServer server = await TestServer.StartAsync(
            Export("full"), new MemoryExport("ro", readOnly), new MemoryExport("plain", plain));
        Assert.Equal(0xded, FlagsOf(server, "full"));
        Assert.Equal(0x18f, FlagsOf(server, "ro"));
        Assert.Equal(0x08d, FlagsOf(server, "plain"));
    }

    private static int FlagsOf(TestServer server, string export)
    {
        using RawClient client = server.Connect();
        client.Greet();
        client.Acknowledged(NbdOption.StructuredReply, []);
        client.Go(export);
        return client.TransmissionFlags;
    }
}
