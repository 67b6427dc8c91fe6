using System.Text;
using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Nbd.Tls;

namespace OrleansDisk.Cli.Opening;

/// <summary>What --object gave: secrets and TLS credentials, by their ids.</summary>
internal sealed class Secrets
{
    private readonly Dictionary<string, byte[]> _values = new(StringComparer.Ordinal);
    private readonly Dictionary<string, NbdTlsCredentials> _credentials = new(StringComparer.Ordinal);

    /// <summary>
    /// Takes all definitions of a command line: "secret,id=sec0,data=...|file=...,format=raw|base64" and
    /// "tls-creds-x509,id=tls0,dir=...,endpoint=client|server,verify-peer=yes|no".
    /// </summary>
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

    /// <summary>TLS credentials for one side of a connection.</summary>
    /// <exception cref="CommandFailedException">There are none of that id, or they are for the other side.</exception>
    public NbdTlsCredentials FindTls(string id, bool isServer)
    {
        if (!_credentials.TryGetValue(id, out NbdTlsCredentials? credentials))
            throw new CommandFailedException($"No TLS credentials with id '{id}'");
        return credentials.IsServer == isServer ? credentials
            : throw new CommandFailedException($"Expecting TLS credentials with a {(isServer ? "server" : "client")} endpoint");
    }

    private void Add(BlockOptions options)
    {
        string type = options.Take("qom-type") ?? throw new CommandFailedException("Parameter 'qom-type' is missing");
        if (type is not ("secret" or "tls-creds-x509"))
        {
            throw new CommandFailedException(type is "tls-creds-psk" or "tls-creds-anon"
                ? $"TLS credentials of the type '{type}' are not supported; use tls-creds-x509"
                : $"Parameter 'qom-type' does not accept value '{type}'");
        }
        string id = options.Take("id") ?? throw new CommandFailedException("Parameter 'id' is missing");
        if (_values.ContainsKey(id) || _credentials.ContainsKey(id))
            throw new CommandFailedException($"attempt to add duplicate property '{id}' to object (type 'container')");
        if (type == "secret")
            AddSecret(id, options);
        else
            AddTls(id, options);
    }

    private void AddTls(string id, BlockOptions options)
    {
        string directory = options.Take("dir") ?? throw new CommandFailedException("Missing 'dir' property value");
        string endpoint = options.Take("endpoint") ?? "client";
        bool verifiesPeer = options.TakeSwitch("verify-peer") ?? true;
        _ = options.TakeSwitch("sanity-check");
        if (endpoint is not ("client" or "server"))
            throw new CommandFailedException($"Parameter 'endpoint' does not accept value '{endpoint}'");
        if (options.Names.FirstOrDefault() is { } unknown)
            throw new CommandFailedException($"Property 'tls-creds-x509.{unknown}' not found or not supported");
        try
        {
            _credentials.Add(id, new NbdTlsCredentials(directory, endpoint == "server", verifiesPeer));
        }
        catch (IOException e)
        {
            throw new CommandFailedException(e.Message);
        }
    }

    private void AddSecret(string id, BlockOptions options)
    {
        string? data = options.Take("data");
        string? file = options.Take("file");
        string format = options.Take("format") ?? "raw";
        if (options.Names.FirstOrDefault() is { } unknown)
            throw new CommandFailedException($"Parameter '{unknown}' is unexpected");
        if (data is not null && file is not null)
            throw new CommandFailedException("'file' and 'data' are mutually exclusive");
        byte[] bytes = data is not null ? Encoding.UTF8.GetBytes(data) : file is not null ? ReadFile(file)
            : throw new CommandFailedException("Must provide 'file' or 'data'");
        _values.Add(id, Decode(bytes, format));
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
