using System.IO.Compression;
using System.Runtime.InteropServices;

namespace OrleansDisk.Qcow2.Compression;

/// <summary>
/// Raw deflate by the library that the class library brings along. Its own <see cref="DeflateStream"/> has a window of
/// 32 KiB and no way to ask for the 4 KiB that readers of qcow2 must expect; these entry points have. They are not
/// documented: without them <see cref="DeflateStreamCompressor"/> does the work.
/// </summary>
internal static unsafe partial class Deflate
{
    private const string Library = "libSystem.IO.Compression.Native";

    private const int Ok = 0;
    private const int StreamEnd = 1;
    private const int BufferError = -5;
    private const int Finish = 4;
    // This library's levels 5 and 6 make clusters of the same size; 5 is faster by a tenth.
    private const int Level = 5;
    private const int DeflateMethod = 8;
    private const int DefaultStrategy = 0;
    private const int MostMemory = 9;

    // Negative: a raw stream, without header and checksum.
    private const int WriteWindowBits = -12;

    // Who wrote the image may not have kept to 4 KiB.
    private const int ReadWindowBits = -15;

    /// <summary>Whether the entry points are there.</summary>
    public static bool IsAvailable { get; } = Probe();

    /// <summary>Compresses a cluster; returns the bytes, or 0 when the target is too small.</summary>
    public static int Compress(ReadOnlySpan<byte> data, Span<byte> target)
    {
        ZStream stream = default;
        if (DeflateInit(&stream, Level, DeflateMethod, WriteWindowBits, MostMemory, DefaultStrategy) != Ok)
            throw new Qcow2Exception("no memory for a deflate stream");
        fixed (byte* input = data)
        fixed (byte* output = target)
        {
            stream.Set(input, data.Length, output, target.Length);
            int result = DeflateRun(&stream, Finish);
            _ = DeflateEnd(&stream);
            return result == StreamEnd ? target.Length - (int)stream.AvailableOut : 0;
        }
    }

    /// <summary>Fills a cluster from the start of a stream; false when that can't be done.</summary>
    public static bool TryInflate(ReadOnlySpan<byte> stored, Span<byte> cluster)
    {
        ZStream stream = default;
        if (InflateInit(&stream, ReadWindowBits) != Ok)
            throw new Qcow2Exception("no memory for an inflate stream");
        fixed (byte* input = stored)
        fixed (byte* output = cluster)
        {
            stream.Set(input, stored.Length, output, cluster.Length);
            int result = InflateRun(&stream, Finish);
            _ = InflateEnd(&stream);
            return result is Ok or StreamEnd or BufferError && stream.AvailableOut == 0;
        }
    }

    private static bool Probe()
    {
        try
        {
            Span<byte> probe = stackalloc byte[64];
            return Compress(probe, stackalloc byte[64]) > 0;
        }
        catch (Exception e) when (e is DllNotFoundException or EntryPointNotFoundException)
        {
            return false;
        }
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct ZStream
    {
        public byte* NextIn;
        public byte* NextOut;
        public byte* Message;
        public void* State;
        public uint AvailableIn;
        public uint AvailableOut;

        public void Set(byte* input, int inputBytes, byte* output, int outputBytes)
        {
            NextIn = input;
            AvailableIn = (uint)inputBytes;
            NextOut = output;
            AvailableOut = (uint)outputBytes;
        }
    }

    [LibraryImport(Library, EntryPoint = "CompressionNative_DeflateInit2_")]
    private static partial int DeflateInit(ZStream* stream, int level, int method, int windowBits, int memoryLevel, int strategy);

    [LibraryImport(Library, EntryPoint = "CompressionNative_Deflate")]
    private static partial int DeflateRun(ZStream* stream, int flush);

    [LibraryImport(Library, EntryPoint = "CompressionNative_DeflateEnd")]
    private static partial int DeflateEnd(ZStream* stream);

    [LibraryImport(Library, EntryPoint = "CompressionNative_InflateInit2_")]
    private static partial int InflateInit(ZStream* stream, int windowBits);

    [LibraryImport(Library, EntryPoint = "CompressionNative_Inflate")]
    private static partial int InflateRun(ZStream* stream, int flush);

    [LibraryImport(Library, EntryPoint = "CompressionNative_InflateEnd")]
    private static partial int InflateEnd(ZStream* stream);
}

internal sealed class DeflateCompressor(int clusterBytes) : ClusterCompressor(clusterBytes)
{
    private protected override int Compress(ReadOnlySpan<byte> data, Span<byte> target) => Deflate.Compress(data, target);
}

/// <summary>Deflate with a window of 32 KiB: QEMU reads that, too.</summary>
internal sealed class DeflateStreamCompressor(int clusterBytes) : ClusterCompressor(clusterBytes)
{
    private protected override int Compress(ReadOnlySpan<byte> data, Span<byte> target)
    {
        using var compressed = new MemoryStream();
        using (var deflate = new DeflateStream(compressed, CompressionLevel.Optimal, leaveOpen: true))
            deflate.Write(data);
        if (compressed.Length > target.Length)
            return 0;
        compressed.GetBuffer().AsSpan(0, (int)compressed.Length).CopyTo(target);
        return (int)compressed.Length;
    }
}
