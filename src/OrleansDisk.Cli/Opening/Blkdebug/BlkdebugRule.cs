namespace OrleansDisk.Cli.Opening.Blkdebug;

/// <summary>What is done with a file, as rules tell it apart.</summary>
[Flags]
internal enum BlkdebugIoTypes
{
    None = 0,
    Read = 1,
    Write = 2,
    WriteZeroes = 4,
    Discard = 8,
    Flush = 16,
    BlockStatus = 32,

    /// <summary>What a rule means that names none.</summary>
    Default = Read | Write | WriteZeroes | Discard | Flush,
}

/// <summary>What happens when an event does.</summary>
internal sealed record BlkdebugRule(string Event)
{
    /// <summary>The state in which the rule holds; 0 for any.</summary>
    public int State { get; init; }

    /// <summary>The state that the event leads to, or null.</summary>
    public int? NewState { get; init; }

    /// <summary>The tag of the request that stops here, or null.</summary>
    public string? Tag { get; init; }

    /// <summary>The system's error number that requests after the event get; 0 for none.</summary>
    public int ErrorNumber { get; init; }

    /// <summary>Whether only one request gets it.</summary>
    public bool Once { get; init; }

    /// <summary>The byte that a request must touch to get it, or -1.</summary>
    public long Offset { get; init; } = -1;

    public BlkdebugIoTypes IoTypes { get; init; } = BlkdebugIoTypes.Default;

    public bool InjectsError => Tag is null && NewState is null;

    public bool Matches(BlkdebugIoTypes type, long offset, long bytes) => IoTypes.HasFlag(type)
        && (Offset == -1 || (bytes > 0 && Offset >= offset && Offset < offset + bytes));
}
