using System.Buffers.Binary;
using System.Text;

namespace OrleansDisk.Nbd.Server;

/// <summary>An option whose data is not as the protocol says; the message is sent to the client.</summary>
internal sealed class InvalidOptionException(string message) : Exception(message);

/// <summary>Reads the data of an option, front to back.</summary>
internal ref struct OptionData(ReadOnlySpan<byte> data)
{
    /// <summary>Longest string of the protocol ("Conventions").</summary>
    public const int MaxStringBytes = 4096;

    private static readonly UTF8Encoding StrictUtf8 = new(false, throwOnInvalidBytes: true);

    private ReadOnlySpan<byte> _rest = data;

    public ushort TakeUInt16(string what) => BinaryPrimitives.ReadUInt16BigEndian(Take(2, what));

    public uint TakeUInt32(string what) => BinaryPrimitives.ReadUInt32BigEndian(Take(4, what));

    /// <summary>A string after its 32-bit length.</summary>
    public string TakeString(string what)
    {
        uint bytes = TakeUInt32(what);
        if (bytes > MaxStringBytes)
            throw new InvalidOptionException($"the {what} has {bytes} bytes, more than {MaxStringBytes}");
        return Decode(Take((int)bytes, what), what);
    }

    /// <summary>All that is left, as a string.</summary>
    public string TakeRestAsString(string what) =>
        _rest.Length <= MaxStringBytes
            ? Decode(Take(_rest.Length, what), what)
            : throw new InvalidOptionException($"the {what} has {_rest.Length} bytes, more than {MaxStringBytes}");

    public readonly void MustEnd()
    {
        if (_rest.Length > 0)
            throw new InvalidOptionException($"{_rest.Length} bytes too many in the option's data");
    }

    private ReadOnlySpan<byte> Take(int bytes, string what)
    {
        if (bytes > _rest.Length)
            throw new InvalidOptionException($"the option's data ends inside the {what}");
        ReadOnlySpan<byte> taken = _rest[..bytes];
        _rest = _rest[bytes..];
        return taken;
    }

    private static string Decode(ReadOnlySpan<byte> bytes, string what)
    {
        if (bytes.Contains((byte)0))
            throw new InvalidOptionException($"the {what} contains a NUL");
        try
        {
            return StrictUtf8.GetString(bytes);
        }
        catch (DecoderFallbackException)
        {
            throw new InvalidOptionException($"the {what} is not UTF-8");
        }
    }
}
