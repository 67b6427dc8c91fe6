using System.Collections.Concurrent;
using System.Runtime.InteropServices;

namespace OrleansDisk.Qcow2.Compression;

/// <summary>Zstd by the system's library, which is loaded when an image first needs it.</summary>
internal static unsafe partial class Zstd
{
    private const string Library = "libzstd.so.1";

    private const int SessionOnly = 1;
    private const int MaxWindowBitsParameter = 100;

    /// <summary>Contexts for decompressing that are kept; each has some 100 KiB.</summary>
    private const int MaxKept = 8;

    /// <summary>Windows up to 8 MiB, which is what RFC 8878 asks of a decoder: a stream can't make us take more memory.</summary>
    private const int MaxWindowBits = 23;

    private static readonly Lazy<bool> _isAvailable = new(() => NativeLibrary.TryLoad(Library, out _));
    private static readonly ConcurrentBag<nint> _kept = [];

    /// <exception cref="Qcow2UnsupportedException">The library is not there.</exception>
    public static void Require()
    {
        if (!_isAvailable.Value)
            throw new Qcow2UnsupportedException($"compression type zstd without the library {Library}", "install it: apt-get install libzstd1");
    }

    /// <summary>Fills a cluster from one frame after the other; false when that can't be done.</summary>
    public static bool TryDecompress(ReadOnlySpan<byte> stored, Span<byte> cluster)
    {
        nint context = _kept.TryTake(out nint kept) ? kept : NewDecompression();
        try
        {
            _ = ResetDecompression(context, SessionOnly);
            fixed (byte* input = stored)
            fixed (byte* output = cluster)
            {
                var source = new Buffer { Start = input, Bytes = (nuint)stored.Length };
                var target = new Buffer { Start = output, Bytes = (nuint)cluster.Length };
                while (target.Position < target.Bytes)
                {
                    nuint before = source.Position + target.Position;
                    if (IsError(DecompressStream(context, &target, &source)) != 0 || source.Position + target.Position == before)
                        return false;
                }
                return true;
            }
        }
        finally
        {
            if (_kept.Count < MaxKept)
                _kept.Add(context);
            else
                _ = FreeDecompression(context);
        }
    }

    private static nint NewDecompression()
    {
        nint context = CreateDecompression();
        if (context == 0)
            throw new Qcow2Exception("no memory for a zstd stream");
        _ = SetDecompression(context, MaxWindowBitsParameter, MaxWindowBits);
        return context;
    }

    [StructLayout(LayoutKind.Sequential)]
    internal struct Buffer
    {
        public byte* Start;
        public nuint Bytes;
        public nuint Position;
    }

    [LibraryImport(Library, EntryPoint = "ZSTD_isError")]
    internal static partial uint IsError(nuint code);

    [LibraryImport(Library, EntryPoint = "ZSTD_createCCtx")]
    internal static partial nint CreateCompression();

    [LibraryImport(Library, EntryPoint = "ZSTD_freeCCtx")]
    internal static partial nuint FreeCompression(nint context);

    [LibraryImport(Library, EntryPoint = "ZSTD_compress2")]
    internal static partial nuint Compress(nint context, byte* target, nuint targetBytes, byte* source, nuint sourceBytes);

    [LibraryImport(Library, EntryPoint = "ZSTD_createDCtx")]
    private static partial nint CreateDecompression();

    [LibraryImport(Library, EntryPoint = "ZSTD_freeDCtx")]
    private static partial nuint FreeDecompression(nint context);

    [LibraryImport(Library, EntryPoint = "ZSTD_DCtx_reset")]
    private static partial nuint ResetDecompression(nint context, int what);

    [LibraryImport(Library, EntryPoint = "ZSTD_DCtx_setParameter")]
    private static partial nuint SetDecompression(nint context, int parameter, int value);

    [LibraryImport(Library, EntryPoint = "ZSTD_decompressStream")]
    private static partial nuint DecompressStream(nint context, Buffer* target, Buffer* source);
}

/// <summary>Zstd at its default level, as QEMU has it; a frame a cluster.</summary>
internal sealed unsafe class ZstdCompressor : ClusterCompressor
{
    private nint _context;

    public ZstdCompressor(int clusterBytes) : base(clusterBytes)
    {
        _context = Zstd.CreateCompression();
        if (_context == 0)
            throw new Qcow2Exception("no memory for a zstd stream");
    }

    ~ZstdCompressor() => Dispose(false);

    private protected override int Compress(ReadOnlySpan<byte> data, Span<byte> target)
    {
        ObjectDisposedException.ThrowIf(_context == 0, this);
        fixed (byte* input = data)
        fixed (byte* output = target)
        {
            nuint bytes = Zstd.Compress(_context, output, (nuint)target.Length, input, (nuint)data.Length);
            return Zstd.IsError(bytes) == 0 ? (int)bytes : 0; // the one error that there can be: no room
        }
    }

    protected override void Dispose(bool disposing)
    {
        nint context = Interlocked.Exchange(ref _context, 0);
        if (context != 0)
            _ = Zstd.FreeCompression(context);
        base.Dispose(disposing);
    }
}
