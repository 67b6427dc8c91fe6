using System.Net.Sockets;
using OrleansDisk.Nbd.Server;

namespace OrleansDisk.Nbd.Tests;

/// <summary>When a connection looks for its next request without sleeping, and when it stops doing so.</summary>
public sealed class ReceiveSpinTests : IDisposable
{
    private const int Patience = 100;

    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("nbd-spin-");
    private readonly Socket _client = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly StreamSocket _server;
    private readonly byte[] _received = new byte[16];

    public ReceiveSpinTests()
    {
        var address = new UnixDomainSocketEndPoint(Path.Combine(_directory.FullName, "socket"));
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(address);
        listener.Listen();
        _client.Connect(address);
        _server = new StreamSocket(listener.Accept());
    }

    public void Dispose()
    {
        _client.Dispose();
        _server.Dispose();
        _directory.Delete(recursive: true);
    }

    [Fact]
    public void It_finds_what_is_there_and_tells_when_the_client_is_gone()
    {
        var spin = new ReceiveSpin(new SpinPlaces(1));
        _client.Send([1, 2, 3]);
        Assert.Equal(3, spin.TryReceive(_server, _received));
        _client.Dispose();
        Assert.Equal(0, spin.TryReceive(_server, _received));
    }

    [Fact]
    public void Receives_that_find_nothing_make_it_rest_and_each_rest_is_longer()
    {
        var spin = new ReceiveSpin(new SpinPlaces(1));
        int firstRest = RestAfterMisses(spin);
        int secondRest = RestAfterMisses(spin);
        Assert.InRange(firstRest, Patience, 1_000);
        Assert.InRange(secondRest, firstRest + Patience, 10_000);
    }

    [Fact]
    public void A_client_that_sends_ahead_makes_it_rest()
    {
        var spin = new ReceiveSpin(new SpinPlaces(1));
        _client.Send([1]);
        spin.NotePipelining();
        Assert.Equal(-1, spin.TryReceive(_server, _received));
    }

    [Fact]
    public void Without_a_place_it_does_not_look()
    {
        var places = new SpinPlaces(1);
        var spin = new ReceiveSpin(places);
        _client.Send([1]);
        Assert.True(places.TryTake());
        Assert.Equal(-1, spin.TryReceive(_server, _received));
        places.Return();
        Assert.Equal(1, spin.TryReceive(_server, _received));
        Assert.True(places.TryTake());
    }

    /// <summary>Lets it find nothing until it rests, then counts the receives for which it does.</summary>
    private int RestAfterMisses(ReceiveSpin spin)
    {
        // More misses than credit lasts for, and fewer than the shortest rest.
        for (int i = 0; i < 10; i++)
            Assert.Equal(-1, spin.TryReceive(_server, _received));
        _client.Send([1]);
        int rest = 0;
        while (spin.TryReceive(_server, _received) < 0)
            rest++;
        return rest;
    }
}
