using System.Globalization;
using System.Text;

namespace OrleansDisk.Cli.Output;

/// <summary>JSON in the layout that qemu-img prints: four spaces a level, one value a line, ASCII only.</summary>
internal sealed class JsonText
{
    private const int IndentWidth = 4;

    private readonly StringBuilder _text = new();
    private int _depth;
    private bool _isFirst = true;

    public override string ToString() => _text.ToString();

    public JsonText Begin(string? name = null, bool isArray = false)
    {
        Name(name);
        _text.Append(isArray ? '[' : '{');
        _depth++;
        _isFirst = true;
        return this;
    }

    public JsonText End(bool isArray = false)
    {
        _depth--;
        NewLine();
        _text.Append(isArray ? ']' : '}');
        _isFirst = false;
        return this;
    }

    public JsonText Value(string? name, string value)
    {
        Name(name);
        _text.Append(Quote(value));
        return this;
    }

    public JsonText Value(string name, long value)
    {
        Name(name);
        _text.Append(value.ToString(CultureInfo.InvariantCulture));
        return this;
    }

    public JsonText Value(string name, bool value)
    {
        Name(name);
        _text.Append(value ? "true" : "false");
        return this;
    }

    /// <summary>A string between quotes, everything that is not printable ASCII escaped.</summary>
    public static string Quote(string value)
    {
        var quoted = new StringBuilder("\"");
        foreach (char c in value)
        {
            quoted.Append(c switch
            {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\b' => "\\b",
                '\f' => "\\f",
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                >= ' ' and < (char)0x7f => c.ToString(),
                _ => $"\\u{(int)c:X4}",
            });
        }
        return quoted.Append('"').ToString();
    }

    private void Name(string? name)
    {
        if (!_isFirst)
            _text.Append(',');
        if (_depth > 0)
            NewLine();
        _isFirst = false;
        if (name is not null)
            _text.Append(Quote(name)).Append(": ");
    }

    private void NewLine() => _text.Append('\n').Append(' ', _depth * IndentWidth);
}
