using System.Globalization;
using System.Runtime.CompilerServices;

namespace OrleansDisk.Qcow2.Check;

/// <summary>
/// The text of a finding, which is put together only if somebody reads it: one damaged table can hold more findings than
/// memory has room for their texts.
/// </summary>
[InterpolatedStringHandler]
internal ref struct FindingText
{
    private DefaultInterpolatedStringHandler _text;

    public FindingText(int literalLength, int formattedCount, CheckLog log, out bool isRead)
    {
        isRead = log.IsRead;
        if (isRead)
            _text = new DefaultInterpolatedStringHandler(literalLength, formattedCount, CultureInfo.InvariantCulture);
    }

    public void AppendLiteral(string text) => _text.AppendLiteral(text);

    public void AppendFormatted<T>(T value) => _text.AppendFormatted(value);

    public void AppendFormatted<T>(T value, string? format) => _text.AppendFormatted(value, format);

    /// <summary>The text; only for a log that reads it.</summary>
    public string Take() => _text.ToStringAndClear();
}
