using System.Numerics;

namespace OrleansDisk.Nbd.Server;

/// <summary>
/// Pinned buffers of power-of-two sizes, shared by the connections of a server. Pinned, because the kernel writes
/// into them while no managed frame holds them. Keeps at most <see cref="KeptBytes"/>; the rest goes to the collector.
/// </summary>
internal sealed class BufferPool
{
    public const int SmallestBytes = 4096;
    private const long KeptBytes = 64 << 20;

    private readonly Lock _gate = new();
    private readonly Stack<byte[]>[] _bySize = new Stack<byte[]>[32];
    private long _kept;

    public BufferPool()
    {
        for (int i = 0; i < _bySize.Length; i++)
            _bySize[i] = new Stack<byte[]>();
    }

    /// <summary>A pinned buffer of at least <paramref name="bytes"/>, with whatever its last user left in it.</summary>
    public byte[] Rent(int bytes)
    {
        int size = (int)BitOperations.RoundUpToPowerOf2((uint)Math.Max(bytes, SmallestBytes));
        lock (_gate)
        {
            if (_bySize[BitOperations.Log2((uint)size)].TryPop(out byte[]? kept))
            {
                _kept -= size;
                return kept;
            }
        }
        return GC.AllocateUninitializedArray<byte>(size, pinned: true);
    }

    public void Return(byte[] buffer)
    {
        lock (_gate)
        {
            if (_kept + buffer.Length > KeptBytes)
                return;
            _kept += buffer.Length;
            _bySize[BitOperations.Log2((uint)buffer.Length)].Push(buffer);
        }
    }
}
