using System.Diagnostics;

namespace OrleansDisk.Nbd.Server;

/// <summary>
/// Looks for the next request of one connection for a moment before its thread sleeps. A client that waits for each
/// reply sends the next request some microseconds later, and waking a sleeping thread then costs more than serving the
/// request. On a busy machine it is the other way round: the core is better given to the client. Nothing tells a
/// thread which of the two it is on, except how it fares: a receive that finds a request earns a credit, one that does
/// not, or that had its core taken away meanwhile, costs many; without credit the connection rests for hundreds of
/// receives, and twice as long each time, before it tries again. A client that sends requests ahead needs no reply
/// soon, and no more connections look at once than there are cores to spare (<see cref="SpinPlaces"/>).
/// </summary>
internal sealed class ReceiveSpin(SpinPlaces places)
{
    /// <summary>The longest that one receive looks, in microseconds.</summary>
    public const int LongestSpin = 48;

    /// <summary>A step of some hundred nanoseconds that takes this long, in microseconds, had its core taken away.</summary>
    private const int LostCore = 100;

    private const int MaxCredit = 64;
    private const int ProbeCredit = 32;
    private const int MissCost = 16;
    private const int ShortestRest = 256;
    private const int LongestRest = 16384;
    private const int HitsThatProveQuiet = 1024;

    private int _credit = ProbeCredit;
    private int _resting;
    private int _rest = ShortestRest;
    private int _hits;

    /// <summary>Looks for bytes without sleeping: their number, 0 when the client is gone, -1 when there are none yet.</summary>
    public int TryReceive(StreamSocket socket, Span<byte> target)
    {
        if (_resting > 0)
        {
            _resting--;
            return -1;
        }
        if (!places.TryTake())
            return -1;
        int received = Look(socket, target, out bool lostCore);
        places.Return();
        if (received >= 0 && !lostCore)
            Earn();
        else
            Pay();
        return received;
    }

    /// <summary>Notes that the client did not wait for a reply before it sent another request.</summary>
    public void NotePipelining() => _resting = Math.Max(_resting, ShortestRest);

    private void Earn()
    {
        _credit = Math.Min(_credit + 1, MaxCredit);
        if (++_hits < HitsThatProveQuiet)
            return;
        _hits = 0;
        _rest = Math.Max(_rest / 2, ShortestRest);
    }

    private void Pay()
    {
        _hits = 0;
        _credit -= MissCost;
        if (_credit > 0)
            return;
        _credit = ProbeCredit;
        _resting = _rest;
        _rest = Math.Min(_rest * 2, LongestRest);
    }

    private static int Look(StreamSocket socket, Span<byte> target, out bool lostCore)
    {
        long last = Stopwatch.GetTimestamp();
        long end = last + LongestSpin * Stopwatch.Frequency / 1_000_000;
        lostCore = false;
        while (true)
        {
            int received = socket.TryReceive(target);
            long now = Stopwatch.GetTimestamp();
            lostCore |= now - last > LostCore * Stopwatch.Frequency / 1_000_000;
            if (received >= 0 || now >= end)
                return received;
            last = now;
            Thread.SpinWait(8);
        }
    }
}

/// <summary>How many connections may look for requests at once without sleeping.</summary>
internal sealed class SpinPlaces(int count)
{
    private int _taken;

    /// <summary>One core is left to the clients: on a machine with a single one no connection looks.</summary>
    public static SpinPlaces OfProcess { get; } = new(Environment.ProcessorCount - 1);

    public bool TryTake()
    {
        if (Interlocked.Increment(ref _taken) <= count)
            return true;
        Return();
        return false;
    }

    public void Return() => Interlocked.Decrement(ref _taken);
}
