using System.Text;
using OrleansDisk.Cli.CommandLine;

namespace OrleansDisk.Cli.Opening;

/// <summary>What --object gave: secrets, by their ids.</summary>
internal sealed class Secrets
{
    private readonly Dictionary<string, byte[]> _values = new(StringComparer.Ordinal);

    /// <summary>Takes all definitions of a command line: "secret,id=sec0,data=...|file=...,format=raw|base64".</summary>
    /// <exception cref="CommandFailedException">A definition can't be had.</exception>
    public static Secrets Parse(IEnumerable<string> definitions)
    {
        var secrets = new Secrets();
        foreach (string definition in definitions)
            secrets.Add(BlockOptionText.ParseList(definition, "qom-type"));
        return secrets;
    }

    /// <summary>The bytes of a secret.</summary>
    /// <exception cref="CommandFailedException">There is none of that id.</exception>
    public byte[] Find(string id) =>
        _values.TryGetValue(id, out byte[]? value) ? value : throw new CommandFailedException($"No secret with id '{id}'");

    private void Add(BlockOptions options)
    {
        string type = options.Take("qom-type") ?? throw new CommandFailedException("Parameter 'qom-type' is missing");
        if (type != "secret")
            throw new CommandFailedException($"Parameter 'qom-type' does not accept value '{type}'");
        string id = options.Take("id") ?? throw new CommandFailedException("Parameter 'id' is missing");
        string? data = options.Take("data");
        string? file = options.Take("file");
        string format = options.Take("format") ?? "raw";
        if (options.Names.FirstOrDefault() is { } unknown)
            throw new CommandFailedException($"Parameter '{unknown}' is unexpected");
        if (data is not null && file is not null)
            throw new CommandFailedException("'file' and 'data' are mutually exclusive");
        byte[] bytes = data is not null ? Encoding.UTF8.GetBytes(data) : file is not null ? ReadFile(file)
            : throw new CommandFailedException("Must provide 'file' or 'data'");
        if (!_values.TryAdd(id, Decode(bytes, format)))
            throw new CommandFailedException($"attempt to add duplicate property '{id}' to object (type 'container')");
    }

    private static byte[] ReadFile(string path)
    {
        try
        {
            return File.ReadAllBytes(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandFailedException($"Unable to read {path}: {e.Message}");
        }
    }

    private static byte[] Decode(byte[] bytes, string format)
    {
        switch (format)
        {
            case "raw":
                return bytes;
            case "base64":
                byte[] decoded = new byte[bytes.Length];
                return Convert.TryFromBase64String(Encoding.UTF8.GetString(bytes), decoded, out int length) ? decoded[..length]
                    : throw new CommandFailedException("Base64 data is not valid");
            default:
                throw new CommandFailedException($"Parameter 'format' does not accept value '{format}'");
        }
    }
}
