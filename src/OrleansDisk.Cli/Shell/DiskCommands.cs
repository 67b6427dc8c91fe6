using OrleansDisk.Cli.Commands;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Shell;

/// <summary>The commands about the disk as a whole: its length, its map, its facts, flushes, truncation.</summary>
internal static class DiskCommands
{
    private const int SectorBytes = 512;

    public static IEnumerable<ShellCommand> All { get; } =
    [
        new("aio_flush", "completes all outstanding aio requests", DrainAsync),
        new("alloc", "checks if offset is allocated in the file", CountAllocatedAsync)
        {
            ShortName = "a", MinWords = 1, MaxWords = 2, Synopsis = "offset [count]",
        },
        new("flush", "flush all in-core file state to disk", FlushAsync) { ShortName = "f" },
        new("info", "prints information about the current file", DescribeAsync) { ShortName = "i" },
        new("length", "gets the length of the current file", ShowLengthAsync) { ShortName = "l" },
        new("map", "prints the allocated areas of a file", ShowMapAsync) { Synopsis = "" },
        new("truncate", "truncates the current file at the given offset", TruncateAsync)
        {
            ShortName = "t", Letters = "m:", MinWords = 1, MaxWords = 3, Writes = true, Synopsis = "[-m prealloc_mode] off",
        },
    ];

    private static async Task<bool> DrainAsync(ShellSession session, ShellArguments arguments)
    {
        await session.DrainAsync();
        return true;
    }

    private static async Task<bool> FlushAsync(ShellSession session, ShellArguments arguments)
    {
        try
        {
            await session.Disk.FlushAsync();
        }
        catch (Exception e) when (Transfer.IsFailure(e))
        {
            _ = session.Complain(e);
            return false;
        }
        finally
        {
            session.ShowFinished();
        }
        return true;
    }

    private static Task<bool> ShowLengthAsync(ShellSession session, ShellArguments arguments)
    {
        session.Terminal.WriteLine(ShellText.Size(session.DiskBytes));
        return Task.FromResult(true);
    }

    private static async Task<bool> CountAllocatedAsync(ShellSession session, ShellArguments arguments)
    {
        long start = ShellNumber.Bytes(arguments.Operands[0]);
        long count = arguments.Operands.Count > 1 ? ShellNumber.Bytes(arguments.Operands[1]) : SectorBytes;
        long end = Math.Clamp(session.DiskBytes - start, 0, count) + start;
        long allocated = 0;
        try
        {
            for (long at = start; at < end;)
            {
                (long bytes, bool isAllocated) = await NextAsync(session, at, end - at);
                allocated += isAllocated ? bytes : 0;
                at += bytes;
            }
        }
        catch (Exception e) when (Transfer.IsFailure(e))
        {
            session.Terminal.WriteLine($"is_allocated failed: {session.Complain(e)}");
            return false;
        }
        session.Terminal.WriteLine($"{allocated}/{end - start} bytes allocated at offset {ShellText.Size(start)}");
        return true;
    }

    private static async Task<bool> ShowMapAsync(ShellSession session, ShellArguments arguments)
    {
        long end = session.DiskBytes;
        try
        {
            for (long at = 0; at < end;)
            {
                (long bytes, bool isAllocated) = await NextAsync(session, at, end - at);
                while (at + bytes < end)
                {
                    (long more, bool isSame) = await NextAsync(session, at + bytes, end - at - bytes);
                    if (isSame != isAllocated)
                        break;
                    bytes += more;
                }
                string state = isAllocated ? "    allocated" : "not allocated";
                session.Terminal.WriteLine(
                    $"{ShellText.Size(bytes)} (0x{bytes:x}) bytes {state} at offset {ShellText.Size(at)} (0x{at:x})");
                at += bytes;
            }
        }
        catch (Exception e) when (Transfer.IsFailure(e))
        {
            session.Terminal.Error($"Failed to get allocation status: {session.Complain(e)}");
            return false;
        }
        return true;
    }

    private static async Task<(long Bytes, bool IsAllocated)> NextAsync(ShellSession session, long offset, long bytes)
    {
        IDiskSource source = session.Disk.Source;
        if (offset >= source.VirtualBytes)
            return (bytes, true); // the last sector of a raw file
        DiskExtent extent = await source.GetExtentAsync(offset, Math.Min(bytes, source.VirtualBytes - offset));
        return (extent.Bytes, extent.State != DiskExtentState.Unallocated || source.Format != "qcow2");
    }

    private static async Task<bool> DescribeAsync(ShellSession session, ShellArguments arguments)
    {
        string format = session.Disk.Source.Format;
        session.Terminal.WriteLine($"format name: {format}");
        if (format is not ("qcow2" or "raw"))
        {
            session.Terminal.WriteLine($"format name: {format}"); // as the protocol's name: it is both, and has nothing more to say
            return true;
        }
        Qcow2Image? image = session.Disk.Image;
        long stateOffset = 0;
        if (image is not null)
        {
            ClusterGeometry geometry = image.Header.Geometry;
            stateOffset = (long)((UInt128)geometry.L1EntryCount(image.VirtualBytes) * (UInt128)geometry.BytesPerL2Table);
        }
        session.Terminal.WriteLine($"cluster size: {ShellText.Size(image?.Header.Geometry.ClusterBytes ?? 0)}");
        session.Terminal.WriteLine($"vm state offset: {ShellText.Size(stateOffset)}");
        if (session.Disk.Source is LuksImage luks)
            session.Terminal.Write(InfoText.Specific(luks.Header));
        if (image is null)
            return true;
        ImageInfo? info = null;
        await image.RunSettledAsync(async file => info = await ImageInfo.ReadAsync(file, "qcow2"));
        session.Terminal.Write(InfoText.Specific(info!));
        return true;
    }

    private static async Task<bool> TruncateAsync(ShellSession session, ShellArguments arguments)
    {
        Preallocation preallocation = arguments.Value('m') switch
        {
            null or "off" => Preallocation.Off,
            "metadata" => Preallocation.Metadata,
            "falloc" => Preallocation.Falloc,
            "full" => Preallocation.Full,
            { } mode => throw new CommandFailedException($"Invalid preallocation mode '{mode}'"),
        };
        if (arguments.Operands.Count != 1)
            throw new ShellUsageException(arguments.Command);
        long bytes = ShellNumber.Bytes(arguments.Operands[0]);
        try
        {
            await (session.Writable switch
            {
                Qcow2Image image => image.ResizeAsync(bytes, preallocation),
                RawImage raw => raw.ResizeAsync(bytes, preallocation),
                LuksImage luks => luks.ResizeAsync(bytes, preallocation),
                { } disk => disk.ResizeAsync(bytes),
            });
        }
        catch (Exception e) when (Transfer.IsFailure(e))
        {
            throw new CommandFailedException(e.Message);
        }
        return true;
    }
}
