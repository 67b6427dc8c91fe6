using OrleansDisk.Nbd.Client;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>
/// The connection of an NBD disk, which is made anew when it breaks and the user allows time for that (reconnect-delay).
/// Calls may overlap.
/// </summary>
/// <param name="options">The server, and what is asked of it.</param>
/// <param name="first">The connection to begin with; owned.</param>
/// <param name="reconnectTime">How long a request waits for a new connection; zero: a broken connection is the end.</param>
internal sealed class NbdConnection(NbdClientOptions options, NbdClient first, TimeSpan reconnectTime) : IAsyncDisposable
{
    private static readonly TimeSpan _firstPause = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan _longestPause = TimeSpan.FromSeconds(1);

    private readonly SemaphoreSlim _reconnecting = new(1);

    /// <summary>The connection of now. What it offers, those that follow it offer too.</summary>
    public NbdClient Client { get; private set; } = first;

    /// <summary>Connects, again and again until it works or the time is over.</summary>
    /// <exception cref="IOException">The last attempt failed.</exception>
    public static async Task<NbdClient> ConnectAsync(NbdClientOptions options, TimeSpan time)
    {
        if (time <= TimeSpan.Zero)
            return await NbdClient.ConnectAsync(options);
        using var limit = new CancellationTokenSource(time);
        IOException? failure = null;
        for (TimeSpan pause = _firstPause; ; pause = pause * 2 < _longestPause ? pause * 2 : _longestPause)
        {
            try
            {
                return await NbdClient.ConnectAsync(options, limit.Token);
            }
            catch (OperationCanceledException e)
            {
                throw failure ?? new IOException($"the server did not answer within {time.TotalSeconds} s", e);
            }
            catch (IOException e)
            {
                failure = e;
            }
            await Task.WhenAny(Task.Delay(pause, limit.Token));
        }
    }

    /// <summary>Runs a request, on a new connection when the one that it was sent on breaks.</summary>
    /// <exception cref="NbdConnectionException">The connection has broken, and there was no new one in time.</exception>
    public async Task RunAsync(Func<NbdClient, Task> request)
    {
        while (true)
        {
            NbdClient client = Client;
            try
            {
                await request(client);
                return;
            }
            catch (NbdConnectionException e) when (reconnectTime > TimeSpan.Zero)
            {
                await ReplaceAsync(client, e);
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        await Client.DisposeAsync();
        _reconnecting.Dispose();
    }

    private async Task ReplaceAsync(NbdClient broken, NbdConnectionException failure)
    {
        await _reconnecting.WaitAsync();
        try
        {
            if (Client != broken)
                return;
            NbdClient next = await ConnectAsync(options, reconnectTime);
            if (!IsSame(broken, next))
            {
                await next.DisposeAsync();
                throw new NbdConnectionException("the server has another export now than before the connection broke", failure);
            }
            Client = next;
            await broken.DisposeAsync();
        }
        catch (IOException e) when (e is not NbdConnectionException)
        {
            throw new NbdConnectionException($"{failure.Message}; {e.Message}", e);
        }
        finally
        {
            _reconnecting.Release();
        }
    }

    private static bool IsSame(NbdClient one, NbdClient other) =>
        (one.Bytes, one.IsReadOnly, one.CanFlush, one.CanFua, one.CanTrim, one.CanWriteZeroes, one.HasBlockStatus, one.MinBlockBytes)
        == (other.Bytes, other.IsReadOnly, other.CanFlush, other.CanFua, other.CanTrim, other.CanWriteZeroes, other.HasBlockStatus,
            other.MinBlockBytes);
}
