using System.Diagnostics.CodeAnalysis;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Opening;

/// <summary>
/// The options by which a disk is opened, flat as QEMU names them: "driver", "file.filename", "backing.file.filename".
/// Whoever uses an option takes it; what is left at the end, nobody knows.
/// </summary>
internal sealed class BlockOptions
{
    private readonly Dictionary<string, string> _values;

    public BlockOptions() => _values = new Dictionary<string, string>(StringComparer.Ordinal);

    private BlockOptions(Dictionary<string, string> values) => _values = values;

    public bool IsEmpty => _values.Count == 0;

    public IEnumerable<string> Names => _values.Keys;

    public string? this[string name]
    {
        get => _values.GetValueOrDefault(name);
        set => _values[name] = value!;
    }

    public BlockOptions Copy() => new(new Dictionary<string, string>(_values, StringComparer.Ordinal));

    /// <summary>Sets all that another set of options has.</summary>
    public void Merge(BlockOptions other)
    {
        foreach ((string name, string value) in other._values)
            _values[name] = value;
    }

    public bool Has(string name) => _values.ContainsKey(name);

    /// <summary>Whether there is an option of a child: its name and a dot at the start.</summary>
    public bool HasChild(string child) => _values.Keys.Any(name => name.StartsWith(child + ".", StringComparison.Ordinal));

    public bool TryTake(string name, [NotNullWhen(true)] out string? value) => _values.Remove(name, out value);

    public string? Take(string name) => _values.Remove(name, out string? value) ? value : null;

    /// <summary>on or off, in QEMU's spellings, or null when it is not given.</summary>
    public bool? TakeSwitch(string name) => Take(name) switch
    {
        null => null,
        "on" or "yes" or "true" or "y" => true,
        "off" or "no" or "false" or "n" => false,
        _ => throw new CommandFailedException($"Parameter '{name}' expects 'on' or 'off'"),
    };

    /// <summary>A size in bytes with its suffix, or null when it is not given.</summary>
    public long? TakeSize(string name)
    {
        if (!TryTake(name, out string? text))
            return null;
        return ByteSize.TryParse(text, out ulong bytes) switch
        {
            ByteSizeResult.Ok when bytes <= long.MaxValue => (long)bytes,
            ByteSizeResult.NotANumber => throw new CommandFailedException(
                $"Parameter '{name}' expects a non-negative number below 2^64\n"
                + "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."),
            _ => throw new CommandFailedException($"Value '{text}' is out of range for parameter '{name}'"),
        };
    }

    /// <summary>Takes all options of a child, under their names without the child's.</summary>
    public BlockOptions TakeChild(string child)
    {
        var taken = new BlockOptions();
        string prefix = child + ".";
        foreach (string name in _values.Keys.Where(name => name.StartsWith(prefix, StringComparison.Ordinal)).ToList())
            taken[name[prefix.Length..]] = Take(name)!;
        return taken;
    }

    /// <summary>Takes all that is left.</summary>
    public IReadOnlyDictionary<string, string> TakeAll()
    {
        var taken = new Dictionary<string, string>(_values, StringComparer.Ordinal);
        _values.Clear();
        return taken;
    }

    /// <summary>Refuses what is left, in QEMU's words for the driver of a format.</summary>
    public void RefuseRestOfFormat(string driver)
    {
        if (!IsEmpty)
            throw new CommandFailedException($"Block format '{driver}' does not support the option '{_values.Keys.First()}'");
    }

    /// <summary>Refuses what is left, in QEMU's words for the driver of a protocol.</summary>
    public void RefuseRestOfProtocol(string driver)
    {
        if (!IsEmpty)
            throw new CommandFailedException($"Block protocol '{driver}' doesn't support the option '{_values.Keys.First()}'");
    }
}
