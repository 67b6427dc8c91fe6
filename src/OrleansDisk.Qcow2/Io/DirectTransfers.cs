using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace OrleansDisk.Qcow2.Io;

/// <summary>
/// Reads and writes of a file that was opened with O_DIRECT, which passes the page cache by: the kernel then moves whole
/// blocks between the disk and aligned memory, and nothing else. Requests of any alignment are done by buffers of that kind;
/// a write of a part of a block reads the rest of the block, which nobody else may write meanwhile. All calls block.
/// </summary>
internal sealed class DirectTransfers
{
    private const int BufferBytes = 1 << 20;
    private const int MaxKeptBuffers = 32;

    /// <summary>Fits every disk: no block is larger, and memory that is aligned to it is to any other one, too.</summary>
    private const int MaxBlockBytes = 4096;

    private const int MinBlockBytes = 512;
    private const uint AlignmentWanted = 0x2000;
    private const int EmptyPath = 0x1000;
    private const int StatusBytes = 256;
    private const int OffsetAlignmentOffset = 156;

    private static readonly ConcurrentStack<byte[]> _buffers = new();

    private readonly int _descriptor;
    private readonly Func<string, int, BlockFileException> _failure;
    private readonly RangeLocks _locks = new();

    /// <param name="descriptor">The file, open with O_DIRECT.</param>
    /// <param name="blockBytes">See <see cref="BlockBytes"/>; null to find out.</param>
    /// <param name="failure">The exception for what was being done and the system's error number.</param>
    public DirectTransfers(int descriptor, int? blockBytes, Func<string, int, BlockFileException> failure)
    {
        (_descriptor, _failure) = (descriptor, failure);
        BlockBytes = blockBytes ?? FindBlockBytes(descriptor);
    }

    /// <summary>Offsets and lengths of transfers are multiples of this: a power of two from 512 to 4096.</summary>
    public int BlockBytes { get; }

    /// <summary>Fills <paramref name="target"/>; what lies past the end of the file reads as zeros.</summary>
    public void Read(long offset, Span<byte> target)
    {
        using var buffer = new AlignedBuffer();
        while (target.Length > 0)
        {
            long start = RoundDown(offset);
            int skip = (int)(offset - start);
            int part = Math.Min(target.Length, BufferBytes - skip);
            Span<byte> blocks = buffer.Span[..(int)(RoundUp(offset + part) - start)];
            ReadBlocks(start, blocks);
            blocks.Slice(skip, part).CopyTo(target);
            offset += part;
            target = target[part..];
        }
    }

    /// <summary>Writes all bytes; the file then ends where it did, or with them.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="data">The bytes.</param>
    public void Write(long offset, ReadOnlySpan<byte> data)
    {
        using var buffer = new AlignedBuffer();
        while (data.Length > 0)
        {
            int skip = (int)(offset - RoundDown(offset));
            // Of the ends that are parts of blocks, each is a write of its own: what lies between waits for nobody.
            int part = skip != 0 ? Math.Min(data.Length, BlockBytes - skip)
                : data.Length >= BlockBytes ? Math.Min((int)RoundDown(data.Length), BufferBytes) : data.Length;
            if (skip == 0 && part >= BlockBytes)
                WriteWhole(offset, data[..part], buffer.Span);
            else
                WritePart(offset, data[..part], buffer.Span);
            offset += part;
            data = data[part..];
        }
    }

    /// <summary>Runs what changes bytes of a range, or the length of the file, by other means than a write.</summary>
    public void RunAlone(long offset, long bytes, Action change)
    {
        using RangeLocks.Held held = _locks.Take(RoundDown(offset), bytes > long.MaxValue - offset - MaxBlockBytes
            ? long.MaxValue : RoundUp(offset + bytes), isAlone: true);
        change();
    }

    private void WriteWhole(long offset, ReadOnlySpan<byte> data, Span<byte> buffer)
    {
        data.CopyTo(buffer);
        using RangeLocks.Held held = _locks.Take(offset, offset + data.Length, isAlone: false);
        WriteBlocks(offset, buffer[..data.Length]);
    }

    private void WritePart(long offset, ReadOnlySpan<byte> data, Span<byte> buffer)
    {
        long start = RoundDown(offset);
        Span<byte> block = buffer[..BlockBytes];
        // Where the block is the file's last one, the file is cut behind the data, and nobody may write what is cut off.
        RangeLocks.Held held = _locks.Take(start, start + BlockBytes, isAlone: true);
        try
        {
            if (start + BlockBytes > FileBytes())
            {
                held.Dispose();
                held = _locks.Take(start, long.MaxValue, isAlone: true);
            }
            long end = Math.Max(FileBytes(), offset + data.Length);
            ReadBlocks(start, block);
            data.CopyTo(block[(int)(offset - start)..]);
            WriteBlocks(start, block);
            if (end < start + BlockBytes && LibC.Truncate(_descriptor, end) != 0)
                throw _failure("resizing", Marshal.GetLastPInvokeError());
        }
        finally
        {
            held.Dispose();
        }
    }

    /// <summary>The length as the system has it: what other writes that are over have told nobody yet counts, too.</summary>
    private long FileBytes()
    {
        long bytes = LibC.Seek(_descriptor, 0, LibC.SeekEnd);
        return bytes >= 0 ? bytes : throw _failure("seeking in", Marshal.GetLastPInvokeError());
    }

    private unsafe void ReadBlocks(long offset, Span<byte> blocks)
    {
        fixed (byte* start = blocks)
        {
            for (int done = 0; done < blocks.Length;)
            {
                nint read = LibC.Read(_descriptor, start + done, (nuint)(blocks.Length - done), offset + done);
                if (read > 0)
                    done += (int)read;
                if (read == 0 || (read > 0 && done % BlockBytes != 0))
                {
                    blocks[done..].Clear(); // the file ends here
                    return;
                }
                if (read < 0 && Marshal.GetLastPInvokeError() is var errorNumber and not LibC.Interrupted)
                    throw _failure("reading", errorNumber);
            }
        }
    }

    private unsafe void WriteBlocks(long offset, ReadOnlySpan<byte> blocks)
    {
        fixed (byte* start = blocks)
        {
            for (int done = 0; done < blocks.Length;)
            {
                nint written = LibC.Write(_descriptor, start + done, (nuint)(blocks.Length - done), offset + done);
                if (written > 0)
                    done += (int)(written - (written % BlockBytes)); // a block that is not complete is written again
                else if (Marshal.GetLastPInvokeError() is var errorNumber and not LibC.Interrupted)
                    throw _failure("writing", errorNumber);
            }
        }
    }

    /// <summary>What the file system says; else the smallest block that it reads; else the largest one.</summary>
    private static unsafe int FindBlockBytes(int descriptor)
    {
        byte* status = stackalloc byte[StatusBytes];
        if (LibC.ExtendedStatus(descriptor, "", EmptyPath, AlignmentWanted, status) == 0
            && ((uint)Marshal.ReadInt32((nint)status) & AlignmentWanted) != 0)
        {
            int told = Marshal.ReadInt32((nint)status, OffsetAlignmentOffset);
            return told is > 0 and <= MaxBlockBytes ? Math.Max(told, MinBlockBytes) : MaxBlockBytes;
        }
        using var buffer = new AlignedBuffer();
        fixed (byte* start = buffer.Span)
        {
            for (int bytes = MinBlockBytes; bytes < MaxBlockBytes; bytes *= 2)
            {
                // An empty file answers without a look at the disk.
                if (LibC.Read(descriptor, start, (nuint)bytes, 0) > 0)
                    return bytes;
            }
        }
        return MaxBlockBytes;
    }

    private long RoundDown(long offset) => offset & ~(BlockBytes - 1L);

    private long RoundUp(long offset) => RoundDown(offset + BlockBytes - 1);

    /// <summary>Memory that stays where it is and begins at a multiple of the largest block.</summary>
    private readonly ref struct AlignedBuffer : IDisposable
    {
        private readonly byte[] _array;

        public AlignedBuffer()
        {
            if (!_buffers.TryPop(out byte[]? array))
                array = GC.AllocateUninitializedArray<byte>(BufferBytes + MaxBlockBytes, pinned: true);
            _array = array;
        }

        public Span<byte> Span => _array.AsSpan(Skip(), BufferBytes);

        public void Dispose()
        {
            if (_buffers.Count < MaxKeptBuffers)
                _buffers.Push(_array);
        }

        private unsafe int Skip()
        {
            nuint address = (nuint)Unsafe.AsPointer(ref MemoryMarshal.GetArrayDataReference(_array));
            return (int)((MaxBlockBytes - (address % MaxBlockBytes)) % MaxBlockBytes);
        }
    }
}
