using OrleansDisk.Qcow2.Bitmaps;
using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Check.Repair;
using OrleansDisk.Qcow2.Compression;
using OrleansDisk.Qcow2.Concurrency;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2;

/// <summary>
/// An open qcow2 image. It has no locks: every call, and everything that follows from it, must run on one exclusive
/// scheduler (a grain's, or <see cref="ConcurrentExclusiveSchedulerPair.ExclusiveScheduler"/>). Many calls may be under
/// way at once. Offsets and lengths are bytes, of any alignment. <see cref="Lease"/> gives out the exception to this.
/// </summary>
public sealed partial class Qcow2Image : IWritableDisk
{
    private readonly IBlockFile _file;
    private readonly ImageMetadata _metadata;
    private readonly SectorCipher? _cipher;
    private readonly GuestData _data;
    private readonly GuestReader _reader;
    private readonly GuestWriter _writer;
    private readonly GuestZeroes _zeroes;
    private readonly DiskResize _resize;
    private readonly CompressedWriter _compressedWriter;
    private Task? _closing;

    private Qcow2Image(IBlockFile file, ImageMetadata metadata, SectorCipher? cipher, IDiskSource? backing, bool notesAllZeroes)
    {
        _file = file;
        _metadata = metadata;
        Backing = backing;
        _cipher = cipher;
        _data = new PlainGuestData(metadata.DataFile);
        if (cipher is not null)
            _data = new EncryptedGuestData(_data, cipher, countsHostSectors: metadata.Header.Encryption == EncryptionMethod.Luks);
        _reader = new GuestReader(metadata, _data, backing);
        _writer = new GuestWriter(metadata, _data, _reader);
        _zeroes = new GuestZeroes(metadata, _reader, _writer, backing, notesAllZeroes);
        _resize = new DiskResize(metadata, _data, backing, _writer, _zeroes);
        _compressedWriter = new CompressedWriter(metadata);
        _bitmaps = new ImageBitmaps(metadata);
    }

    public string FileName => _file.Name;

    /// <summary>The name of the file with the guest data: an external data file's, or the image's.</summary>
    public string DataFileName => _metadata.DataFile.Name;

    public string Format => "qcow2";

    /// <summary>The header as it is on disk now.</summary>
    public Header Header => _metadata.Header;

    public bool IsReadOnly => _file.IsReadOnly;

    /// <summary>Size of the disk in bytes: whole sectors, as QEMU counts it.</summary>
    public long VirtualBytes => Header.DiskBytes;

    public IDiskSource? Backing { get; }

    /// <summary>Whether a metadata write, a flush or damage has stopped the image; it has to be opened again.</summary>
    public bool HasFailed => _metadata.Health.HasFailed;

    /// <summary>Where the image's metadata lies, for who must tell what a write hits.</summary>
    internal MetadataMap Map => _metadata.Map;

    /// <summary>The name of the metadata at an offset of the file as it is known now, or null.</summary>
    public string? MetadataAt(long hostOffset) => Map.Find(Header.Geometry.ClusterOf(new HostOffset(hostOffset)));

    /// <summary>Opens an image file, with the locks that go with the access, and its backing chain.</summary>
    /// <exception cref="ImageLockedException">Another user of the file excludes this one.</exception>
    /// <exception cref="Qcow2FormatException">The file breaks the specification.</exception>
    /// <exception cref="Qcow2UnsupportedException">It needs something that this version does not have.</exception>
    /// <exception cref="IOException">It can't be opened or read.</exception>
    public static async Task<Qcow2Image> OpenAsync(string path, Qcow2OpenOptions options)
    {
        IBlockFile file = options.OpenFile(path, options.Access);
        try
        {
            return await OpenAsync(file, options);
        }
        catch
        {
            await file.DisposeAsync();
            throw;
        }
    }

    /// <summary>Opens an image in a file that the caller has opened; the image owns the file from then on.</summary>
    public static Task<Qcow2Image> OpenAsync(IBlockFile file, Qcow2OpenOptions options) => OpenAsync(file, options, above: []);

    internal static async Task<Qcow2Image> OpenAsync(
        IBlockFile file, Qcow2OpenOptions options, IReadOnlyList<string> above)
    {
        Header header = await HeaderReader.ReadAsync(file);
        if (options.KeepDiscardedClusters && header.Version < 3)
            throw new Qcow2Exception("discard-no-unref is only supported since qcow2 version 3");
        ClusterDecompression.Require(header.CompressionType);
        SectorCipher? cipher = await ImageCipher.OpenAsync(file, header, options);
        IBlockFile? dataFile = ExternalDataFile.Open(file, header, options);
        try
        {
            if (!file.IsReadOnly)
                header = await PrepareForWritingAsync(file, header, options);
            if (options.Snapshot is { } snapshot)
                header = await ShowSnapshotAsync(file, header, snapshot);
            ImageMetadata metadata = await ImageMetadata.LoadAsync(file, dataFile, header, options);
            IDiskSource? backing = options.Backing
                ?? (options.OpenBacking ? await BackingChain.OpenAsync(file.Name, header, options, above) : null);
            return await StartAsync(new Qcow2Image(file, metadata, cipher, backing, options.NotesAllZeroes));
        }
        catch when (dataFile is not null)
        {
            await dataFile.DisposeAsync();
            throw;
        }
    }

    public ValueTask ReadAsync(long offset, Memory<byte> buffer)
    {
        if (!_metadata.Gate.TryEnterShared(out RequestGate.Ticket ticket))
            return ReadWhenAdmittedAsync(offset, buffer);
        ValueTask read;
        try
        {
            ThrowIfClosed();
            read = _reader.ReadAsync(new GuestOffset(offset), ClipRead(offset, buffer));
        }
        catch (Exception e)
        {
            read = ValueTask.FromException(e);
        }
        return FinishAsync(read, ticket);
    }

    /// <summary>Writes into the disk.</summary>
    /// <param name="offset">First byte; the range lies inside the disk.</param>
    /// <param name="data">The bytes; they belong to the call until it completes.</param>
    /// <param name="fua">Whether the write is on stable storage when the call completes.</param>
    /// <exception cref="NoSpaceException">The file can't grow.</exception>
    /// <exception cref="Qcow2FailedException">The image has stopped.</exception>
    public ValueTask WriteAsync(long offset, ReadOnlyMemory<byte> data, bool fua = false)
    {
        if (!IsWhole(offset, data.Length))
            return WritePartsAsync(offset, data, fua);
        if (fua || !_metadata.Gate.TryEnterShared(out RequestGate.Ticket ticket))
            return WriteWhenAdmittedAsync(offset, data, fua);
        ValueTask write;
        try
        {
            BeginChange(offset, data.Length);
            write = _writer.WriteAsync(new GuestOffset(offset), data);
        }
        catch (Exception e)
        {
            write = ValueTask.FromException(e);
        }
        return FinishAsync(write, ticket);
    }

    /// <summary>Makes a range read as zeros.</summary>
    /// <param name="offset">First byte; the range lies inside the disk.</param>
    /// <param name="bytes">Length of the range.</param>
    /// <param name="mayUnmap">Whether space in the file may be given up.</param>
    /// <param name="fua">Whether the change is on stable storage when the call completes.</param>
    public ValueTask WriteZeroesAsync(long offset, long bytes, bool mayUnmap, bool fua = false) => !IsWhole(offset, bytes)
        ? ChangePartsAsync(offset, bytes, fua, () => ZeroPartsAsync(new GuestOffset(offset), bytes, mayUnmap))
        : ChangeAsync(offset, bytes, fua, () => _zeroes.WriteZeroesAsync(new GuestOffset(offset), bytes, mayUnmap));

    /// <summary>Gives up the clusters that lie whole in a range; they then read as zeros.</summary>
    public ValueTask DiscardAsync(long offset, long bytes, bool fua = false) =>
        ChangeAsync(offset, bytes, fua, () => _zeroes.DiscardAsync(new GuestOffset(offset), bytes));

    /// <summary>Puts on stable storage every change that completed before this call.</summary>
    /// <exception cref="Qcow2FailedException">It could not be done; the image has stopped.</exception>
    public ValueTask FlushAsync()
    {
        if (IsReadOnly)
            return ValueTask.CompletedTask;
        return RunAsync(() => new ValueTask(_metadata.Order.FlushAsync()));
    }

    public async ValueTask<DiskExtent> GetExtentAsync(long offset, long bytes)
    {
        ThrowIfOutside(offset, bytes);
        DiskExtent extent = default;
        await RunAsync(async () => extent = await _reader.GetExtentAsync(new GuestOffset(offset), bytes));
        return extent;
    }

    /// <summary>
    /// Lets a session in this process read and overwrite the disk on its own thread; dispose the lease when the session
    /// ends. The lease is good for as long as the image is open: what it can't do at a moment, it says.
    /// </summary>
    public MappingLease Lease()
    {
        ThrowIfClosed();
        return new MappingLease(_metadata, _data, _reader, _bitmaps.Tracking);
    }

    /// <summary>
    /// Waits for what is under way, writes everything back, and runs <paramref name="work"/> on the file before any
    /// other request begins. It must not change the file.
    /// </summary>
    public async Task RunSettledAsync(Func<IBlockFile, Task> work)
    {
        using RequestGate.Ticket ticket = await _metadata.Gate.EnterExclusiveAsync();
        ThrowIfClosed();
        if (!IsReadOnly)
            await GuardAsync(() => new ValueTask(_metadata.SettleAsync()));
        await work(_file);
    }

    /// <summary>
    /// Waits for what is under way, writes everything back, and lets go of the file. Calling it again does nothing.
    /// </summary>
    /// <exception cref="Qcow2FailedException">The last write-back failed; the locks are released all the same.</exception>
    public Task CloseAsync() => _closing ??= CloseOnceAsync(last: null);

    public async ValueTask DisposeAsync() => await CloseAsync();

    /// <param name="last">Done with the file when nothing else touches it any more, or null.</param>
    private async Task CloseOnceAsync(Func<IBlockFile, Task>? last)
    {
        using RequestGate.Ticket ticket = await _metadata.Gate.EnterExclusiveAsync();
        _metadata.Gate.Leases.Revoke(); // never restored: the file is about to go
        try
        {
            if (!IsReadOnly && !_metadata.Health.HasFailed)
                await GuardAsync(StopAsync);
            if (last is not null)
            {
                await _metadata.IdleAsync();
                await last(_file);
            }
        }
        finally
        {
            await _metadata.IdleAsync();
            await _file.DisposeAsync();
            if (!ReferenceEquals(_metadata.DataFile, _file))
                await _metadata.DataFile.DisposeAsync();
            while (_idleCompressors.TryPop(out ClusterCompressor? compressor))
                compressor.Dispose();
            _cipher?.Dispose();
            if (Backing is not null)
                await Backing.DisposeAsync();
        }
    }

    private async ValueTask SettleAndMarkCleanAsync()
    {
        await _metadata.SettleAsync();
        await _metadata.MarkCleanAsync();
    }

    private static async Task<Header> PrepareForWritingAsync(IBlockFile file, Header header, Qcow2OpenOptions options)
    {
        FeatureCheck.RefuseUnwritable(header);
        if (header.Incompatible.HasFlag(IncompatibleFeatures.Dirty))
        {
            RepairReport repaired = await ImageRepair.RunAsync(file, RepairKinds.All, new CheckOptions { OnFinding = options.Repairing, MaxKeptFindings = 0 });
            if (repaired.Check.CheckErrorCount > 0)
                throw new Qcow2Exception($"Could not repair dirty image '{file.Name}'; run a check of it to see why");
            header = await HeaderReader.ReadAsync(file);
        }
        return header;
    }

    private Memory<byte> ClipRead(long offset, Memory<byte> buffer)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        if (offset <= VirtualBytes - buffer.Length)
            return buffer;
        int inside = (int)Math.Clamp(VirtualBytes - offset, 0, buffer.Length);
        buffer.Span[inside..].Clear();
        return buffer[..inside];
    }

    private ValueTask ReadWhenAdmittedAsync(long offset, Memory<byte> buffer) =>
        RunAsync(() => _reader.ReadAsync(new GuestOffset(offset), ClipRead(offset, buffer)));

    private ValueTask WriteWhenAdmittedAsync(long offset, ReadOnlyMemory<byte> data, bool fua) =>
        ChangeAsync(offset, data.Length, fua, () => _writer.WriteAsync(new GuestOffset(offset), data));

    private async ValueTask ChangeAsync(long offset, long bytes, bool fua, Func<ValueTask> change)
    {
        await RunAsync(() =>
        {
            BeginChange(offset, bytes);
            return change();
        });
        if (fua)
            await FlushAsync();
    }

    private async ValueTask RunAsync(Func<ValueTask> request)
    {
        RequestGate.Ticket ticket = await _metadata.Gate.EnterSharedAsync();
        try
        {
            ThrowIfClosed();
            await GuardAsync(request);
        }
        finally
        {
            ticket.Dispose();
        }
    }

    /// <summary>Ends a request that began without waiting; it is usually over by now.</summary>
    private ValueTask FinishAsync(ValueTask request, RequestGate.Ticket ticket)
    {
        if (!request.IsCompletedSuccessfully)
            return FinishSlowlyAsync(request, ticket);
        ticket.Dispose();
        return ValueTask.CompletedTask;
    }

    private async ValueTask FinishSlowlyAsync(ValueTask request, RequestGate.Ticket ticket)
    {
        try
        {
            await GuardAsync(() => request);
        }
        finally
        {
            ticket.Dispose();
        }
    }

    /// <summary>Turns damage that a request finds into a stopped image and an error with the specification's words.</summary>
    private async ValueTask GuardAsync(Func<ValueTask> request)
    {
        try
        {
            await request();
        }
        catch (MetadataDamagedException e)
        {
            throw await _metadata.Health.ReportCorruptionAsync(Header, e.Message);
        }
        catch (InvariantException e)
        {
            _metadata.Health.Fail(e);
            throw;
        }
        catch (BlockFileException e) when (e.IsNoSpace)
        {
            throw new NoSpaceException(e.Message, e);
        }
    }

    /// <summary>A range is about to change: refuses what can't be, and lets the bitmaps know of the rest.</summary>
    private void BeginChange(long offset, long bytes)
    {
        ThrowIfUnwritable(offset, bytes);
        _bitmaps.Tracking.NoteChange(offset, bytes);
    }

    private void ThrowIfUnwritable(long offset, long bytes)
    {
        ThrowIfClosed();
        ThrowIfOutside(offset, bytes);
        if (IsReadOnly)
            throw new Qcow2Exception($"'{FileName}' is open read-only");
        _metadata.Health.ThrowIfFailed();
        _metadata.EnsureDisjoint();
    }

    private void ThrowIfClosed()
    {
        if (_closing is not null)
            throw new Qcow2Exception($"'{FileName}' is closed");
    }

    private void ThrowIfOutside(long offset, long bytes)
    {
        if (offset < 0 || bytes < 0 || offset > VirtualBytes - bytes)
            throw new ArgumentOutOfRangeException(nameof(offset), $"{bytes} bytes at {offset} are not inside the disk of {VirtualBytes} bytes");
    }
}
