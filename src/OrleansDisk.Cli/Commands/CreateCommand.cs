using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Output;

namespace OrleansDisk.Cli.Commands;

/// <summary>odisk create: a new image.</summary>
internal static class CreateCommand
{
    private const string Help = """
          -f FORMAT     qcow2, luks or raw (default)
          -b FILE       backing file; its size is the default size
          -F FORMAT     format of the backing file
          -u            do not look at the backing file
          -o OPTIONS    name=value,...; -o help lists them
          -q            say nothing
          --object OBJECT  secret,id=ID,data=TEXT|file=FILE,format=raw|base64

        SIZE is in bytes, or has a suffix: k, M, G, T, P, E.
        """;

    private const string Qcow2Options = """
        Supported qcow2 options:
          backing_file=<str>     - File name of a base image
          backing_fmt=<str>      - Image format of the base image
          cluster_size=<size>    - Cluster size: a power of two from 512 to 2M (default 64k)
          compat=<str>           - Version: 1.1 or v3 (default), 0.10 or v2
          compression_type=<str> - Method for compressed clusters: zlib (default) or zstd
          data_file=<str>        - File name of an external data file
          data_file_raw=<bool>   - The external data file must stay valid as a raw image (default off)
          encrypt.cipher-alg=<str>     - Cipher of LUKS: aes-128, aes-192 or aes-256 (default)
          encrypt.cipher-mode=<str>    - Its mode: xts (default) or cbc
          encrypt.format=<str>         - Encrypt the disk: luks, or aes for the legacy encryption
          encrypt.hash-alg=<str>       - Hash of passphrases: sha1, sha256 (default), sha384 or sha512
          encrypt.iter-time=<num>      - Time for trying a passphrase, in milliseconds (default 2000)
          encrypt.ivgen-alg=<str>      - Initialization vectors: plain, plain64 (default) or essiv
          encrypt.ivgen-hash-alg=<str> - Hash of essiv: sha256
          encrypt.key-secret=<str>     - ID of the secret (--object secret,id=ID,...) with the passphrase
          encryption=<bool>            - The same as encrypt.format=aes
          extended_l2=<bool>     - Extended L2 entries, with 32 subclusters a cluster (default off)
          lazy_refcounts=<bool>  - Permit delayed refcount updates (default off)
          preallocation=<str>    - off (default) or metadata
          refcount_bits=<num>    - Width of a refcount: 1, 2, 4, 8, 16 (default), 32 or 64
          size=<size>            - Virtual disk size
        """;

    private const string LuksOptions = """
        Supported luks options:
          cipher-alg=<str>       - Cipher: aes-128, aes-192 or aes-256 (default)
          cipher-mode=<str>      - Its mode: xts (default) or cbc
          hash-alg=<str>         - Hash of passphrases: sha1, sha256 (default), sha384 or sha512
          iter-time=<num>        - Time for trying a passphrase, in milliseconds (default 2000)
          ivgen-alg=<str>        - Initialization vectors: plain, plain64 (default) or essiv
          ivgen-hash-alg=<str>   - Hash of essiv: sha256
          key-secret=<str>       - ID of the secret (--object secret,id=ID,...) with the passphrase
          preallocation=<str>    - off (default), falloc or full
          size=<size>            - Virtual disk size
        """;

    private const string RawOptions = """
        Supported raw options:
          preallocation=<str>    - off
          size=<size>            - Virtual disk size
        """;

    public static Command Command { get; } = new(
        "create", "Make a new image", Help,
        [
            Command.FormatOption, Command.QuietOption, new OptionSpec('b', null, HasValue: true),
            new OptionSpec('F', null, HasValue: true), new OptionSpec('u', null, HasValue: false),
            new OptionSpec('o', null, HasValue: true), Command.ObjectOption,
        ],
        RunAsync)
    {
        Operands = "FILE [SIZE]",
    };

    /// <summary>What -o help prints.</summary>
    public static string OptionsOf(string format) => format switch { "qcow2" => Qcow2Options, "luks" => LuksOptions, _ => RawOptions };

    private static async Task<int> RunAsync(ParsedOptions options, Terminal terminal)
    {
        string format = options.Value("f") ?? "raw";
        CreationOptions.ValidateLists(options.Values("o"));
        if (options.Values("o").Any(CreationOptions.AsksForHelp))
        {
            terminal.WriteLine(OptionsOf(format));
            return 0;
        }
        if (options.Operands.Count == 0)
            throw new CommandLineException("Expecting image file name");
        if (options.Operands.Count > 2)
            throw new CommandLineException($"Unexpected argument: {options.Operands[2]}");
        string path = options.Operands[0];
        long? size = options.Operands.Count == 2 ? SizeText.ParseImageSize(options.Operands[1]) : null;
        try
        {
            var image = new NewImage(path, format, options, size);
            await image.ResolveSizeAsync();
            if (!options.Has("q"))
                terminal.WriteLine(image.Describe());
            terminal.Flush();
            await image.CreateAsync();
            return 0;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CommandFailedException)
        {
            throw new CommandFailedException($"{path}: {e.Message}");
        }
    }
}
