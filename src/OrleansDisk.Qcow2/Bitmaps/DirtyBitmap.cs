using System.Numerics;
using System.Runtime.InteropServices;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Bitmaps;

/// <summary>
/// One bitmap of an open image. Its bits are what its table on disk says, and those that were set since. They are in memory a
/// page at a time, and a page is what a cluster of the file holds of them. <see cref="Set"/> may be called by any thread; everything
/// else belongs to the image's turns, and what takes bits away to a turn that is alone.
/// </summary>
internal sealed class DirtyBitmap
{
    private const int BitsPerWord = 64;
    private readonly ClusterGeometry _geometry;
    private readonly int _pageBits;

    /// <summary>Pages in memory; null while there is none.</summary>
    private ulong[]?[]? _pages;
    private bool _hasChanged;

    /// <param name="stored">The entry of the directory, or what it is going to be.</param>
    /// <param name="diskBytes">The disk's size.</param>
    /// <param name="geometry">The image's.</param>
    public DirtyBitmap(BitmapEntry stored, long diskBytes, ClusterGeometry geometry)
    {
        (Stored, DiskBytes, _geometry) = (stored, diskBytes, geometry);
        IsInconsistent = stored.Flags.HasFlag(BitmapFlags.InUse);
        IsEnabled = stored.Flags.HasFlag(BitmapFlags.Auto);
        _pageBits = geometry.ClusterBits + 3;
    }

    public string Name => Stored.Name;

    /// <summary>Base-2 logarithm of the bytes that one bit stands for.</summary>
    public int GranularityBits => Stored.GranularityBits;

    public long DiskBytes { get; private set; }

    /// <summary>Whether changes of the disk set bits.</summary>
    public bool IsEnabled { get; set; }

    /// <summary>Whether nobody stored it after its last use: its bits mean nothing, and it can only be removed.</summary>
    public bool IsInconsistent { get; set; }

    /// <summary>The entry as it is on disk; its table's offset is 0 before it was stored at all.</summary>
    public BitmapEntry Stored { get; set; }

    /// <summary>The table on disk once it was read; what of it is to be freed may still be in <see cref="Basis"/>.</summary>
    public BitmapTableEntry[]? StoredTable { get; set; }

    /// <summary>What pages that are not in memory hold; null before the table was read.</summary>
    public BitmapTableEntry[]? Basis { get; set; }

    /// <summary>Whether the bits are others than those on disk.</summary>
    public bool HasChanged => Volatile.Read(ref _hasChanged);

    public int PageCount => (int)_geometry.ClusterCount(BitmapEntry.BitBytes(DiskBytes, GranularityBits));

    /// <summary>Bits of a page that stand for something: fewer than it has at the disk's end.</summary>
    public int BitsOf(int page)
    {
        long bits = (DiskBytes >> GranularityBits) + ((DiskBytes & ((1L << GranularityBits) - 1)) != 0 ? 1 : 0);
        return (int)Math.Min(bits - ((long)page << _pageBits), 1L << _pageBits);
    }

    /// <summary>Sets the bits of a range inside the disk. May be called by any thread.</summary>
    public void Set(long offset, long bytes)
    {
        if (bytes == 0)
            return;
        if (!Volatile.Read(ref _hasChanged))
            Volatile.Write(ref _hasChanged, true);
        long last = (offset + bytes - 1) >> GranularityBits;
        for (long first = offset >> GranularityBits; first <= last;)
        {
            int page = (int)(first >> _pageBits);
            long end = Math.Min(last + 1, (long)(page + 1) << _pageBits);
            int inPage = (int)(first & ((1L << _pageBits) - 1));
            SetBits(PageInMemory(page), inPage, inPage + (int)(end - first));
            first = end;
        }
    }

    /// <summary>A page that is in memory, or null.</summary>
    public ulong[]? Page(int page) => Volatile.Read(ref _pages) is { } pages ? Volatile.Read(ref pages[page]) : null;

    /// <summary>Adds what the file holds of a page to what is in memory; the basis has nothing of it from then on.</summary>
    /// <param name="page">Which one.</param>
    /// <param name="stored">The page's bytes, or empty: all its bits are set.</param>
    public ulong[] Merge(int page, ReadOnlySpan<byte> stored)
    {
        ulong[] words = PageInMemory(page);
        int bits = BitsOf(page);
        if (stored.IsEmpty)
        {
            SetBits(words, 0, bits);
        }
        else
        {
            // Bits past the disk's end mean nothing, whatever the file says.
            ReadOnlySpan<ulong> storedWords = MemoryMarshal.Cast<byte, ulong>(stored);
            for (int word = 0; word * BitsPerWord < bits; word++)
            {
                ulong value = storedWords[word] & MaskOf(0, bits - (word * BitsPerWord));
                if (value != 0)
                    Interlocked.Or(ref words[word], value);
            }
        }
        Basis![page] = BitmapTableEntry.AllZeros;
        return words;
    }

    /// <summary>How many bits from one on are alike, at most <paramref name="maxCount"/>.</summary>
    public static int CountAlike(ulong[] words, int first, int maxCount, out bool isSet)
    {
        isSet = (Volatile.Read(ref words[first / BitsPerWord]) >> (first % BitsPerWord) & 1) != 0;
        int at = first;
        while (at < first + maxCount)
        {
            ulong different = (isSet ? ~Volatile.Read(ref words[at / BitsPerWord]) : Volatile.Read(ref words[at / BitsPerWord])) >> (at % BitsPerWord);
            if (different != 0)
                return Math.Min(maxCount, at + BitOperations.TrailingZeroCount(different) - first);
            at += BitsPerWord - (at % BitsPerWord);
        }
        return maxCount;
    }

    /// <summary>Forgets all bits. The caller is alone.</summary>
    public void Clear()
    {
        _pages = null;
        _hasChanged = true;
        Basis = new BitmapTableEntry[PageCount];
    }

    /// <summary>Follows the disk's size: what is new is clean. The table was read, and the page at the old end too. The caller is alone.</summary>
    public void Resize(long diskBytes)
    {
        ulong[]?[]? pages = _pages;
        DiskBytes = diskBytes;
        BitmapTableEntry[] basis = Basis!;
        Array.Resize(ref basis, PageCount);
        Basis = basis;
        _hasChanged = true;
        if (pages is null)
            return;
        Array.Resize(ref pages, PageCount);
        _pages = pages;
        if (PageCount == 0 || pages[^1] is not { } end)
            return;
        int bits = BitsOf(PageCount - 1);
        for (int word = bits / BitsPerWord; word < end.Length; word++)
            end[word] &= MaskOf(0, bits - (word * BitsPerWord));
    }

    /// <summary>The bits are stored. The caller is alone.</summary>
    /// <param name="entry">The bitmap's entry in the directory.</param>
    /// <param name="table">Its table.</param>
    public void NoteStored(BitmapEntry entry, BitmapTableEntry[] table)
    {
        (Stored, StoredTable, Basis) = (entry, table, [.. table]);
        _pages = null;
        _hasChanged = false;
    }

    /// <summary>A page in memory, made when there is none: then it has the bits that are set from now on.</summary>
    public ulong[] PageInMemory(int page)
    {
        ulong[]?[]? pages = Volatile.Read(ref _pages);
        if (pages is null)
        {
            ulong[]?[] created = new ulong[]?[PageCount];
            pages = Interlocked.CompareExchange(ref _pages, created, null) ?? created;
        }
        if (Volatile.Read(ref pages[page]) is { } words)
            return words;
        ulong[] blank = new ulong[_geometry.ClusterBytes / sizeof(ulong)];
        return Interlocked.CompareExchange(ref pages[page], blank, null) ?? blank;
    }

    /// <summary>Sets bits of a page; a word that has them all is only looked at.</summary>
    private static void SetBits(ulong[] words, int first, int end)
    {
        for (int word = first / BitsPerWord; word * BitsPerWord < end; word++)
        {
            int start = word * BitsPerWord;
            ulong mask = MaskOf(Math.Max(first - start, 0), end - start);
            if ((Volatile.Read(ref words[word]) & mask) != mask)
                Interlocked.Or(ref words[word], mask);
        }
    }

    /// <summary>The bits of a word from one to before another; both may lie outside of it.</summary>
    private static ulong MaskOf(int first, int end)
    {
        if (end <= 0)
            return 0;
        ulong below = end >= BitsPerWord ? ulong.MaxValue : (1UL << end) - 1;
        return below & (ulong.MaxValue << first);
    }
}
