using System.Runtime.InteropServices;
using System.Text;

namespace OrleansDisk.Cli.Output;

/// <summary>
/// Standard output and standard error as bytes. Output is gathered and written when there is much of it and at the end, and
/// with each line where people read it; errors go out at once. System.Console would cost more time than reading an image's header does.
/// </summary>
internal sealed class Terminal(string programName)
{
    private const int FlushLength = 64 << 10;

    private readonly StringBuilder _pending = new();
    private readonly bool _isInteractive = SystemCalls.IsTerminal(1) == 1;

    /// <summary>The name that messages begin with.</summary>
    public string ProgramName { get; } = programName;

    public void Write(string text)
    {
        _pending.Append(text);
        if (_pending.Length >= FlushLength || (_isInteractive && text.EndsWith('\n')))
            Flush();
    }

    public void WriteLine(string text)
    {
        _pending.Append(text);
        Write("\n");
    }

    /// <summary>Writes lines to standard error, each behind the program's name.</summary>
    public void Error(string message) => WriteError($"{ProgramName}: {message}");

    /// <summary>Writes a warning to standard error.</summary>
    public static void Warn(string message) => WriteError($"{Output.ProgramName.Value}: warning: {message}");

    /// <summary>Writes a line to standard error as it is.</summary>
    public static void WriteError(string line) => WriteTo(2, line + "\n");

    public void Flush()
    {
        if (_pending.Length == 0)
            return;
        string text = _pending.ToString();
        _pending.Clear();
        WriteTo(1, text);
    }

    private static unsafe void WriteTo(int descriptor, string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        fixed (byte* start = bytes)
        {
            for (int done = 0; done < bytes.Length;)
            {
                nint written = SystemCalls.Write(descriptor, start + done, (nuint)(bytes.Length - done));
                if (written > 0)
                    done += (int)written;
                else if (Marshal.GetLastPInvokeError() != SystemCalls.Interrupted)
                    throw new IOException($"writing the output failed: {Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError())}");
            }
        }
    }
}
