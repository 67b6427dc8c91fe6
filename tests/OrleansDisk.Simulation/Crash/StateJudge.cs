using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Simulation.Host;
using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Crash;

/// <summary>What the judge must know beside the states.</summary>
internal sealed record JudgeLimits
{
    public required string ImageName { get; init; }

    /// <summary>How files of the backing chain are opened.</summary>
    public required Func<string, ImageAccess, IBlockFile> OpenBacking { get; init; }

    /// <summary>What may lie below the image.</summary>
    public required BackingContents Backing { get; init; }

    /// <summary>Leaked clusters that a crash may leave.</summary>
    public required long MaxLeaks { get; init; }

    public required int ClusterBytes { get; init; }

    /// <summary>The external data file and where it begins on the image's disk, or null.</summary>
    public (string Name, FileRegion Region)? DataFile { get; init; }

    /// <summary>How the file is read past the engine.</summary>
    public required StoredSectors Stored { get; init; }

    /// <summary>The password of an encrypted image, or null.</summary>
    public required Secret? Secret { get; init; }
}

/// <summary>How much was looked at.</summary>
internal sealed class StateCounts
{
    /// <summary>Crash states held against the invariants.</summary>
    public long States { get; set; }

    /// <summary>States with metadata of their own: opened, checked and read.</summary>
    public long Examined { get; set; }

    /// <summary>States that were opened, written and made to crash again.</summary>
    public long Recovered { get; set; }

    /// <summary>States that QEMU was asked about.</summary>
    public long JudgedByQemu { get; set; }

    public long Barriers { get; set; }

    public void Add(StateCounts other)
    {
        States += other.States;
        Examined += other.Examined;
        Recovered += other.Recovered;
        JudgedByQemu += other.JudgedByQemu;
        Barriers += other.Barriers;
    }
}

/// <summary>
/// Looks at the crash states of a barrier. States that agree in their metadata are opened and checked once; of each of
/// them every sector is compared.
/// </summary>
/// <param name="selection">Which states.</param>
/// <param name="counts">Where they are counted.</param>
internal sealed class StateJudge(StateSelection selection, StateCounts counts)
{
    /// <summary>Called with each state that has metadata of its own.</summary>
    public Action<UnflushedWrites, CrashState, byte[]>? Examined { get; set; }

    /// <exception cref="SimulationFailure">An invariant does not hold in one of the states.</exception>
    public void Judge(SimulatedDisk disk, DiskModel model, JudgeLimits limits)
    {
        counts.Barriers++;
        var writes = new UnflushedWrites(disk);
        var alike = new List<Alike>();
        foreach (CrashState state in selection.Select(writes))
        {
            counts.States++;
            try
            {
                long clusters = (writes.LengthOf(state) + limits.ClusterBytes - 1L) / limits.ClusterBytes;
                StateExamination? examination = Find(alike, state, clusters);
                if (examination is null)
                    Examine(writes, state, model, limits, alike, clusters);
                else
                    CompareData(writes, state, limits, examination);
            }
            catch (SimulationFailure e)
            {
                throw new SimulationFailure(e.Invariant, $"{e.Message[(e.Invariant.Length + 2)..]} [{state}; {Describe(writes)}]");
            }
        }
    }

    private static StateExamination? Find(List<Alike> alike, CrashState state, long clusters)
    {
        foreach (Alike group in alike)
        {
            if (group.ByKey.TryGetValue(group.KeyOf(state, clusters), out StateExamination? examination))
                return examination;
        }
        return null;
    }

    private void Examine(UnflushedWrites writes, CrashState state, DiskModel model, JudgeLimits limits, List<Alike> alike, long clusters)
    {
        counts.Examined++;
        var examination = new StateExamination(writes, state, model, limits);
        examination.Run();
        Alike? group = alike.Find(other => other.Deciding.AsSpan().SequenceEqual(examination.Deciding));
        if (group is null)
            alike.Add(group = new Alike(examination.Deciding));
        group.ByKey.Add(group.KeyOf(state, clusters), examination);
        Examined?.Invoke(writes, state, examination.Disk);
    }

    private static void CompareData(UnflushedWrites writes, CrashState state, JudgeLimits limits, StateExamination examination)
    {
        foreach ((int sector, int inFile) in examination.Touched)
            examination.JudgeSector(sector, limits.Stored.ContentOf(writes, state, sector, inFile));
    }

    private static string Describe(UnflushedWrites writes) => string.Join(", ", writes.Writes.Take(24)
        .Select((write, index) => $"{index}: {write.Target} {write.Offset}+{write.Data.Length}"));

    /// <summary>Examinations whose outcome hangs on the same writes, by which of these reached stable storage.</summary>
    private sealed class Alike(int[] deciding)
    {
        public int[] Deciding => deciding;

        public Dictionary<ulong, StateExamination> ByKey { get; } = [];

        public ulong KeyOf(CrashState state, long clusters)
        {
            ulong key = Mix((ulong)clusters);
            foreach (int write in deciding)
            {
                if (!state[write])
                    continue;
                ulong part = (ulong)write + 1;
                if (write == state.TornWrite)
                    part |= ((ulong)state.Tear.LostFrom << 40) | ((ulong)(state.Tear.LostTo + 1) << 20);
                key ^= Mix(~part);
            }
            return key;
        }

        private static ulong Mix(ulong value)
        {
            value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
            value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
            return value ^ (value >> 31);
        }
    }
}
