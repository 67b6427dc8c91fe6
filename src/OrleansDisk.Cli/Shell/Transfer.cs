using System.Diagnostics;
using System.Text;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Shell;

/// <summary>One read or write of a command, and what is told of it.</summary>
/// <param name="arguments">The command's words.</param>
/// <param name="offset">First byte.</param>
/// <param name="bytes">Length.</param>
internal sealed class Transfer(ShellArguments arguments, long offset, long bytes)
{
    private const byte Unread = 0xab;

    public bool IsWrite { get; init; }

    public bool IsZeroes { get; init; }

    public bool IsVmState { get; init; }

    public bool IsCompressed { get; init; }

    /// <summary>Whether zeros that take as long as data are refused.</summary>
    public bool NeedsFastZeroes { get; init; }

    /// <summary>The byte that is written, or that must be read; null when anything may be.</summary>
    public byte? Pattern { get; init; }

    /// <summary>The file whose bytes are written, or null.</summary>
    public string? SourceFile { get; init; }

    public long ComparedFrom { get; init; }

    public long ComparedBytes { get; init; }

    /// <summary>Whether an exception is the failure of a request, and not a defect.</summary>
    public static bool IsFailure(Exception e) => e is IOException or ArgumentException or NotSupportedException or ShellException;

    /// <summary>A range past the end fails as a whole.</summary>
    public static void RequireInside(ShellSession session, long offset, long bytes) =>
        ArgumentOutOfRangeException.ThrowIfGreaterThan(bytes, session.DiskBytes - offset);

    /// <summary>Does it; the text is the report, or what went wrong.</summary>
    /// <param name="session">The shell.</param>
    /// <param name="name">What the request is called when it fails.</param>
    public async Task<(bool Succeeded, string Text)> RunAsync(ShellSession session, string name)
    {
        byte[] buffer = [];
        if (IsWrite && !IsZeroes && !TryFill(out buffer))
            return (false, "");
        if (!IsWrite)
        {
            buffer = GC.AllocateUninitializedArray<byte>((int)bytes);
            Array.Fill(buffer, Unread);
        }
        long start = Stopwatch.GetTimestamp();
        try
        {
            await (IsWrite ? WriteAsync(session, buffer) : ReadAsync(session, buffer));
        }
        catch (Exception e) when (IsFailure(e))
        {
            return (false, $"{name} failed: {session.Complain(e)}\n");
        }
        TimeSpan time = Stopwatch.GetElapsedTime(start);
        var text = new StringBuilder();
        bool succeeded = IsWrite || Compare(buffer, text);
        if (arguments.Has('q'))
            return (succeeded, text.ToString());
        if (!IsWrite && arguments.Has('v'))
            text.Append(ShellText.Dump(buffer, offset));
        text.Append(ShellText.Report(IsWrite ? "wrote" : "read", offset, bytes, time, arguments.Has('C')));
        return (succeeded, text.ToString());
    }

    private async Task ReadAsync(ShellSession session, byte[] buffer)
    {
        if (IsVmState)
        {
            await ImageOf(session, "VM state").ReadVmStateAsync(offset, buffer);
            return;
        }
        RequireInside(session, offset, bytes);
        await session.Disk.Source.ReadAsync(offset, buffer);
    }

    private async Task WriteAsync(ShellSession session, byte[] buffer)
    {
        IWritableDisk disk = session.Writable;
        if (IsVmState)
        {
            await ImageOf(session, "VM state").WriteVmStateAsync(offset, buffer);
            return;
        }
        RequireInside(session, offset, bytes);
        bool isThrough = arguments.Has('f') || session.Disk.Request.Cache.Writethrough;
        if (IsZeroes)
        {
            if (NeedsFastZeroes && session.Disk.Image is { Header.Version: < 3 })
                throw new NotSupportedException("version 2 of the format has no zero clusters");
            await disk.WriteZeroesAsync(offset, bytes, arguments.Has('u') && session.Disk.Request.PassDiscard);
        }
        else if (IsCompressed)
        {
            await WriteCompressedAsync(session, buffer);
        }
        else
        {
            await disk.WriteAsync(offset, buffer);
        }
        if (isThrough)
            await session.Disk.FlushAsync();
    }

    private async Task WriteCompressedAsync(ShellSession session, byte[] buffer)
    {
        Qcow2Image image = ImageOf(session, "compressed clusters");
        int clusterBytes = image.Header.Geometry.ClusterBytes;
        bool reachesEnd = offset + bytes == image.VirtualBytes;
        if (offset % clusterBytes != 0 || (bytes % clusterBytes != 0 && !reachesEnd))
            throw new ShellException("compressed clusters are written whole");
        for (int at = 0; at < buffer.Length; at += clusterBytes)
            await image.WriteCompressedAsync(offset + at, buffer.AsMemory(at, Math.Min(clusterBytes, buffer.Length - at)));
    }

    private bool Compare(byte[] buffer, StringBuilder text)
    {
        if (Pattern is not { } pattern || !buffer.AsSpan((int)ComparedFrom, (int)ComparedBytes).ContainsAnyExcept(pattern))
            return true;
        text.Append($"Pattern verification failed at offset {offset + ComparedFrom}, {ComparedBytes} bytes\n");
        return false;
    }

    private bool TryFill(out byte[] buffer)
    {
        buffer = GC.AllocateUninitializedArray<byte>((int)bytes);
        if (SourceFile is null)
        {
            Array.Fill(buffer, Pattern ?? 0);
            return true;
        }
        byte[] source = ReadSource(SourceFile, buffer.Length);
        if (source.Length == 0)
            return false;
        for (int at = 0; at < buffer.Length; at += source.Length)
            source.AsSpan(0, Math.Min(source.Length, buffer.Length - at)).CopyTo(buffer.AsSpan(at));
        return true;
    }

    /// <summary>The start of a file; nothing, with a complaint, when there is none.</summary>
    private static byte[] ReadSource(string path, int limit)
    {
        try
        {
            using FileStream file = File.OpenRead(path);
            byte[] bytes = new byte[(int)Math.Min(file.Length, limit)];
            file.ReadExactly(bytes);
            if (bytes.Length == 0)
                Terminal.WriteError($"{path}: file is empty");
            return bytes;
        }
        catch (FileNotFoundException)
        {
            Terminal.WriteError($"{path}: No such file or directory");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Terminal.WriteError($"{path}: {e.Message}");
        }
        return [];
    }

    /// <summary>The image, for what only an image has.</summary>
    private static Qcow2Image ImageOf(ShellSession session, string what) => session.Disk.Image
        ?? throw new NotSupportedException($"the format '{session.Disk.Source.Format}' has no {what}");
}
