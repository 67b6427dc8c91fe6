using System.Globalization;
using Microsoft.Extensions.Configuration;

namespace OrleansDisk.Server.Configuration;

/// <summary>Reads the settings of one section, and refuses those that it was not asked for.</summary>
internal sealed class SettingsReader(IConfiguration section, string path)
{
    private readonly HashSet<string> _known = new(StringComparer.OrdinalIgnoreCase);

    public string NameOf(string setting) => path.Length == 0 ? setting : $"{path}:{setting}";

    public string? Text(string setting)
    {
        _known.Add(setting);
        IConfigurationSection found = section.GetSection(setting);
        if (found.GetChildren().Any())
            throw new ConfigurationException(NameOf(setting), "one value is expected");
        return found.Value;
    }

    public bool Flag(string setting, bool otherwise) => Text(setting) switch
    {
        null or "" => otherwise,
        var text when bool.TryParse(text, out bool value) => value,
        var text => throw new ConfigurationException(NameOf(setting), $"'{text}' is neither true nor false"),
    };

    public long Number(string setting, long otherwise, long least, long most)
    {
        if (Text(setting) is not { Length: > 0 } text)
            return otherwise;
        if (!long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long value) || value < least || value > most)
            throw new ConfigurationException(NameOf(setting), $"'{text}' is no number from {least} to {most}");
        return value;
    }

    public TimeSpan Time(string setting, TimeSpan otherwise, TimeSpan least)
    {
        var most = TimeSpan.FromDays(1);
        if (Text(setting) is not { Length: > 0 } text)
            return otherwise;
        // A plain number would be days.
        if (!text.Contains(':', StringComparison.Ordinal) || !TimeSpan.TryParse(text, CultureInfo.InvariantCulture, out TimeSpan value)
            || value < least || value > most)
        {
            throw new ConfigurationException(NameOf(setting), $"'{text}' is no time from {least} to {most} (hh:mm:ss)");
        }
        return value;
    }

    /// <summary>One value or a list of them, in the order of the configuration.</summary>
    public IReadOnlyList<string> Texts(string setting)
    {
        _known.Add(setting);
        IConfigurationSection found = section.GetSection(setting);
        var texts = new List<string>();
        if (!string.IsNullOrEmpty(found.Value))
            texts.Add(found.Value);
        foreach (IConfigurationSection one in found.GetChildren())
        {
            if (string.IsNullOrEmpty(one.Value))
                throw new ConfigurationException(one.Path, "it is empty");
            texts.Add(one.Value);
        }
        return texts;
    }

    /// <summary>The sections below a setting, by their names.</summary>
    public IEnumerable<(string Name, SettingsReader Settings)> Sections(string setting)
    {
        _known.Add(setting);
        IConfigurationSection found = section.GetSection(setting);
        if (!string.IsNullOrEmpty(found.Value))
            throw new ConfigurationException(NameOf(setting), "a section is expected, not a value");
        foreach (IConfigurationSection one in found.GetChildren())
        {
            if (one.Value is not null)
                throw new ConfigurationException(one.Path, "a section is expected, not a value");
            yield return (one.Key, new SettingsReader(one, one.Path));
        }
    }

    /// <summary>The section below a setting; empty when there is none.</summary>
    public SettingsReader Section(string setting)
    {
        _known.Add(setting);
        return new SettingsReader(section.GetSection(setting), NameOf(setting));
    }

    /// <summary>Leaves a section to others.</summary>
    public void Skip(string setting) => _known.Add(setting);

    /// <summary>Every setting must have been asked for: a misspelt one is not silently without effect.</summary>
    public void MustEnd()
    {
        foreach (IConfigurationSection one in section.GetChildren())
        {
            if (!_known.Contains(one.Key))
                throw new ConfigurationException(NameOf(one.Key), "there is no such setting");
        }
    }
}
