using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Tests.CommandLine;

public sealed class OptionParserTests
{
    private static readonly OptionSpec[] _known =
    [
        new('f', "format", HasValue: true), new('q', null, HasValue: false), new('\0', "force", HasValue: false),
        new('\0', "output", HasValue: true),
    ];

    [Theory]
    [InlineData("-f raw a", "raw", "a")]
    [InlineData("-fraw a", "raw", "a")]
    [InlineData("-qfraw a", "raw", "a")]
    [InlineData("-qf raw a", "raw", "a")]
    [InlineData("a -f raw", "raw", "a")]
    [InlineData("--format raw a", "raw", "a")]
    [InlineData("--format=raw a", "raw", "a")]
    [InlineData("--form=raw a", "raw", "a")]
    [InlineData("--form raw a", "raw", "a")]
    [InlineData("--format= a", "", "a")]
    [InlineData("-f -q a", "-q", "a")]
    [InlineData("-f one -f two a", "two", "a")]
    [InlineData("-f raw -- -q --x", "raw", "-q --x")]
    [InlineData("-f raw - a", "raw", "- a")]
    public void Options_and_operands_are_told_apart(string arguments, string format, string operands)
    {
        var parsed = OptionParser.Parse(arguments.Split(' '), _known);
        Assert.Equal(format, parsed.Value("format"));
        Assert.Equal(operands, string.Join(' ', parsed.Operands));
    }

    [Theory]
    [InlineData("--fo", "unrecognized option '--fo'")]
    [InlineData("--force=1", "unrecognized option '--force=1'")]
    [InlineData("--frob", "unrecognized option '--frob'")]
    [InlineData("-qx", "unrecognized option '-qx'")]
    [InlineData("-f", "missing argument for option '-f'")]
    [InlineData("-qf", "missing argument for option '-qf'")]
    [InlineData("--output", "missing argument for option '--output'")]
    [InlineData("--=x", "unrecognized option '--=x'")]
    public void What_is_not_known_is_named(string arguments, string message) =>
        Assert.Equal(message, Assert.Throws<CommandLineException>(() => OptionParser.Parse(arguments.Split(' '), _known)).Message);

    [Theory]
    [InlineData("a=1,b=2", "1", "2")]
    [InlineData("a=x,,y,b=,,", "x,y", ",")]
    [InlineData("a,nob", "on", "off")]
    [InlineData("a=1=2,b==", "1=2", "=")]
    [InlineData("a=1,a=2,b=", "2", "")]
    public void Creation_options_are_split_at_single_commas(string list, string a, string b)
    {
        var options = CreationOptions.Parse([list], ["a", "b"]);
        Assert.Equal((a, b), (options["a"], options["b"]));
    }

    [Theory]
    [InlineData("0", 0UL)]
    [InlineData("512b", 512UL)]
    [InlineData("1k", 1024UL)]
    [InlineData("1.5K", 1536UL)]
    [InlineData("1.1k", 1126UL)]
    [InlineData("10.M", 10485760UL)]
    [InlineData(" 7", 7UL)]
    [InlineData("0X1f", 31UL)]
    [InlineData("15.5E", 17870283321406128128UL)]
    [InlineData("18446744073709551615", ulong.MaxValue)]
    public void Sizes_are_read(string text, ulong bytes)
    {
        Assert.Equal(ByteSizeResult.Ok, ByteSize.TryParse(text, out ulong read));
        Assert.Equal(bytes, read);
    }

    [Theory]
    [InlineData("", ByteSizeResult.NotANumber)]
    [InlineData("k", ByteSizeResult.NotANumber)]
    [InlineData("-1", ByteSizeResult.NotANumber)]
    [InlineData("1.5", ByteSizeResult.NotANumber)]
    [InlineData("1kk", ByteSizeResult.NotANumber)]
    [InlineData("1e3", ByteSizeResult.NotANumber)]
    [InlineData(".5M", ByteSizeResult.NotANumber)]
    [InlineData("0x", ByteSizeResult.NotANumber)]
    [InlineData("0xg", ByteSizeResult.NotANumber)]
    [InlineData("16E", ByteSizeResult.TooLarge)]
    [InlineData("18446744073709551616", ByteSizeResult.TooLarge)]
    [InlineData("0x10000000000000000", ByteSizeResult.TooLarge)]
    [InlineData("9999999999999999999999999999999999999999999999E", ByteSizeResult.TooLarge)]
    public void What_is_no_size_is_refused(string text, object result) => Assert.Equal(result, ByteSize.TryParse(text, out _));
}
