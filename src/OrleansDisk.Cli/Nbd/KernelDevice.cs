using OrleansDisk.Cli.CommandLine;

namespace OrleansDisk.Cli.Nbd;

/// <summary>The kernel's own NBD client (/dev/nbdN), which odisk leaves to the programs that are made for it.</summary>
internal static class KernelDevice
{
    /// <summary>Why --connect fails, with what to do in its place.</summary>
    public static CommandFailedException CanNotConnect(string device) => Missing(device) ?? new CommandFailedException(
        $"Connecting {device} is not supported; serve the image with -k PATH and use 'nbd-client -unix PATH {device}' (or nbdfuse)");

    /// <summary>Why --disconnect fails, with what to do in its place.</summary>
    public static CommandFailedException CanNotDisconnect(string device) => Missing(device) ?? new CommandFailedException(
        $"Disconnecting {device} is not supported; use 'nbd-client -d {device}'");

    private static CommandFailedException? Missing(string device) =>
        File.Exists(device) ? null : new CommandFailedException($"Failed to open {device}: No such file or directory");
}
