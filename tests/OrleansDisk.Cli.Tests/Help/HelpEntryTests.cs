using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Commands;
using OrleansDisk.Cli.Help;

namespace OrleansDisk.Cli.Tests.Help;

public sealed class HelpEntryTests
{
    public static TheoryData<string> Names() => [.. Program.Commands.Select(command => command.Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public void The_help_of_a_command_tells_each_of_its_options_and_no_other(string name)
    {
        Command command = Program.Commands.Single(c => c.Name == name);
        HelpEntry[] told = [.. HelpEntry.ParseAll(command.Help).Where(entry => entry.IsOption)];
        Assert.Equal(command.Options.SelectMany(Known).Distinct().Order(), told.SelectMany(Told).Order());

        static IEnumerable<string> Known(OptionSpec option) =>
            NamesOf(option).Select(n => option.HasValue ? n + " VALUE" : n);
        static IEnumerable<string> Told(HelpEntry entry) => entry.Names.Select(n => entry.Argument is null ? n : n + " VALUE");
    }

    [Fact]
    public void Options_and_paragraphs_are_told_apart()
    {
        IReadOnlyList<HelpEntry> entries = HelpEntry.ParseAll("""
              -k, --socket=PATH   listen on a unix socket,
                                  and nowhere else
                  --fork          run in the background
              -c COUNT            requests

            A paragraph
            of two lines.
            """);
        Assert.Equal(["-k", "--socket"], entries[0].Names);
        Assert.Equal("PATH", entries[0].Argument);
        Assert.Equal("listen on a unix socket, and nowhere else", entries[0].Text);
        Assert.Equal(["--fork"], entries[1].Names);
        Assert.Null(entries[1].Argument);
        Assert.Equal("COUNT", entries[2].Argument);
        Assert.Equal("A paragraph of two lines.", entries[3].Text);
        Assert.Equal(4, entries.Count);
    }

    private static IEnumerable<string> NamesOf(OptionSpec option)
    {
        if (option.Short != '\0')
            yield return $"-{option.Short}";
        if (option.Long is not null)
            yield return $"--{option.Long}";
    }
}
