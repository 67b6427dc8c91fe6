using OrleansDisk.Simulation.Host;
using OrleansDisk.Simulation.Workload;

namespace OrleansDisk.Simulation.Run;

/// <summary>Asks QEMU about a crash state: its check finds leaks at most, and it reads what we read.</summary>
internal static class QemuJudge
{
    private const int OnlyLeaks = 3;

    /// <exception cref="SimulationFailure">It finds more.</exception>
    public static void Judge(SimulatedHost host, Shape shape, ReadOnlySpan<byte> image, byte[] disk)
    {
        string folder = Scratch.NewFolder();
        host.SaveTo(folder);
        string path = Path.Combine(folder, StartImage.Name);
        File.WriteAllBytes(path, image);
        string[] opening = ["--object", $"secret,id=s,data={Shape.Password}", "--image-opts"];
        string options = $"driver=qcow2,file.filename={path}{(shape.Secret is null ? "" : ",encrypt.key-secret=s")}";
        (int status, string output) = Tool.Try("qemu-img", ["check", .. opening, options]);
        if (status is not (0 or OnlyLeaks))
            throw new SimulationFailure("I3", $"qemu-img check exits {status}: {output}");
        string raw = Path.Combine(folder, "expected.raw");
        File.WriteAllBytes(raw, disk);
        (status, output) = Tool.Try("qemu-img", ["compare", .. opening, options, $"driver=raw,file.filename={raw}"]);
        if (status != 0)
            throw new SimulationFailure("I3", $"qemu-img reads something else than we do: {output}");
        Directory.Delete(folder, recursive: true);
    }
}
