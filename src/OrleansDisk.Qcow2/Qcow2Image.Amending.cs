using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Snapshots;

namespace OrleansDisk.Qcow2;

/// <content>Changes of what the image is; each has it alone.</content>
public sealed partial class Qcow2Image
{
    /// <summary>Makes version 3 of an image of version 2.</summary>
    internal Task UpgradeAsync() => AmendAloneAsync(async () =>
    {
        // In version 3 a snapshot says how large its disk was, and how much VM state it has.
        if (_metadata.Snapshots.Any(snapshot => snapshot.VirtualBytes is null))
            await new ImageSnapshots(_metadata).CompleteTableAsync();
        await _metadata.ReplaceHeaderAsync(header => header with { Version = 3 });
    });

    /// <summary>Makes version 2 of an image of version 3, as far as that can say the same.</summary>
    /// <param name="report">Told how much is done, from 0 to 1.</param>
    /// <exception cref="Qcow2Exception">It can't; the message says why.</exception>
    internal Task DowngradeAsync(Action<double> report) => AmendAloneAsync(async () =>
    {
        IReadOnlyList<SnapshotEntry> snapshots = _metadata.Snapshots;
        RefuseDowngrade(snapshots);
        var expansion = new ZeroClusterExpansion(_metadata, _data);
        if (Header.CompressionType != CompressionType.Zlib && await expansion.FindsCompressedAsync(snapshots))
            throw new Qcow2Exception("Cannot downgrade an image with zstd compression type and existing compressed clusters");
        await expansion.RunAsync(snapshots, report);
        await _metadata.ReplaceHeaderAsync(header => header with
        {
            Version = 2,
            Incompatible = IncompatibleFeatures.None,
            Compatible = CompatibleFeatures.None,
            Autoclear = AutoclearFeatures.None,
            CompressionType = CompressionType.Zlib,
            UnknownFields = [],
        });
    });

    /// <summary>Changes the header; see <see cref="Metadata.ImageMetadata.ReplaceHeaderAsync"/>.</summary>
    internal Task ReplaceHeaderAsync(Func<Header, Header> change) => AmendAloneAsync(() => _metadata.ReplaceHeaderAsync(change));

    /// <summary>Closes the image, and changes its file in the moment before it is let go.</summary>
    /// <exception cref="Qcow2Exception">The image is closed already.</exception>
    internal Task CloseAsync(Func<IBlockFile, Task> change)
    {
        ThrowIfClosed();
        return _closing = CloseOnceAsync(change);
    }

    private void RefuseDowngrade(IReadOnlyList<SnapshotEntry> snapshots)
    {
        if (Header.Geometry.RefcountBits != 16)
            throw new Qcow2Exception("compat=0.10 requires refcount_bits=16");
        if (Header.Geometry.HasExternalData)
            throw new Qcow2Exception("Cannot downgrade an image with a data file");
        if (snapshots.Any(snapshot => snapshot.VmStateBytes > uint.MaxValue || snapshot.VirtualBytes != VirtualBytes))
            throw new Qcow2Exception("Internal snapshots prevent downgrade of image");
        if (Header.Find(HeaderExtensionType.Bitmaps) is not null)
            throw new Qcow2Exception("Cannot downgrade an image with persistent bitmaps; remove them first");
        IncompatibleFeatures others = Header.Incompatible & ~(IncompatibleFeatures.Dirty | IncompatibleFeatures.CompressionType);
        if (others != 0)
            throw new Qcow2Exception($"Cannot downgrade an image with incompatible features 0x{(ulong)others:x} set");
    }

    private async Task AmendAloneAsync(Func<Task> change)
    {
        using RequestGate.Ticket ticket = await _metadata.Gate.EnterExclusiveAsync();
        await GuardAsync(() =>
        {
            ThrowIfUnwritable(0, 0);
            return ValueTask.CompletedTask;
        });
        await GuardAsync(async () =>
        {
            await _metadata.SettleAsync();
            await change();
        });
    }
}
