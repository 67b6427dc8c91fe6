namespace OrleansDisk.Server.Configuration;

/// <summary>The command line is wrong; the message says where.</summary>
internal sealed class UsageException(string message) : Exception(message);

/// <summary>The command line of odiskd: every option is another way to write a setting.</summary>
internal sealed class CommandLine
{
    public const string Help = """
        usage: odiskd [OPTION...]
        Serves the qcow2 images of its pools to NBD clients, each image as export POOL/IMAGE.

          --pool NAME=DIRECTORY            a directory of images (NAME.qcow2); may be repeated
          --read-only-pool NAME=DIRECTORY  the same, for images that are only ever read
          --export NAME=POOL/IMAGE         another name for an image; may be repeated
          --read-only-export NAME=POOL/IMAGE
          --bitmap NAME=BITMAP             export NAME tells of this bitmap of its image; may be repeated
          --unix PATH                      listen on a unix socket; may be repeated
          --tcp HOST:PORT                  listen on TCP; may be repeated; without HOST on every interface
          --config FILE                    settings in JSON
          --set SETTING=VALUE              any setting, for example --set IdleTime=00:10:00
          --help, --version

        Settings come from appsettings.json beside the program, FILE, the environment (ODISKD_Pools__vm__Directory=/srv/vm)
        and the command line; what comes later counts. docs/daemon.md lists them.
        SIGTERM and SIGINT: answers what was received, flushes and closes every image, ends with 0.
        Exit codes: 64 usage, 69 address not available, 70 internal fault, 74 an image could not be closed cleanly,
        78 configuration.
        """;

    private readonly Dictionary<string, string?> _settings = new(StringComparer.OrdinalIgnoreCase);
    private int _listedCount;

    private CommandLine() { }

    public bool WantsHelp { get; private set; }

    public bool WantsVersion { get; private set; }

    public string? ConfigurationFile { get; private set; }

    /// <summary>What the options say, by the names of the settings.</summary>
    public IReadOnlyDictionary<string, string?> Settings => _settings;

    /// <exception cref="UsageException">An option is unknown, or its value is missing or malformed.</exception>
    public static CommandLine Parse(IReadOnlyList<string> arguments)
    {
        var parsed = new CommandLine();
        for (int i = 0; i < arguments.Count; i++)
        {
            string option = arguments[i];
            if (!option.StartsWith("--", StringComparison.Ordinal))
            {
                if (option is not "-h")
                    throw new UsageException($"'{option}' is no option");
                option = "--help";
            }
            string? value = null;
            if (option.IndexOf('=', StringComparison.Ordinal) is >= 0 and var equals)
                (option, value) = (option[..equals], option[(equals + 1)..]);
            if (option is "--help" or "--version")
            {
                if (value is not null)
                    throw new UsageException($"{option} has no value");
                parsed.WantsHelp |= option == "--help";
                parsed.WantsVersion |= option == "--version";
                continue;
            }
            parsed.Take(option, () => value ?? (++i < arguments.Count
                ? arguments[i] : throw new UsageException($"{option} needs a value")));
        }
        return parsed;
    }

    private void Take(string option, Func<string> value)
    {
        switch (option)
        {
            case "--pool" or "--read-only-pool":
                TakePair(option, value(), "NAME=DIRECTORY", "Pools", "Directory");
                break;
            case "--export" or "--read-only-export":
                TakePair(option, value(), "NAME=POOL/IMAGE", "Exports", "Image");
                break;
            case "--bitmap":
                (string export, string bitmap) = Split(option, value(), "NAME=BITMAP");
                _settings[$"Exports:{export}:Bitmaps:option{_listedCount++}"] = bitmap;
                break;
            case "--unix":
                _settings[$"Listen:Unix:option{_listedCount++}"] = value();
                break;
            case "--tcp":
                _settings[$"Listen:Tcp:option{_listedCount++}"] = value();
                break;
            case "--config":
                ConfigurationFile = value();
                break;
            case "--set":
                (string setting, string text) = Split(option, value(), "SETTING=VALUE");
                _settings[setting] = text;
                break;
            default:
                throw new UsageException($"there is no option {option}");
        }
    }

    private void TakePair(string option, string text, string form, string section, string setting)
    {
        (string name, string value) = Split(option, text, form);
        if (!_settings.TryAdd($"{section}:{name}:{setting}", value))
            throw new UsageException($"{option} {text}: '{name}' is given twice");
        if (option.StartsWith("--read-only", StringComparison.Ordinal))
            _settings[$"{section}:{name}:ReadOnly"] = "true";
    }

    private static (string Name, string Value) Split(string option, string text, string form)
    {
        int equals = text.IndexOf('=', StringComparison.Ordinal);
        if (equals <= 0 || equals == text.Length - 1)
            throw new UsageException($"{option} {text}: the value is {form}");
        return (text[..equals], text[(equals + 1)..]);
    }
}
