using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Io;

namespace OrleansDisk.Cli.Opening;

/// <summary>Which disk is to be opened, and how.</summary>
internal sealed record DiskRequest
{
    /// <summary>The name that was given: a path, json:{...}, nbd://..., blkdebug:...; null when options say it all.</summary>
    public string? Name { get; init; }

    /// <summary>Whether the options came as JSON, which has a null of its own.</summary>
    public bool IsJson => Name is not null && BlockOptionText.IsJson(Name);

    /// <summary>The options of the block drivers; they are copied before they are used up.</summary>
    public BlockOptions Options { get; init; } = new();

    /// <summary>What messages call the disk: the name, or the list of options that was given in its place.</summary>
    public string DisplayName { get; init; } = "";

    public ImageAccess Access { get; init; } = ImageAccess.Read;

    public CacheMode Cache { get; init; }

    /// <summary>Whether discarded space goes back to the host.</summary>
    public bool PassDiscard { get; init; } = true;

    /// <summary>Whether what lies below the image is opened too.</summary>
    public bool WithBacking { get; init; } = true;

    /// <summary>The internal snapshot that is read in place of the image's disk, or null.</summary>
    public SnapshotSelector? Snapshot { get; init; }

    /// <summary>Which layer below the image is opened for writing: 1 is its backing file. 0: none is.</summary>
    public int WritableDepth { get; init; }

    /// <summary>Whether what is read from below is kept in the image.</summary>
    public bool CopyOnRead { get; init; }

    /// <summary>Whether what is written goes to a file that nobody sees and that is gone at the end.</summary>
    public bool IsTemporary { get; init; }

    public Secrets Secrets { get; init; } = new();

    /// <summary>The same disk, opened even while someone writes it.</summary>
    public DiskRequest Sharing()
    {
        BlockOptions options = Options.Copy();
        if (options["force-share"] is { } given and not "on")
            throw new CommandFailedException($"-U conflicts with image options (force-share={given})");
        options["force-share"] = "on";
        return this with { Options = options };
    }

    /// <summary>A disk of a command line: its operand, its --image-opts and its format.</summary>
    /// <param name="operand">The name, or with <paramref name="isOptionList"/> the list of options.</param>
    /// <param name="isOptionList">Whether --image-opts was given.</param>
    /// <param name="format">The format, or null to find out.</param>
    public static DiskRequest Of(string operand, bool isOptionList, string? format)
    {
        if (isOptionList)
        {
            if (format is not null)
                throw new CommandLineException("--image-opts and --format are mutually exclusive", showsHelpHint: false);
            return new DiskRequest { Options = BlockOptionText.ParseList(operand, firstName: null), DisplayName = operand };
        }
        var options = new BlockOptions();
        if (format is not null)
            options["driver"] = format;
        return new DiskRequest { Name = operand, Options = options, DisplayName = operand };
    }
}
