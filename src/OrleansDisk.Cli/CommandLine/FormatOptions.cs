using System.Text;

namespace OrleansDisk.Cli.CommandLine;

/// <summary>An option that -o takes.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Type">What its value is: str, size, num or bool (on/off).</param>
/// <param name="Help">What -o help says of it, in qemu-img's words.</param>
internal sealed record FormatOption(string Name, string Type, string Help);

/// <summary>The options of formats, as qemu-img lists them.</summary>
internal static class FormatOptions
{
    private const string Bool = "bool (on/off)";
    private const string Preallocation = "preallocation";
    private const string FilePreallocation = "Preallocation mode (allowed values: off, falloc, full)";

    private static readonly FormatOption[] _common =
    [
        new("backing_file", "str", "File name of a base image"),
        new("backing_fmt", "str", "Image format of the base image"),
        new("compat", "str", "Compatibility level (v2 [0.10] or v3 [1.1])"),
        new("data_file", "str", "File name of an external data file"),
        new("data_file_raw", Bool, "The external data file must stay valid as a raw image"),
        IterationTime("encrypt."),
        new("lazy_refcounts", Bool, "Postpone refcount updates"),
        new("refcount_bits", "num", "Width of a reference count entry in bits"),
        new("size", "size", "Virtual disk size"),
    ];

    /// <summary>What an image in a file of its own may be given besides.</summary>
    private static readonly FormatOption[] _file =
    [
        new("extent_size_hint", "size", "Extent size hint for the image file, 0 to disable"),
        new("nocow", Bool, "Turn off copy-on-write (valid only on btrfs)"),
    ];

    public static IReadOnlyList<FormatOption> CreateQcow2 { get; } = Sorted(
    [
        .. _common,
        new("cluster_size", "size", "qcow2 cluster size"),
        new("compression_type", "str", "Compression method used for image cluster compression"),
        .. NewKeys("encrypt."),
        new("encrypt.format", "str", "Encrypt the image, format choices: 'aes', 'luks'"),
        new("encrypt.key-secret", "str", "ID of secret providing qcow AES key or LUKS passphrase"),
        new("encryption", Bool, "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"),
        new("extended_l2", Bool, "Extended L2 tables"),
        new(Preallocation, "str", "Preallocation mode (allowed values: off, metadata, falloc, full)"),
    ]);

    public static IReadOnlyList<FormatOption> AmendLuks { get; } = Sorted([.. KeySlots(""), IterationTime("")]);

    public static IReadOnlyList<FormatOption> CreateLuks { get; } = Sorted(
    [
        .. NewKeys(""),
        IterationTime(""),
        new("key-secret", "str", "ID of the secret that provides the keyslot passphrase"),
        new(Preallocation, "str", FilePreallocation),
        new("size", "size", "Virtual disk size"),
    ]);

    public static IReadOnlyList<FormatOption> CreateRaw { get; } = Sorted(
    [
        new(Preallocation, "str", FilePreallocation),
        new("size", "size", "Virtual disk size"),
    ]);

    public static IReadOnlyList<FormatOption> AmendQcow2 { get; } = Sorted(
    [
        .. _common,
        .. KeySlots("encrypt."),
    ]);

    /// <summary>The options for a new image of a format.</summary>
    public static IReadOnlyList<FormatOption> Create(string format) => format switch
    {
        "qcow2" => CreateQcow2,
        "luks" => CreateLuks,
        _ => CreateRaw,
    };

    /// <summary>What -o help says of a new image.</summary>
    /// <param name="format">Its format.</param>
    /// <param name="hasFile">Whether its file is known, and with it what files take besides.</param>
    public static string CreateHelp(string format, bool hasFile) => hasFile
        ? $"Supported options:\n{Describe(InFile(Create(format)))}"
        : $"Supported {format} options:\n{Describe(Create(format).Where(option => format == "qcow2" || option.Name != Preallocation))}\n"
            + "The protocol level may support further options.\nSpecify the target filename to include those options.\n";

    /// <summary>The options of a format whose image lies in a file.</summary>
    public static IReadOnlyList<FormatOption> InFile(IReadOnlyList<FormatOption> format) => Sorted([.. format, .. _file]);

    /// <summary>One line for each option.</summary>
    public static string Describe(IEnumerable<FormatOption> options)
    {
        var text = new StringBuilder();
        foreach (FormatOption option in options)
            text.Append($"  {option.Name}=<{option.Type}>".PadRight(24)).Append(" - ").Append(option.Help).Append('\n');
        return text.ToString();
    }

    private static FormatOption IterationTime(string prefix) => new(prefix + "iter-time", "num", "Time to spend in PBKDF in milliseconds");

    private static FormatOption[] NewKeys(string prefix) =>
    [
        new(prefix + "cipher-alg", "str", "Name of encryption cipher algorithm"),
        new(prefix + "cipher-mode", "str", "Name of encryption cipher mode"),
        new(prefix + "hash-alg", "str", "Name of encryption hash algorithm"),
        new(prefix + "ivgen-alg", "str", "Name of IV generator algorithm"),
        new(prefix + "ivgen-hash-alg", "str", "Name of IV generator hash algorithm"),
    ];

    private static FormatOption[] KeySlots(string prefix) =>
    [
        new(prefix + "keyslot", "num", "Select a single keyslot to modify explicitly"),
        new(prefix + "new-secret", "str", "New secret to set in the matching keyslots. Empty string to erase"),
        new(prefix + "old-secret", "str", "Select all keyslots that match this password"),
        new(prefix + "state", "str", "Select new state of affected keyslots (active/inactive)"),
    ];

    private static FormatOption[] Sorted(FormatOption[] options) => [.. options.OrderBy(option => option.Name, StringComparer.Ordinal)];
}
