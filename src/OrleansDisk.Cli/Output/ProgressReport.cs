using System.Globalization;
using System.Runtime.InteropServices;

namespace OrleansDisk.Cli.Output;

/// <summary>
/// How far a command has come: with -p a line that is written over again and again, in qemu-img's form; a bar in its place
/// on a terminal. Without -p, SIGUSR1 asks for one line of it.
/// </summary>
internal sealed class ProgressReport : IDisposable
{
    private const int ReportSignal = 10;
    private const int BarWidth = 40;

    private readonly Terminal _terminal;
    private readonly bool _isShown;
    private readonly bool _isBar;
    private readonly double _minStep;
    private readonly PosixSignalRegistration? _signal;
    private double _last;
    private volatile bool _isAskedFor;

    /// <summary>Begins at 0.</summary>
    /// <param name="terminal">Where it is shown.</param>
    /// <param name="isShown">Whether -p was given (and not -q).</param>
    /// <param name="minStep">Smaller steps are not shown, in percent.</param>
    public ProgressReport(Terminal terminal, bool isShown, double minStep)
    {
        (_terminal, _isShown, _minStep) = (terminal, isShown, minStep);
        _isBar = isShown && SystemCalls.IsTerminal(1) == 1;
        if (isShown)
        {
            Show(0);
            return;
        }
        _signal = PosixSignalRegistration.Create((PosixSignal)ReportSignal, context =>
        {
            context.Cancel = true;
            _isAskedFor = true;
        });
    }

    /// <summary>Tells how much is done.</summary>
    public void Set(long done, long total) => Set(total == 0 ? 100 : 100.0 * done / total);

    /// <summary>All is done.</summary>
    public void Finish() => Set(100.0);

    public void Dispose()
    {
        _signal?.Dispose();
        if (!_isShown)
            return;
        _terminal.Write("\n");
        _terminal.Flush();
    }

    private void Set(double percent)
    {
        if (_isAskedFor)
        {
            _isAskedFor = false;
            Terminal.WriteError(Text(percent));
        }
        if (!_isShown || (percent <= _last + _minStep && (percent < 100 || _last >= 100)))
            return;
        Show(percent);
    }

    private void Show(double percent)
    {
        _last = percent;
        string bar = "";
        if (_isBar)
        {
            int full = (int)(percent * BarWidth / 100);
            bar = $" [{new string('#', full)}{new string('.', BarWidth - full)}]";
        }
        _terminal.Write($"{Text(percent)}{bar}\r");
        _terminal.Flush();
    }

    private static string Text(double percent) => string.Create(CultureInfo.InvariantCulture, $"    ({percent:F2}/100%)");
}
