namespace OrleansDisk.Cli.Opening.Blkdebug;

/// <summary>The names of QEMU's blkdebug events, and which of them happen here.</summary>
internal static class BlkdebugEvents
{
    public const string L1Update = "l1_update";
    public const string L2Load = "l2_load";
    public const string L2Update = "l2_update";
    public const string L2AllocWrite = "l2_alloc_write";
    public const string ReadAio = "read_aio";
    public const string WriteAio = "write_aio";
    public const string RefblockLoad = "refblock_load";
    public const string RefblockUpdate = "refblock_update_part";
    public const string RefblockAllocWrite = "refblock_alloc_write";
    public const string RefblockAllocHookup = "refblock_alloc_hookup";
    public const string FlushToOs = "flush_to_os";
    public const string FlushToDisk = "flush_to_disk";
    public const string CopyOnReadWrite = "cor_write";
    public const string WriteVector = "pwritev";
    public const string WriteZero = "pwritev_zero";
    public const string WriteDone = "pwritev_done";
    public const string None = "none";

    private static readonly HashSet<string> _names = new(StringComparer.Ordinal)
    {
        L1Update, "l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table", L2Load, L2Update, "l2_update_compressed",
        "l2_alloc_cow_read", L2AllocWrite, ReadAio, "read_backing_aio", "read_compressed", WriteAio, "write_compressed",
        "vmstate_load", "vmstate_save", "cow_read", "cow_write", "reftable_load", "reftable_grow", "reftable_update", RefblockLoad,
        "refblock_update", RefblockUpdate, "refblock_alloc", RefblockAllocHookup, RefblockAllocWrite,
        "refblock_alloc_write_blocks", "refblock_alloc_write_table", "refblock_alloc_switch_table", "cluster_alloc",
        "cluster_alloc_bytes", "cluster_free", FlushToOs, FlushToDisk, "pwritev_rmw_head", "pwritev_rmw_after_head",
        "pwritev_rmw_tail", "pwritev_rmw_after_tail", WriteVector, WriteZero, WriteDone, "empty_image_prepare",
        "l1_shrink_write_table", "l1_shrink_free_l2_clusters", CopyOnReadWrite, "cluster_alloc_space", None,
    };

    public static bool Exists(string name) => _names.Contains(name);
}
