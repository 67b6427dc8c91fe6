using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace OrleansDisk.Qcow2.Io;

/// <summary>
/// A file of the local file system. What the page cache can answer at once is done on the caller's thread; what may
/// block (a page that is not cached, a large transfer, a flush) goes to threads that wait for disks.
/// </summary>
public sealed class LocalBlockFile : IBlockFile
{
    /// <summary>Transfers above this many bytes leave the caller's thread, so that they overlap with its other work.</summary>
    private const int InlineBytes = 128 << 10;

    /// <summary>Calls that wait for the disk at once: as many as QEMU has threads for.</summary>
    private const int LaneWidth = 64;

    private readonly SafeFileHandle _handle;
    private readonly BlockingReads _blockingReads;
    private readonly DirectTransfers? _direct;
    private readonly IoLane _calls;

    /// <summary>
    /// The kernel lets one thread at a time write into a file's cached pages; more of them would only spin on its lock, while
    /// there are buffers to be filled.
    /// </summary>
    private readonly IoLane _cachedWrites;
    private long _lengthBytes;
    private volatile bool _canReadNoWait = true;
    private volatile bool _flushFailed;

    private LocalBlockFile(SafeFileHandle handle, string path, bool isReadOnly, Direct direct)
    {
        _handle = handle;
        _direct = direct.IsOn ? new DirectTransfers(Descriptor, direct.BlockBytes, Failure) : null;
        _calls = new IoLane(handle, LaneWidth);
        _cachedWrites = new IoLane(handle, width: 1);
        _blockingReads = new BlockingReads(_calls, ReadBlocking);
        Name = path;
        IsReadOnly = isReadOnly;
        IsDevice = FileSpace.IsDevice(path);
        _lengthBytes = IsDevice ? LibC.Seek(Descriptor, 0, LibC.SeekEnd) : RandomAccess.GetLength(handle);
    }

    public string Name { get; }

    public bool IsReadOnly { get; }

    public bool IsDevice { get; }

    public bool IsDirect => _direct is not null;

    public long LengthBytes => Volatile.Read(ref _lengthBytes);

    private int Descriptor => (int)_handle.DangerousGetHandle();

    /// <summary>Opens an existing file and takes the image locks before anything is read.</summary>
    /// <exception cref="ImageLockedException">Someone holds what excludes <paramref name="access"/>.</exception>
    /// <exception cref="IOException">The file can't be opened.</exception>
    public static LocalBlockFile Open(string path, ImageAccess access) => Open(path, access, isDirect: false);

    /// <summary>The same, with the choice to pass the host's page cache by.</summary>
    /// <param name="path">The file.</param>
    /// <param name="access">What it is opened for.</param>
    /// <param name="isDirect">Whether data goes between the disk and this process alone (O_DIRECT).</param>
    /// <exception cref="ImageLockedException">Someone holds what excludes <paramref name="access"/>.</exception>
    /// <exception cref="IOException">The file can't be opened, or its file system has no such way.</exception>
    public static LocalBlockFile Open(string path, ImageAccess access, bool isDirect) =>
        Open(path, FileMode.Open, access, new Direct(isDirect, BlockBytes: null));

    /// <summary>The same for tests, with blocks that may be larger than the disk's own.</summary>
    internal static LocalBlockFile OpenDirect(string path, ImageAccess access, int blockBytes) =>
        Open(path, FileMode.Open, access, new Direct(IsOn: true, blockBytes));

    /// <summary>Makes the file, or empties it when it is there and nobody holds its locks; a block device keeps what it holds.</summary>
    /// <exception cref="ImageLockedException">It is there and in use.</exception>
    public static LocalBlockFile Create(string path)
    {
        LocalBlockFile file = OpenOrCreate(path, out _);
        if (file.LengthBytes != 0 && !file.IsDevice)
            file.Truncate(0);
        return file;
    }

    /// <summary>Opens a file for writing, and makes it when it is not there; what it holds stays.</summary>
    /// <param name="path">The file.</param>
    /// <param name="isNew">Whether it was not there.</param>
    /// <exception cref="ImageLockedException">It is there and in use.</exception>
    public static LocalBlockFile OpenOrCreate(string path, out bool isNew)
    {
        isNew = !File.Exists(path);
        return Open(path, FileMode.OpenOrCreate, ImageAccess.Write, default);
    }

    /// <summary>Takes a file away that <see cref="OpenOrCreate"/> has made.</summary>
    public static void Delete(string path) => File.Delete(path);

    private static LocalBlockFile Open(string path, FileMode mode, ImageAccess access, Direct direct)
    {
        FileAccess fileAccess = access == ImageAccess.Write ? FileAccess.ReadWrite : FileAccess.Read;
        string verb = mode == FileMode.Open ? "open" : "create";
        if (Directory.Exists(path))
            throw new Qcow2Exception($"Could not {verb} '{path}': Is a directory");
        // Opening a pipe waits for its other end, for ever: an image must not do that to us by its backing file's name.
        if (FileSpace.IsStream(path))
            throw new Qcow2Exception($"Could not {verb} '{path}': it is neither a file nor a block device");
        SafeFileHandle handle;
        try
        {
            handle = File.OpenHandle(path, mode, fileAccess, FileShare.ReadWrite | FileShare.Delete);
        }
        catch (UnauthorizedAccessException e)
        {
            throw new Qcow2Exception($"Could not {verb} '{path}': Permission denied", e);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException or ArgumentException)
        {
            throw new Qcow2Exception($"Could not {verb} '{path}': No such file or directory", e);
        }
        try
        {
            if (direct.IsOn)
                PassCacheBy(handle, path);
            ImageLock.Acquire(handle, path, access);
            return new LocalBlockFile(handle, path, fileAccess == FileAccess.Read, direct);
        }
        catch
        {
            handle.Dispose();
            throw;
        }
    }

    private static void PassCacheBy(SafeFileHandle handle, string path)
    {
        int descriptor = (int)handle.DangerousGetHandle();
        int flags = LibC.Control(descriptor, LibC.GetFlags, 0);
        if (flags < 0 || LibC.Control(descriptor, LibC.SetFlags, flags | LibC.DirectFlag) != 0)
            throw new Qcow2Exception($"Could not open '{path}': filesystem does not support O_DIRECT");
    }

    public ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        if (buffer.Length <= InlineBytes && _direct is null)
        {
            int read = ReadCached(offset, buffer.Span);
            if (read == buffer.Length)
                return ValueTask.CompletedTask;
            (offset, buffer) = (offset + read, buffer[read..]);
        }
        return _blockingReads.StartAsync(offset, buffer);
    }

    public bool TryRead(long offset, Span<byte> buffer) => _direct is null && ReadCached(offset, buffer) == buffer.Length;

    public void Write(long offset, ReadOnlySpan<byte> data) => WriteBlocking(offset, data);

    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data)
    {
        if (_direct is not null)
            return WriteDirect(offset, data);
        if (data.Length > InlineBytes)
            return WriteCached(offset, data);
        WriteBlocking(offset, data.Span);
        return ValueTask.CompletedTask;
    }

    public ValueTask WriteAsync(long offset, IReadOnlyList<ReadOnlyMemory<byte>> pieces)
    {
        long bytes = 0;
        foreach (ReadOnlyMemory<byte> piece in pieces)
            bytes += piece.Length;
        if (_direct is not null)
            return WriteDirect(offset, Join(pieces, (int)bytes));
        if (bytes > InlineBytes)
            return WriteCached(offset, pieces);
        WriteBlocking(offset, pieces);
        return ValueTask.CompletedTask;
    }

    public ValueTask FlushAsync() => _calls.RunAsync(() =>
    {
        if (LibC.DataSync(Descriptor) == 0)
            return;
        int errorNumber = Marshal.GetLastPInvokeError();
        _flushFailed = true;
        throw Failure("flushing", errorNumber);
    });

    public async ValueTask<bool> PunchHoleAsync(long offset, long bytes)
    {
        bool supported = true;
        await _calls.RunAsync(() => RunAlone(offset, bytes, () => supported = PunchHoleBlocking(offset, bytes)));
        return supported;
    }

    private bool PunchHoleBlocking(long offset, long bytes)
    {
        if (LibC.Allocate(Descriptor, LibC.PunchHole | LibC.KeepSize, offset, bytes) == 0)
            return true;
        int errorNumber = Marshal.GetLastPInvokeError();
        // A device takes whole blocks of its own only.
        bool isUnsupported = errorNumber is LibC.NotSupported or LibC.NotImplemented || (IsDevice && errorNumber == LibC.InvalidArgument);
        return isUnsupported ? false : throw Failure("discarding in", errorNumber);
    }

    public async ValueTask AllocateAsync(long offset, long bytes)
    {
        bool supported = true;
        await _calls.RunAsync(() => RunAlone(offset, bytes, () => supported = AllocateBlocking(offset, bytes)));
        if (!supported)
            await FilePreallocation.WriteZerosAsync(this, offset, bytes); // nothing else takes the space for certain
    }

    private bool AllocateBlocking(long offset, long bytes)
    {
        while (LibC.Allocate(Descriptor, 0, offset, bytes) != 0)
        {
            int errorNumber = Marshal.GetLastPInvokeError();
            if (errorNumber is LibC.NotSupported or LibC.NotImplemented)
                return false;
            if (errorNumber != LibC.Interrupted)
                throw Failure("preallocating in", errorNumber);
        }
        NoteWritten(offset + bytes);
        return true;
    }

    public async ValueTask<bool> TryCopyAsync(IBlockFile source, long sourceOffset, long offset, long bytes)
    {
        if (source is not LocalBlockFile file || file.IsDevice || IsDevice)
            return false;
        bool isCopied = false;
        await _calls.RunAsync(() => RunAlone(offset, bytes, () => isCopied = CopyBlocking(file, sourceOffset, offset, bytes)));
        return isCopied;
    }

    private bool CopyBlocking(LocalBlockFile source, long sourceOffset, long offset, long bytes)
    {
        for (long end = offset + bytes; offset < end;)
        {
            nint copied = LibC.CopyRange(source.Descriptor, ref sourceOffset, Descriptor, ref offset, (nuint)(end - offset), 0);
            if (copied == 0)
                return false; // the source ends here
            if (copied > 0)
                continue;
            int errorNumber = Marshal.GetLastPInvokeError();
            if (errorNumber is LibC.NotSupported or LibC.NotImplemented or LibC.CrossDevice or LibC.InvalidArgument)
                return false;
            if (errorNumber != LibC.Interrupted)
                throw Failure("copying to", errorNumber);
        }
        NoteWritten(offset);
        return true;
    }

    public ValueTask SetLengthAsync(long bytes) => _calls.RunAsync(() =>
        RunAlone(Math.Min(bytes, LengthBytes), long.MaxValue, () => Truncate(bytes)));

    public FileExtent GetExtent(long offset, long limit)
    {
        if (offset >= LengthBytes)
            return new FileExtent(limit - offset, IsData: false);
        long data = LibC.Seek(Descriptor, offset, LibC.SeekData);
        if (data < 0)
        {
            // ENXIO: a hole to the end. Anything else: the file system can't tell, so all is data.
            bool isHole = Marshal.GetLastPInvokeError() == LibC.NoSuchDevice;
            return new FileExtent(limit - offset, IsData: !isHole);
        }
        if (data > offset)
            return new FileExtent(Math.Min(data, limit) - offset, IsData: false);
        long hole = LibC.Seek(Descriptor, offset, LibC.SeekHole);
        return new FileExtent((hole <= offset ? limit : Math.Min(hole, limit)) - offset, IsData: true);
    }

    public ValueTask DisposeAsync()
    {
        if (!_handle.IsClosed)
        {
            // Pages that a flush could not write count as clean from then on, so whoever opens the file next would read
            // bytes that no disk holds. What is dropped is read again, from the disk.
            if (_flushFailed)
                _ = LibC.Advise(Descriptor, 0, 0, LibC.NotNeeded);
            ImageLock.Release(_handle);
        }
        _handle.Dispose();
        return ValueTask.CompletedTask;
    }

    /// <summary>Keeps what is written by blocks, and what changes the file otherwise, apart.</summary>
    private void RunAlone(long offset, long bytes, Action change)
    {
        if (_direct is null)
            change();
        else
            _direct.RunAlone(offset, bytes, change);
    }

    private void Truncate(long bytes)
    {
        if (IsDevice && bytes > LengthBytes)
            throw Failure("resizing", LibC.NoSpace);
        if (LibC.Truncate(Descriptor, bytes) != 0)
            throw Failure("resizing", Marshal.GetLastPInvokeError());
        Volatile.Write(ref _lengthBytes, bytes);
    }

    /// <summary>Reads what the page cache holds; returns the bytes that are done (the end of the file counts as done).</summary>
    private unsafe int ReadCached(long offset, Span<byte> buffer)
    {
        fixed (byte* start = buffer)
        {
            int done = 0;
            while (done < buffer.Length)
            {
                nint read;
                if (_canReadNoWait)
                {
                    var vector = new LibC.IoVector { Start = start + done, Bytes = (nuint)(buffer.Length - done) };
                    read = LibC.ReadVector(Descriptor, &vector, 1, offset + done, LibC.ReadNoWait);
                }
                else
                {
                    read = LibC.Read(Descriptor, start + done, (nuint)(buffer.Length - done), offset + done);
                }
                if (read == 0)
                {
                    buffer[done..].Clear();
                    return buffer.Length;
                }
                if (read > 0)
                {
                    done += (int)read;
                    continue;
                }
                int errorNumber = Marshal.GetLastPInvokeError();
                if (errorNumber is LibC.NotSupported or LibC.NotImplemented && _canReadNoWait)
                    _canReadNoWait = false; // tmpfs: always in memory, so a plain read never blocks
                else if (errorNumber == LibC.Again)
                    return done;
                else if (errorNumber != LibC.Interrupted)
                    throw Failure("reading", errorNumber);
            }
            return done;
        }
    }

    private unsafe void ReadBlocking(long offset, Span<byte> buffer)
    {
        if (_direct is not null)
        {
            _direct.Read(offset, buffer);
            return;
        }
        fixed (byte* start = buffer)
        {
            for (int done = 0; done < buffer.Length;)
            {
                nint read = LibC.Read(Descriptor, start + done, (nuint)(buffer.Length - done), offset + done);
                if (read == 0)
                {
                    buffer[done..].Clear();
                    return;
                }
                if (read > 0)
                    done += (int)read;
                else if (Marshal.GetLastPInvokeError() is var errorNumber and not LibC.Interrupted)
                    throw Failure("reading", errorNumber);
            }
        }
    }

    private unsafe void WriteBlocking(long offset, ReadOnlySpan<byte> data)
    {
        if (_direct is not null)
        {
            _direct.Write(offset, data);
            NoteWritten(offset + data.Length);
            return;
        }
        fixed (byte* start = data)
        {
            for (int done = 0; done < data.Length;)
            {
                nint written = LibC.Write(Descriptor, start + done, (nuint)(data.Length - done), offset + done);
                if (written > 0)
                    done += (int)written;
                else if (Marshal.GetLastPInvokeError() is var errorNumber and not LibC.Interrupted)
                    throw Failure("writing", errorNumber);
            }
        }
        NoteWritten(offset + data.Length);
    }

    private unsafe void WriteBlocking(long offset, IReadOnlyList<ReadOnlyMemory<byte>> pieces)
    {
        // A write can end early inside any piece, and a call takes a limited number of them: finishing piece by piece
        // covers both.
        int first = 0;
        int skip = 0;
        LibC.IoVector* vectors = stackalloc LibC.IoVector[Math.Min(pieces.Count, LibC.MaxVectorCount)];
        while (first < pieces.Count)
        {
            int count = Math.Min(pieces.Count - first, LibC.MaxVectorCount);
            using var pins = new PinnedPieces(pieces, first, count, skip, vectors);
            nint written = LibC.WriteVector(Descriptor, vectors, count, offset);
            if (written < 0)
            {
                int errorNumber = Marshal.GetLastPInvokeError();
                if (errorNumber == LibC.Interrupted)
                    continue;
                throw Failure("writing", errorNumber);
            }
            offset += written;
            long left = written + skip;
            while (first < pieces.Count && left >= pieces[first].Length)
                left -= pieces[first++].Length;
            skip = (int)left;
        }
        NoteWritten(offset);
    }

    private void NoteWritten(long end)
    {
        long length;
        while (end > (length = Volatile.Read(ref _lengthBytes)))
            Interlocked.CompareExchange(ref _lengthBytes, end, length);
    }

    private BlockFileException Failure(string operation, int errorNumber) =>
        new(operation, Name, errorNumber, Marshal.GetPInvokeErrorMessage(errorNumber));

    // Methods of their own: a lambda that captures a parameter costs the calls that don't come to it, too.
    private ValueTask WriteCached(long offset, ReadOnlyMemory<byte> data) =>
        _cachedWrites.RunAsync(() => WriteBlocking(offset, data.Span));

    private ValueTask WriteCached(long offset, IReadOnlyList<ReadOnlyMemory<byte>> pieces) =>
        _cachedWrites.RunAsync(() => WriteBlocking(offset, pieces));

    /// <summary>Nothing is in the way of another one: they wait for the disk, side by side.</summary>
    private ValueTask WriteDirect(long offset, ReadOnlyMemory<byte> data) => _calls.RunAsync(() => WriteBlocking(offset, data.Span));

    /// <summary>One write, so that pieces that share a block don't become two.</summary>
    private static byte[] Join(IReadOnlyList<ReadOnlyMemory<byte>> pieces, int bytes)
    {
        byte[] joined = GC.AllocateUninitializedArray<byte>(bytes);
        int at = 0;
        foreach (ReadOnlyMemory<byte> piece in pieces)
        {
            piece.CopyTo(joined.AsMemory(at));
            at += piece.Length;
        }
        return joined;
    }

    /// <summary>Whether the page cache is passed by, and the size of blocks if it is not to be found out.</summary>
    private readonly record struct Direct(bool IsOn, int? BlockBytes);

    /// <summary>Keeps the pieces of a vectored write in place while the system reads them.</summary>
    private readonly unsafe ref struct PinnedPieces : IDisposable
    {
        private readonly System.Buffers.MemoryHandle[] _handles;

        public PinnedPieces(
            IReadOnlyList<ReadOnlyMemory<byte>> pieces, int first, int count, int skip, LibC.IoVector* vectors)
        {
            _handles = new System.Buffers.MemoryHandle[count];
            for (int i = 0; i < count; i++)
            {
                ReadOnlyMemory<byte> piece = i == 0 ? pieces[first][skip..] : pieces[first + i];
                _handles[i] = piece.Pin();
                vectors[i] = new LibC.IoVector { Start = _handles[i].Pointer, Bytes = (nuint)piece.Length };
            }
        }

        public void Dispose()
        {
            foreach (System.Buffers.MemoryHandle handle in _handles)
                handle.Dispose();
        }
    }
}
