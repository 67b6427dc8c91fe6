using System.Runtime.InteropServices;

namespace OrleansDisk.Cli.Commands;

/// <summary>Lets SIGINT and SIGTERM end a command between two steps, so that what it writes is closed as it should be.</summary>
internal sealed class Interruption : IDisposable
{
    /// <summary>What a shell reports of a program that SIGINT has ended.</summary>
    public const int ExitCode = 130;

    private readonly CancellationTokenSource _source = new();
    private readonly PosixSignalRegistration _interrupt;
    private readonly PosixSignalRegistration _terminate;

    public Interruption()
    {
        _interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Cancel);
        _terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Cancel);
    }

    public CancellationToken Token => _source.Token;

    public void Dispose()
    {
        _interrupt.Dispose();
        _terminate.Dispose();
        _source.Dispose();
    }

    private void Cancel(PosixSignalContext context)
    {
        context.Cancel = true;
        _source.Cancel();
    }
}
