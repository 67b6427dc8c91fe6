using System.Globalization;
using System.Text;
using OrleansDisk.Cli.CommandLine;

namespace OrleansDisk.Cli.Opening;

/// <summary>
/// Reads a JSON object into flat options. Strings may stand between single quotes too, as QEMU has it; numbers and
/// booleans become the texts that a list of options would have; null becomes an empty text.
/// </summary>
internal sealed class JsonOptions
{
    private const int MaxDepth = 64;

    private readonly string _text;
    private readonly BlockOptions _options;
    private int _at;
    private int _depth;

    private JsonOptions(string text, BlockOptions options) => (_text, _options) = (text, options);

    /// <exception cref="CommandFailedException">It is no JSON, or no object.</exception>
    public static void Read(string text, BlockOptions options)
    {
        var reader = new JsonOptions(text, options);
        reader.SkipSpace();
        if (reader.Peek() == '[' || reader.Peek() == '"')
            throw new CommandFailedException("Invalid JSON object given");
        reader.ReadObject("");
        reader.SkipSpace();
        if (reader._at < text.Length)
            throw reader.Malformed();
    }

    private void ReadValue(string name)
    {
        SkipSpace();
        switch (Peek())
        {
            case '{':
                ReadObject(name + ".");
                break;
            case '[':
                ReadArray(name + ".");
                break;
            case '"' or '\'':
                _options[name] = ReadString();
                break;
            default:
                _options[name] = ReadWord();
                break;
        }
    }

    private void ReadObject(string prefix)
    {
        Enter('{');
        while (!TryLeave('}'))
        {
            SkipSpace();
            string name = ReadString();
            SkipSpace();
            Expect(':');
            ReadValue(prefix + name);
            Separate('}');
        }
    }

    private void ReadArray(string prefix)
    {
        Enter('[');
        for (int index = 0; !TryLeave(']'); index++)
        {
            ReadValue(prefix + index.ToString(CultureInfo.InvariantCulture));
            Separate(']');
        }
    }

    private void Enter(char bracket)
    {
        Expect(bracket);
        if (++_depth > MaxDepth)
            throw new CommandFailedException("Could not parse the JSON options: JSON depth limit exceeded");
    }

    private bool TryLeave(char bracket)
    {
        SkipSpace();
        if (Peek() != bracket)
            return false;
        _at++;
        _depth--;
        return true;
    }

    /// <summary>A comma with something behind it, or the bracket that ends the list.</summary>
    private void Separate(char bracket)
    {
        SkipSpace();
        if (Peek() == bracket)
            return;
        Expect(',');
        SkipSpace();
        if (Peek() == bracket)
            throw Malformed();
    }

    private string ReadString()
    {
        char quote = Peek();
        if (quote is not ('"' or '\''))
            throw Malformed();
        var value = new StringBuilder();
        for (_at++; Peek() != quote; _at++)
        {
            if (_at >= _text.Length)
                throw Malformed();
            value.Append(_text[_at] == '\\' ? ReadEscape() : _text[_at]);
        }
        _at++;
        return value.ToString();
    }

    private char ReadEscape()
    {
        _at++;
        switch (Peek())
        {
            case 'b': return '\b';
            case 'f': return '\f';
            case 'n': return '\n';
            case 'r': return '\r';
            case 't': return '\t';
            case 'u' when _at + 4 < _text.Length && ushort.TryParse(
                _text.AsSpan(_at + 1, 4), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ushort code):
                _at += 4;
                return (char)code;
            case '"' or '\'' or '\\' or '/':
                return Peek();
            default:
                throw Malformed();
        }
    }

    private string ReadWord()
    {
        int start = _at;
        while (_at < _text.Length && (char.IsAsciiLetterOrDigit(_text[_at]) || _text[_at] is '-' or '+' or '.'))
            _at++;
        string word = _text[start.._at];
        return word switch
        {
            "true" => "on",
            "false" => "off",
            "null" => "",
            _ when double.TryParse(word, NumberStyles.Float, CultureInfo.InvariantCulture, out _) => word,
            _ => throw Malformed(),
        };
    }

    private char Peek() => _at < _text.Length ? _text[_at] : '\0';

    private void SkipSpace()
    {
        while (Peek() is ' ' or '\t' or '\r' or '\n')
            _at++;
    }

    private void Expect(char c)
    {
        if (Peek() != c)
            throw Malformed();
        _at++;
    }

    private CommandFailedException Malformed() => new("Could not parse the JSON options: "
        + (_at >= _text.Length ? "JSON parse error, premature EOI" : $"JSON parse error, unexpected '{Peek()}' at position {_at}"));
}
