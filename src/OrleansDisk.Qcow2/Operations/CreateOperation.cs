using System.Buffers.Binary;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>Makes new images.</summary>
public static class CreateOperation
{
    private const int SectorBytes = 512;

    private const int ChunkBytes = 1 << 20;

    /// <summary>At least a block of any device.</summary>
    private const int ClearedBytes = 4 << 10;

    /// <summary>
    /// Makes the file of that name an image, and its external data file if it is to have one, replacing what they held; see
    /// the other overload.
    /// </summary>
    /// <exception cref="Qcow2Exception">The options can't be had, or a file is in use; both are untouched then.</exception>
    /// <exception cref="IOException">A file can't be written.</exception>
    public static async Task<Header> CreateAsync(string path, CreateOptions options)
    {
        Plan plan = Prepare(options);
        if (options.DataFile is not null)
            return await CreateWithDataFileAsync(path, ExternalDataFile.ResolvePath(path, options.DataFile), plan);
        await using var file = LocalBlockFile.Create(path);
        return await WriteAsync(file, dataFile: null, plan);
    }

    /// <summary>
    /// Makes an image of <paramref name="file"/>, replacing what it held. The header is written last, behind a flush:
    /// a create that fails or is interrupted leaves a file that is no image.
    /// </summary>
    /// <param name="file">The image's file.</param>
    /// <param name="options">What the image is to be.</param>
    /// <param name="dataFile">The external data file, if the image is to have one: it is emptied just before the header comes.</param>
    /// <exception cref="Qcow2Exception">The options can't be had; the files are untouched then.</exception>
    /// <exception cref="BlockFileException">A file can't be written.</exception>
    public static Task<Header> CreateAsync(IBlockFile file, CreateOptions options, IBlockFile? dataFile = null) =>
        WriteAsync(file, dataFile, Prepare(options));

    /// <summary>An image that can be written: all that can be refused has been.</summary>
    private sealed record Plan(Header Header, InitialLayout Layout, long DataClusterCount, Preallocation Preallocation, LuksKeys? Keys);

    private static Plan Prepare(CreateOptions options)
    {
        options.Validate();
        ClusterGeometry geometry = options.Geometry;
        if (options.VirtualBytes > long.MaxValue - geometry.BytesPerL2Table)
            throw TooLarge();
        long virtualBytes = (options.VirtualBytes + SectorBytes - 1) & ~(SectorBytes - 1L);
        long l1EntryCount = geometry.L1EntryCount(virtualBytes);
        if (l1EntryCount * sizeof(ulong) > ClusterGeometry.MaxL1Bytes)
            throw TooLarge();
        // With a raw data file the metadata says what the file alone would say: all of it is data.
        bool isPreallocated = options.Preallocation != Preallocation.Off || options.DataFileRaw;
        long dataClusterCount = isPreallocated ? geometry.ClusterCount(virtualBytes) : 0;
        LuksKeys? keys = options.Encryption?.CreateKeys();
        long keyClusterCount = geometry.ClusterCount(keys?.Area.Length ?? 0);
        var layout = InitialLayout.Plan(geometry, l1EntryCount, dataClusterCount, keyClusterCount);
        Header header = DescribeImage(options, geometry, virtualBytes, l1EntryCount, layout.RefcountTableClusters);
        return new Plan(header, layout, dataClusterCount, options.Preallocation, keys);
    }

    /// <summary>A data file that is made here goes again when the image can't be made; one that was there stays.</summary>
    private static async Task<Header> CreateWithDataFileAsync(string path, string dataPath, Plan plan)
    {
        if (Path.GetFullPath(path) == Path.GetFullPath(dataPath))
            throw new Qcow2Exception($"'{path}' can't be its own data file");
        bool isNew = false;
        try
        {
            await using var dataFile = LocalBlockFile.OpenOrCreate(dataPath, out isNew);
            await using var file = LocalBlockFile.Create(path);
            return await WriteAsync(file, dataFile, plan);
        }
        catch when (isNew)
        {
            LocalBlockFile.Delete(dataPath);
            throw;
        }
    }

    private static async Task<Header> WriteAsync(IBlockFile file, IBlockFile? dataFile, Plan plan)
    {
        (Header header, InitialLayout layout, long dataClusterCount, Preallocation preallocation, LuksKeys? keys) = plan;
        ClusterGeometry geometry = header.Geometry;
        FilePreallocation.EnsurePossible(file, preallocation);
        await EmptyAsync(file);
        byte[] l1Table = new byte[(long)header.L1EntryCount * sizeof(ulong)];
        await WriteL2TablesAsync(file, header, layout.Place(dataClusterCount), l1Table, preallocation);
        header = header with { L1Table = geometry.OffsetOf(new HostCluster(layout.L1Cluster)) };
        if (keys is not null)
            header = await WriteKeysAsync(file, header, geometry.OffsetOf(new HostCluster(layout.PlaceKeys())), keys);
        byte[] headerCluster = new byte[geometry.ClusterBytes];
        header.WriteTo(headerCluster);
        long fileBytes = dataClusterCount > 0 || header.L1EntryCount == 0 || keys is not null
            ? layout.EndCluster << geometry.ClusterBits : EndOfL1Table(layout, geometry, header);
        if (fileBytes > file.LengthBytes)
            await file.SetLengthAsync(fileBytes);
        if (dataClusterCount > 0 || file.IsDevice)
            await file.WriteAsync(header.L1Table.Bytes, l1Table);
        await WriteRefcountsAsync(file, geometry, layout);
        await file.FlushAsync();
        if (dataFile is not null)
        {
            await EmptyAsync(dataFile);
            await FilePreallocation.RunAsync(dataFile, 0, header.VirtualBytes, preallocation);
            await dataFile.FlushAsync();
        }
        await file.WriteAsync(0, headerCluster);
        await file.FlushAsync();
        return header;
    }

    /// <summary>Empties a file. A device loses the header that it may have: nothing must go by it while its tables are overwritten.</summary>
    private static async ValueTask EmptyAsync(IBlockFile file)
    {
        if (!file.IsDevice)
        {
            await file.SetLengthAsync(0);
            return;
        }
        await file.WriteAsync(0, new byte[Math.Min(ClearedBytes, file.LengthBytes)]);
        await file.FlushAsync();
    }

    /// <summary>Writes keys and wipes them from memory; returns the header that leads to them.</summary>
    private static async Task<Header> WriteKeysAsync(IBlockFile file, Header header, HostOffset start, LuksKeys keys)
    {
        using (keys)
            await file.WriteAsync(start.Bytes, keys.Area);
        HeaderExtension extension = new EncryptionHeader(start, keys.Area.Length).ToExtension();
        return header with { Extensions = [.. header.Extensions.Where(other => other.Type != extension.Type), extension] };
    }

    internal static Qcow2Exception TooLarge() =>
        new("The image size is too large for file format 'qcow2' (try using a larger cluster size)");

    private static Header DescribeImage(
        CreateOptions options, ClusterGeometry geometry, long virtualBytes, long l1EntryCount, long refcountTableClusters)
    {
        var extensions = new List<HeaderExtension>();
        if (options.BackingFormat is not null)
            extensions.Add(HeaderExtension.BackingFormat(options.BackingFormat));
        if (options.DataFile is not null)
            extensions.Add(HeaderExtension.DataFile(options.DataFile));
        if (options.Encryption?.Method == EncryptionMethod.Luks)
            extensions.Add(default(EncryptionHeader).ToExtension()); // its place is known later
        var header = new Header
        {
            Version = options.Version,
            Encryption = options.Encryption?.Method ?? EncryptionMethod.None,
            Geometry = geometry,
            VirtualBytes = virtualBytes,
            L1EntryCount = (int)l1EntryCount,
            RefcountTable = geometry.OffsetOf(new HostCluster(1)),
            RefcountTableClusters = (int)refcountTableClusters,
            Incompatible = options.Features,
            Autoclear = options.DataFileRaw ? AutoclearFeatures.RawExternalData : AutoclearFeatures.None,
            CompressionType = options.CompressionType,
            Compatible = options.LazyRefcounts ? CompatibleFeatures.LazyRefcounts : CompatibleFeatures.None,
            HeaderBytes = options.Version >= 3 ? Header.Version3Bytes : Header.Version2Bytes,
            BackingFile = options.BackingFile,
            Extensions = extensions,
        }.WithFeatureNames();
        header.WriteTo(new byte[geometry.ClusterBytes]); // refuses what does not fit, before the file is touched
        return header;
    }

    /// <summary>The file ends with the L1 table's last entry, or with the last refcount block behind it.</summary>
    private static long EndOfL1Table(InitialLayout layout, ClusterGeometry geometry, Header header)
    {
        long tableEnd = header.L1Table.Bytes + ((long)header.L1EntryCount * sizeof(ulong));
        bool isLast = layout.L1Cluster + geometry.ClusterCount((long)header.L1EntryCount * sizeof(ulong)) == layout.EndCluster;
        return isLast ? tableEnd : layout.EndCluster << geometry.ClusterBits;
    }

    private static async Task WriteL2TablesAsync(
        IBlockFile file, Header header, IEnumerable<L2Placement> placements, byte[] l1Table, Preallocation preallocation)
    {
        ClusterGeometry geometry = header.Geometry;
        // Zeros in the file are not zeros of an encrypted disk. QEMU lets it read as what they decipher to, as does version 2 here.
        bool saysZero = header.Encryption != EncryptionMethod.None && header.Version >= 3
            && !header.Autoclear.HasFlag(AutoclearFeatures.RawExternalData);
        byte[] table = new byte[geometry.ClusterBytes];
        long tableCluster = 0;
        foreach (L2Placement run in placements)
        {
            if (run.Table != tableCluster)
            {
                await WriteTableAsync();
                tableCluster = run.Table;
                var l1Entry = L1Entry.To(geometry.OffsetOf(new HostCluster(run.Table)), copied: true);
                BinaryPrimitives.WriteUInt64BigEndian(l1Table.AsSpan((int)run.L1Index * sizeof(ulong)), l1Entry.Raw);
            }
            if (!geometry.HasExternalData)
                await FilePreallocation.RunAsync(file, run.FirstData << geometry.ClusterBits, (long)run.Count << geometry.ClusterBits, preallocation);
            for (int i = 0; i < run.Count; i++)
            {
                var entry = L2Entry.Data(geometry.OffsetOf(new HostCluster(run.FirstData + i)), copied: true);
                (saysZero ? entry.WithZero(geometry) : entry).WriteTo(table, run.FirstEntry + i, geometry);
            }
        }
        await WriteTableAsync();

        async ValueTask WriteTableAsync()
        {
            if (tableCluster != 0)
                await file.WriteAsync(tableCluster << geometry.ClusterBits, table);
            Array.Clear(table);
        }
    }

    private static async Task WriteRefcountsAsync(IBlockFile file, ClusterGeometry geometry, InitialLayout layout)
    {
        byte[] table = new byte[layout.RefcountTableClusters << geometry.ClusterBits];
        byte[] block = new byte[geometry.ClusterBytes];
        foreach ((long index, long cluster) in layout.RefcountBlocks)
        {
            HostOffset offset = geometry.OffsetOf(new HostCluster(cluster));
            BinaryPrimitives.WriteUInt64BigEndian(
                table.AsSpan((int)index * sizeof(ulong)), RefcountTableEntry.To(offset).Raw);
            long used = Math.Clamp(
                layout.EndCluster - (index << geometry.RefcountBlockBits), 0, geometry.RefcountBlockEntryCount);
            Array.Clear(block);
            for (int i = 0; i < used; i++)
                RefcountBlock.Set(block, geometry.RefcountOrder, i, 1);
            await file.WriteAsync(offset.Bytes, block);
        }
        for (int at = 0; at < table.Length; at += ChunkBytes)
            await file.WriteAsync(geometry.ClusterBytes + at, table.AsMemory(at, Math.Min(ChunkBytes, table.Length - at)));
    }
}
