using OrleansDisk.Server;
using OrleansDisk.Server.Configuration;
using OrleansDisk.Server.Hosting;

try
{
    var commandLine = CommandLine.Parse(args);
    if (commandLine.WantsHelp || commandLine.WantsVersion)
    {
        Console.WriteLine(commandLine.WantsHelp ? CommandLine.Help : $"odiskd {Daemon.Version}");
        return (int)ExitCode.Success;
    }
    return (int)await Daemon.RunAsync(DaemonConfiguration.Load(commandLine));
}
catch (UsageException e)
{
    Console.Error.WriteLine($"odiskd: {e.Message}\nTry 'odiskd --help'.");
    return (int)ExitCode.Usage;
}
catch (ConfigurationException e)
{
    Console.Error.WriteLine($"odiskd: configuration: {e.Message}");
    return (int)ExitCode.Configuration;
}
catch (Exception e)
{
    Console.Error.WriteLine($"odiskd: internal fault: {e}");
    return (int)ExitCode.Software;
}
