using System.Text;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Simulation.Workload.Operations;

/// <summary>What of an image is amended.</summary>
internal enum Amendment
{
    /// <summary>Version 2 becomes version 3 or the reverse.</summary>
    Version,

    /// <summary>Refcounts get another width.</summary>
    RefcountWidth,

    /// <summary>Lazy refcounts are switched on or off.</summary>
    LazyRefcounts,

    /// <summary>A raw data file need no longer be one.</summary>
    DataFileRaw,
}

/// <summary>The image becomes one of another kind; what it holds stays.</summary>
internal sealed record AmendImageOperation(Amendment What, int RefcountOrder) : IOperation
{
    private const int Version2RefcountBits = 16;

    public Timing Timing => Timing.Alone;

    public static AmendImageOperation Draw(OperationDraw draw) => new((Amendment)draw.Random.Next(4), draw.Random.Next(7));

    public Task RunAsync(World world) => Options(world) is { } options ? world.AmendAsync(options) : Task.CompletedTask;

    private AmendOptions? Options(World world)
    {
        Header header = world.Image.Header;
        switch (What)
        {
            case Amendment.Version when header.Version == 2:
                return new AmendOptions { Version = 3 };
            case Amendment.Version when !header.Geometry.HasExternalData && !header.Geometry.HasSubclusters && header.Geometry.RefcountBits <= Version2RefcountBits:
                return new AmendOptions { Version = 2, RefcountBits = Version2RefcountBits };
            case Amendment.RefcountWidth when header.Version >= 3:
                return new AmendOptions { RefcountBits = 1L << RefcountOrder };
            case Amendment.LazyRefcounts when header.Version >= 3:
                return new AmendOptions { LazyRefcounts = !header.Compatible.HasFlag(CompatibleFeatures.LazyRefcounts) };
            case Amendment.DataFileRaw when header.Geometry.HasExternalData:
                return new AmendOptions { DataFileRaw = false };
            default:
                return null;
        }
    }
}

/// <summary>An overlay gets another backing file, or none, or another name of the one that it has.</summary>
/// <param name="Choice">Which, of those that there are.</param>
/// <param name="Letters">By how much its name is longer than it need be.</param>
internal sealed record ChangeBackingOperation(int Choice, int Letters) : IOperation
{
    /// <summary>Two such names fit any first cluster beside the extensions, so that the header is rewritten in its safe order.</summary>
    private const int MaxNamesPerCluster = 6;
    private const int MaxNameBytes = 1000;

    public Timing Timing => Timing.Alone;

    public static ChangeBackingOperation Draw(OperationDraw draw) =>
        new(draw.Random.Next(4), draw.OneIn(2) ? 0 : draw.Random.Next(Math.Min(MaxNameBytes, draw.Shape.ClusterBytes / MaxNamesPerCluster)));

    public Task RunAsync(World world)
    {
        string[] names = [.. world.Backing.Names.Order()];
        return names.Length == 0 ? Task.CompletedTask : world.ChangeBackingAsync(Choice < names.Length ? names[Choice] : null, Letters);
    }
}

/// <summary>The image gives up all that it holds.</summary>
internal sealed record MakeEmptyOperation : IOperation
{
    public Timing Timing => Timing.Alone;

    public Task RunAsync(World world) => world.MakeEmptyAsync();
}

/// <summary>A password is added to an encrypted image, or erased, while others write.</summary>
internal sealed record ChangeKeysOperation(bool Activates, int Password) : IOperation
{
    /// <summary>Each with its slot: any, one that lies in two sectors of the header, the last.</summary>
    private static readonly (string Password, long? Slot)[] s_passwords = [("second", null), ("third", 6), ("fourth", 7)];

    public static ChangeKeysOperation Draw(OperationDraw draw) => new(draw.OneIn(2), draw.Random.Next(s_passwords.Length));

    public Task RunAsync(World world)
    {
        (string password, long? slot) = s_passwords[Password];
        var secret = new Secret(Encoding.ASCII.GetBytes(password));
        return world.ChangeKeysAsync(password, Activates
            ? new KeySlotChange { Activates = true, NewSecret = secret, Slot = slot, Secret = world.Shape.Secret, Iterations = 1 }
            : new KeySlotChange { Activates = false, OldSecret = secret });
    }
}
