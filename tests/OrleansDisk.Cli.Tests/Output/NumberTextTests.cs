using OrleansDisk.Cli.Output;

namespace OrleansDisk.Cli.Tests.Output;

public sealed class NumberTextTests
{
    [Theory]
    [InlineData(0UL, "0 B")]
    [InlineData(999UL, "999 B")]
    [InlineData(1000UL, "0.977 KiB")]
    [InlineData(1024UL, "1 KiB")]
    [InlineData(1536UL, "1.5 KiB")]
    [InlineData(197120UL, "192 KiB")] // 192.5, rounded to even
    [InlineData(198144UL, "194 KiB")] // 193.5
    [InlineData(1023590UL, "1e+03 KiB")]
    [InlineData(1024000UL, "0.977 MiB")]
    [InlineData(1724416UL, "1.64 MiB")]
    [InlineData(10737418240UL, "10 GiB")]
    [InlineData(ulong.MaxValue, "16 EiB")]
    public void Sizes_have_three_significant_digits(ulong bytes, string text) => Assert.Equal(text, NumberText.Size(bytes));

    [Theory]
    [InlineData(1, 32, "3.12")]
    [InlineData(3, 32, "9.38")]
    [InlineData(1, 3, "33.33")]
    [InlineData(2, 3, "66.67")]
    [InlineData(1, 800, "0.12")]
    [InlineData(3, 800, "0.38")]
    [InlineData(64, 64, "100.00")]
    [InlineData(32772, 64, "51206.25")]
    public void Percentages_round_ties_to_even(long part, long whole, string text) =>
        Assert.Equal(text, NumberText.Percentage(part, whole));
}
