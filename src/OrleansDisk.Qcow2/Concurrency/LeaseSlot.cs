using System.Runtime.InteropServices;

namespace OrleansDisk.Qcow2.Concurrency;

/// <summary>
/// Where one session says that it uses its lease, in a cache line of its own: sessions that only come and go must not
/// slow each other down.
/// </summary>
[StructLayout(LayoutKind.Explicit, Size = 3 * CacheLineBytes)]
internal sealed class LeaseSlot
{
    /// <summary>Two lines of 64 bytes: processors fetch them in pairs.</summary>
    private const int CacheLineBytes = 128;

    /// <summary>Set by the image in a session's stay: it wants to know when that ends.</summary>
    private const long TellFlag = 1;

    /// <summary>0 outside, else the epoch times two, and <see cref="TellFlag"/>.</summary>
    [FieldOffset(CacheLineBytes)]
    private long _stay;

    [FieldOffset(CacheLineBytes + sizeof(long))]
    private int _isClosed;

    /// <summary>The session has ended.</summary>
    public bool IsClosed => Volatile.Read(ref _isClosed) != 0;

    public void Close() => Volatile.Write(ref _isClosed, 1);

    /// <summary>Begins a stay. It is a full fence: what is looked up afterwards is looked up in this epoch.</summary>
    public void Enter(long epoch) => Interlocked.Exchange(ref _stay, epoch << 1);

    /// <summary>Ends the stay; true when the image asked to be told.</summary>
    public bool Leave() => (Interlocked.Exchange(ref _stay, 0) & TellFlag) != 0;

    /// <summary>Whether the session is inside since this epoch or an earlier one.</summary>
    public bool IsInside(long epoch) => IsIn(Volatile.Read(ref _stay), epoch);

    /// <summary>Asks to be told when the stay ends; false if the session is not inside since that epoch or an earlier one.</summary>
    public bool AskToTell(long epoch)
    {
        long stay = Volatile.Read(ref _stay);
        while (IsIn(stay, epoch))
        {
            long seen = Interlocked.CompareExchange(ref _stay, stay | TellFlag, stay);
            if (seen == stay)
                return true;
            stay = seen;
        }
        return false;
    }

    private static bool IsIn(long stay, long epoch) => stay != 0 && stay >> 1 <= epoch;
}
