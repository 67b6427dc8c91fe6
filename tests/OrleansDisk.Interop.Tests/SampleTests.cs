namespace OrleansDisk.Interop.Tests;

/// <summary>The samples do what they say, with the programs of this build. Each verifies its own bytes.</summary>
public sealed class SampleTests
{
    [Theory]
    [InlineData("first-light", "odiskd")]
    [InlineData("nbd-clients", "odiskd")]
    [InlineData("nbd-clients", "odisk")]
    [InlineData("qemu-guest", "odiskd")]
    public void A_sample_ends_well(string sample, string server)
    {
        string script = Path.Combine(RepositoryRoot(), "samples", sample, "run");
        Tool.Run(script, "--server", server, "--daemon", Program("OrleansDisk.Server", "odiskd.dll"),
            "--tool", Program("OrleansDisk.Cli", "odisk.dll"), "--install");
    }

    /// <summary>Where the kernel has what it takes: a container may have neither.</summary>
    [Fact]
    public void The_sample_with_a_file_system_of_the_host_ends_well()
    {
        if (File.Exists("/dev/fuse") && File.Exists("/dev/loop-control") && Environment.IsPrivilegedProcess)
            A_sample_ends_well("filesystem", "odiskd");
    }

    /// <summary>A program in the output directory of its project, beside that of these tests.</summary>
    private static string Program(string project, string file)
    {
        DirectoryInfo output = new(AppContext.BaseDirectory.TrimEnd(Path.DirectorySeparatorChar));
        string path = Path.Combine(output.Parent!.Parent!.FullName, project, output.Name, file);
        Assert.True(File.Exists(path), $"{path} was not built");
        return path;
    }

    private static string RepositoryRoot()
    {
        DirectoryInfo? directory = new(AppContext.BaseDirectory);
        while (directory is not null && !File.Exists(Path.Combine(directory.FullName, "OrleansDisk.sln")))
            directory = directory.Parent;
        return directory?.FullName ?? throw new InvalidOperationException("OrleansDisk.sln is in no directory above the tests");
    }
}
