using System.Text;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2.Bitmaps;

/// <summary>
/// The persistent dirty bitmaps of an open image. While it is open for writing, those that are enabled are marked in use on
/// disk, before anything is written: whoever finds them so after a crash knows that they missed something. The others are on disk
/// what they are here. Operations run alone; what only looks is inside the gate.
/// </summary>
internal sealed class ImageBitmaps
{
    private readonly ImageMetadata _metadata;
    private readonly BitmapReader _reader;
    private readonly BitmapStore _store;
    private List<DirtyBitmap>? _bitmaps;

    public ImageBitmaps(ImageMetadata metadata)
    {
        _metadata = metadata;
        _reader = new BitmapReader(metadata.File, metadata.Geometry);
        _store = new BitmapStore(metadata, _reader);
    }

    /// <summary>What every change is told to.</summary>
    public DirtyTracking Tracking { get; } = new();

    private List<DirtyBitmap> Loaded => _bitmaps ?? throw new InvalidOperationException("the bitmaps are loaded first");

    /// <summary>
    /// Prepares an image that is opened for writing: what a program left that does not know bitmaps is dropped, and the
    /// bitmaps that are enabled are in use.
    /// </summary>
    /// <exception cref="Qcow2FormatException">The directory breaks the specification.</exception>
    /// <exception cref="Qcow2UnsupportedException">A bitmap is of a kind that is unknown: who writes might have to change it.</exception>
    public async Task StartAsync()
    {
        if (_metadata.Header.Find(HeaderExtensionType.Bitmaps) is null)
        {
            _bitmaps = [];
            return;
        }
        if (!_metadata.Header.Autoclear.HasFlag(AutoclearFeatures.Bitmaps))
        {
            _bitmaps = [];
            await _metadata.ReplaceHeaderAsync(header => BitmapStore.WithDirectory(header, default));
            return;
        }
        await LoadAsync();
        foreach (DirtyBitmap bitmap in Loaded)
        {
            if (!bitmap.Stored.IsUnderstood && !bitmap.IsInconsistent)
            {
                throw new Qcow2UnsupportedException($"writing to '{_metadata.File.Name}', whose bitmap '{bitmap.Name}' has a type, flags or extra data that are unknown,",
                    "open it read-only, or remove the bitmap with the program that made it");
            }
        }
        _metadata.EnsureDisjoint();
        await StoreAsync(removed: []);
    }

    /// <summary>Reads the directory if that has not been done.</summary>
    /// <exception cref="Qcow2FormatException">It breaks the specification.</exception>
    public async ValueTask LoadAsync()
    {
        if (_bitmaps is not null)
            return;
        Header header = _metadata.Header;
        var loaded = new List<DirtyBitmap>();
        if (header.Autoclear.HasFlag(AutoclearFeatures.Bitmaps) && header.Find(HeaderExtensionType.Bitmaps) is { } stored)
        {
            (BitmapsExtension directory, IReadOnlyList<BitmapEntry> entries) = await _reader.ReadDirectoryAsync(stored, header.DiskBytes);
            _store.Directory = directory;
            _metadata.Map.SetRange(MetadataMap.BitmapDirectory, directory.Directory, directory.DirectoryBytes);
            loaded.AddRange(entries.Select(entry => new DirtyBitmap(entry, header.DiskBytes, _metadata.Geometry)));
        }
        _bitmaps ??= loaded;
    }

    public IReadOnlyList<BitmapDescription> Describe() =>
        [.. Loaded.Select(bitmap => new BitmapDescription(bitmap.Name, 1L << bitmap.GranularityBits, bitmap.IsEnabled, bitmap.IsInconsistent))];

    /// <summary>A bitmap by its name.</summary>
    /// <exception cref="BitmapException">There is none.</exception>
    public DirtyBitmap Find(string name) => Loaded.Find(bitmap => bitmap.Name == name) ?? throw new BitmapException(BitmapError.NotFound, $"Dirty bitmap '{name}' not found");

    /// <summary>A bitmap by its name, for using its bits.</summary>
    /// <exception cref="BitmapException">There is none, or its bits mean nothing.</exception>
    public DirtyBitmap FindConsistent(string name) => Consistent(Find(name));

    /// <summary>See <see cref="BitmapReader.FindExtentAsync"/>.</summary>
    public ValueTask<BitmapExtent> FindExtentAsync(DirtyBitmap bitmap, long offset, long bytes) => _reader.FindExtentAsync(bitmap, offset, bytes);

    /// <summary>Makes a bitmap without a bit set.</summary>
    /// <param name="name">Its name, of 1 to 1023 bytes.</param>
    /// <param name="granularityBytes">A power of two from 512 to 2 GiB, or null: the cluster size, from 4 KiB to 64 KiB.</param>
    /// <param name="isEnabled">Whether it tracks changes from now on.</param>
    public async Task AddAsync(string name, long? granularityBytes, bool isEnabled)
    {
        long granularity = granularityBytes ?? Math.Clamp(_metadata.Geometry.ClusterBytes, 4 << 10, 64 << 10);
        int count = Loaded.Count;
        try
        {
            AddBlank(name, granularity, isEnabled);
            await StoreAsync(removed: []);
        }
        catch
        {
            ForgetAfter(count);
            throw;
        }
    }

    /// <summary>
    /// Makes bitmaps that are what those of another image are, which the caller keeps from changing. On disk there are all of
    /// them at once, with their bits, or none.
    /// </summary>
    public async Task CopyAsync(ImageBitmaps sourceBitmaps, IEnumerable<string> names)
    {
        int count = Loaded.Count;
        try
        {
            foreach (string name in names)
                await CopyAsync(sourceBitmaps, sourceBitmaps.FindConsistent(name));
            await StoreAsync(removed: []);
        }
        catch
        {
            ForgetAfter(count);
            throw;
        }
    }

    /// <summary>Removes a bitmap, in whatever state it is.</summary>
    public async Task RemoveAsync(string name)
    {
        DirtyBitmap removed = Find(name);
        int index = Loaded.IndexOf(removed);
        Loaded.RemoveAt(index);
        try
        {
            await StoreAsync([removed]);
        }
        catch
        {
            Loaded.Insert(index, removed);
            throw;
        }
    }

    /// <summary>Clears all bits.</summary>
    public async Task ClearAsync(string name)
    {
        DirtyBitmap bitmap = FindConsistent(name);
        await LoadTableAsync(bitmap);
        bitmap.Clear();
        await StoreAsync(removed: []);
    }

    /// <summary>Lets changes set bits from now on, or no more.</summary>
    public async Task EnableAsync(string name, bool isEnabled)
    {
        DirtyBitmap bitmap = FindConsistent(name);
        bool before = bitmap.IsEnabled;
        bitmap.IsEnabled = isEnabled;
        try
        {
            await StoreAsync(removed: []);
        }
        catch
        {
            bitmap.IsEnabled = before;
            throw;
        }
    }

    /// <summary>Sets in a bitmap what is set in another one, of this image or of one that the caller keeps from changing.</summary>
    public async Task MergeAsync(string name, ImageBitmaps sourceBitmaps, string sourceName)
    {
        DirtyBitmap target = FindConsistent(name);
        DirtyBitmap source = sourceBitmaps.FindConsistent(sourceName);
        EnsureMergeable(target, source);
        if (source != target)
            await sourceBitmaps.AddBitsAsync(source, target);
        await StoreAsync(removed: []);
    }

    /// <summary>
    /// Prepares a change of the disk's size: from here until <see cref="EndResizeAsync"/> all bitmaps are in use on disk, because
    /// a table there has the length that the disk's size demands.
    /// </summary>
    /// <exception cref="Qcow2Exception">A bitmap is inconsistent, or can't be as large as the disk.</exception>
    public async Task BeginResizeAsync(long virtualBytes)
    {
        foreach (DirtyBitmap bitmap in Loaded)
        {
            Consistent(bitmap);
            if (BitmapEntry.BitBytes(virtualBytes, bitmap.GranularityBits) is 0 or > BitmapEntry.MaxBitBytes)
                throw new Qcow2Exception($"Bitmap '{bitmap.Name}' can't be that of a disk of {virtualBytes} bytes; remove it first");
            await LoadTableAsync(bitmap);
            // Where the disk ends there are bits that mean nothing: they must not come to mean something.
            long bits = Math.Min(virtualBytes, bitmap.DiskBytes) - 1 >> bitmap.GranularityBits;
            await _reader.LoadPageAsync(bitmap, (int)(bits >> (_metadata.Geometry.ClusterBits + 3)));
        }
        if (Loaded.Count > 0)
            await _store.MarkInUseAsync(Loaded);
    }

    /// <summary>The disk has its new size, or the old one after a failure.</summary>
    public async Task EndResizeAsync()
    {
        if (Loaded.Count == 0)
            return;
        foreach (DirtyBitmap bitmap in Loaded)
            bitmap.Resize(_metadata.Header.DiskBytes);
        await StoreAsync(removed: []);
    }

    /// <summary>Stores everything, so that nothing is in use: the image is about to be let go. The caller is alone.</summary>
    public async Task StopAsync()
    {
        if (_bitmaps is not { Count: > 0 })
            return;
        Tracking.Follow([]);
        await _store.StoreAsync(Loaded, removed: [], areInUse: false);
    }

    private async Task StoreAsync(IReadOnlyList<DirtyBitmap> removed)
    {
        await _store.StoreAsync(Loaded, removed, areInUse: true);
        Tracking.Follow(Loaded.Where(bitmap => bitmap is { IsEnabled: true, IsInconsistent: false }));
    }

    /// <exception cref="Qcow2Exception">The table is damaged; from now on the bitmap means nothing.</exception>
    private async Task LoadTableAsync(DirtyBitmap bitmap)
    {
        try
        {
            await _reader.LoadTableAsync(bitmap);
        }
        catch (Qcow2FormatException)
        {
            bitmap.IsInconsistent = true;
            throw;
        }
    }

    /// <summary>A new bitmap, in memory only.</summary>
    private DirtyBitmap AddBlank(string name, long granularity, bool isEnabled)
    {
        EnsureAddable(name, granularity);
        var entry = new BitmapEntry
        {
            NameBytes = Encoding.UTF8.GetBytes(name),
            GranularityBits = System.Numerics.BitOperations.Log2((ulong)granularity),
            Flags = isEnabled ? BitmapFlags.Auto : BitmapFlags.None,
            TableOffset = 0,
            TableEntryCount = 0,
        };
        var added = new DirtyBitmap(entry, _metadata.Header.DiskBytes, _metadata.Geometry);
        added.Clear();
        Loaded.Add(added);
        return added;
    }

    /// <summary>Makes a bitmap, in memory only, that is what one of another image is.</summary>
    private async Task CopyAsync(ImageBitmaps sourceBitmaps, DirtyBitmap source)
    {
        string step = "create";
        try
        {
            DirtyBitmap copy = AddBlank(source.Name, 1L << source.GranularityBits, source.IsEnabled);
            step = "populate";
            EnsureMergeable(copy, source);
            await sourceBitmaps.AddBitsAsync(source, copy);
        }
        catch (BitmapException e)
        {
            throw new BitmapException(e.Error, $"Failed to {step} bitmap {source.Name}: {e.Message}");
        }
    }

    private void ForgetAfter(int count) => Loaded.RemoveRange(count, Loaded.Count - count);

    /// <summary>Sets in a bitmap, of whatever image, what is set in one of this image.</summary>
    private async Task AddBitsAsync(DirtyBitmap source, DirtyBitmap target)
    {
        for (long offset = 0; offset < source.DiskBytes;)
        {
            BitmapExtent extent = await FindExtentAsync(source, offset, source.DiskBytes - offset);
            if (extent.IsDirty)
                target.Set(offset, extent.Bytes);
            offset += extent.Bytes;
        }
    }

    private static void EnsureMergeable(DirtyBitmap target, DirtyBitmap source)
    {
        if (target.DiskBytes != source.DiskBytes)
        {
            throw new BitmapException(BitmapError.Impossible, $"Bitmaps are of different sizes (destination size is {target.DiskBytes}, "
                + $"source size is {source.DiskBytes}) and can't be merged");
        }
    }

    private void EnsureAddable(string name, long granularity)
    {
        if (name.Length == 0)
            throw new BitmapException(BitmapError.Impossible, "Bitmap name cannot be empty");
        if (granularity < 512 || !System.Numerics.BitOperations.IsPow2(granularity))
            throw new BitmapException(BitmapError.Impossible, "Granularity must be power of 2 and at least 512");
        if (Loaded.Exists(bitmap => bitmap.Name == name))
            throw new BitmapException(BitmapError.AlreadyExists, $"Bitmap already exists: {name}");
        if (FindHindrance(name, granularity) is { } hindrance)
            throw new BitmapException(BitmapError.Impossible, $"Can't make bitmap '{name}' persistent in '{_metadata.File.Name}': {hindrance}");
    }

    private string? FindHindrance(string name, long granularity)
    {
        int nameBytes = Encoding.UTF8.GetByteCount(name);
        int granularityBits = System.Numerics.BitOperations.Log2((ulong)granularity);
        if (_metadata.Header.Version < 3)
            return "Cannot store dirty bitmaps in qcow2 v2 files";
        if (granularityBits > BitmapEntry.MaxGranularityBits)
            return $"Granularity exceeds maximum ({1L << BitmapEntry.MaxGranularityBits} bytes)";
        long bytes = BitmapEntry.BitBytes(_metadata.Header.DiskBytes, granularityBits);
        if (bytes > BitmapEntry.MaxBitBytes)
            return "Too much space will be occupied by the bitmap. Use larger granularity";
        if (bytes == 0)
            return "The disk has no bytes to track";
        if (nameBytes > BitmapEntry.MaxNameBytes)
            return $"Name length exceeds maximum ({BitmapEntry.MaxNameBytes} characters)";
        if (Loaded.Count == BitmapsExtension.MaxCount)
            return "Maximum number of persistent bitmaps is already reached";
        long directoryBytes = Loaded.Sum(bitmap => (long)BitmapEntry.BytesOf(bitmap.Stored.NameBytes.Length, bitmap.Stored.ExtraData.Length));
        return directoryBytes + BitmapEntry.BytesOf(nameBytes, 0) > BitmapsExtension.MaxDirectoryBytes
            ? "Not enough space in the bitmap directory" : null;
    }

    private static DirtyBitmap Consistent(DirtyBitmap bitmap) => bitmap switch
    {
        { IsInconsistent: true } => throw new BitmapException(BitmapError.Inconsistent, $"Bitmap '{bitmap.Name}' is inconsistent and cannot be used\n"
            + "Try block-dirty-bitmap-remove to delete this bitmap from disk"),
        { Stored.IsUnderstood: false } => throw new Qcow2UnsupportedException(
            $"bitmap '{bitmap.Name}' has a type, flags or extra data that are unknown: using it", "it is left as it is"),
        _ => bitmap,
    };
}
