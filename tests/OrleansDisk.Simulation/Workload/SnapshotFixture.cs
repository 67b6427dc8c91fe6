using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;
using OrleansDisk.Simulation.Model;
using OrleansDisk.Simulation.Run;

namespace OrleansDisk.Simulation.Workload;

/// <summary>
/// Images that QEMU wrote, with internal snapshots: their copied flags are cleared, so that writing copies L2 tables
/// and data. Each is made once in a process.
/// </summary>
internal sealed class SnapshotFixture
{
    private static readonly (int Version, int ClusterBits, int RefcountBits, int SectorCount, EncryptionMethod Encryption)[] s_variants =
    [
        (3, 9, 16, 256, EncryptionMethod.None),
        (3, 9, 2, 192, EncryptionMethod.None),
        (2, 10, 16, 256, EncryptionMethod.None),
        (3, 11, 64, 320, EncryptionMethod.None),
        (3, 12, 8, 512, EncryptionMethod.None),
        (3, 16, 16, 1024, EncryptionMethod.None),
        (2, 9, 16, 256, EncryptionMethod.Aes),
        (3, 11, 16, 256, EncryptionMethod.Luks),
    ];

    private static readonly string[] s_secret = ["--object", $"secret,id=s,data={Shape.Password}"];

    private static readonly Lazy<SnapshotFixture>[] s_made =
        [.. Enumerable.Range(0, s_variants.Length).Select(number => new Lazy<SnapshotFixture>(() => Make(number)))];

    private SnapshotFixture(int number, byte[] image, long[] contents)
    {
        (Shape, Image, Contents) = (ShapeOf(number), image, contents);
    }

    public static int Count => s_variants.Length;

    /// <summary>The image's sizes; all else is the run's choice.</summary>
    public Shape Shape { get; }

    public byte[] Image { get; }

    /// <summary>What each sector of the disk holds.</summary>
    public IReadOnlyList<long> Contents { get; }

    public static SnapshotFixture Get(int number) => s_made[number].Value;

    private static Shape ShapeOf(int number)
    {
        (int version, int clusterBits, int refcountBits, int sectors, EncryptionMethod encryption) = s_variants[number];
        return new Shape
        {
            Version = version,
            ClusterBits = clusterBits,
            RefcountOrder = System.Numerics.BitOperations.Log2((uint)refcountBits),
            SectorCount = sectors,
            Fixture = number,
            Encryption = encryption,
        };
    }

    private static SnapshotFixture Make(int number)
    {
        Shape shape = ShapeOf(number);
        string path = Scratch.PathOf($"fixture{number}.qcow2");
        Create(shape, path);
        string[] image = [.. s_secret, "--image-opts", $"driver=qcow2,file.filename={path}{(shape.Secret is null ? "" : ",encrypt.key-secret=s")}"];
        int half = shape.SectorCount / 2 * 512;
        Tool.Run("qemu-io", ["-c", $"write -P 0x11 0 {half}", "-c", $"write -P 0x12 {half + 8192} 4096", .. image]);
        Tool.Run("qemu-img", ["snapshot", "-c", "first", .. image]);
        Tool.Run("qemu-io", ["-c", "write -P 0x21 2048 8192", "-c", $"write -z 12288 {shape.ClusterBytes}", .. image]);
        Tool.Run("qemu-img", ["snapshot", "-c", "second", .. image]);
        Tool.Run("qemu-io", ["-c", "write -P 0x31 4096 2048", .. image]);
        string raw = Scratch.PathOf($"fixture{number}.raw");
        Tool.Run("qemu-img", ["convert", "-O", "raw", .. image, raw]);
        byte[] disk = File.ReadAllBytes(raw);
        long[] contents = new long[shape.SectorCount];
        for (int sector = 0; sector < contents.Length; sector++)
            contents[sector] = SectorContent.Parse(disk.AsSpan(sector * SectorContent.Bytes, SectorContent.Bytes));
        return new SnapshotFixture(number, File.ReadAllBytes(path), contents);
    }

    private static void Create(Shape shape, string path)
    {
        if (StartImage.EncryptionOf(shape) is { } encryption)
        {
            // qemu-img would choose rounds that take long; it is QEMU that writes and takes the snapshots.
            File.Create(path).Dispose();
            CreateAsync().GetAwaiter().GetResult();

            async Task CreateAsync()
            {
                await using var file = LocalBlockFile.Open(path, ImageAccess.Write);
                await CreateOperation.CreateAsync(file, new CreateOptions
                {
                    VirtualBytes = shape.SectorCount * 512L,
                    Version = shape.Version,
                    ClusterBytes = shape.ClusterBytes,
                    Encryption = encryption,
                });
            }
            return;
        }
        string compat = shape.Version == 2 ? "0.10" : "1.1";
        Tool.Run("qemu-img", "create", "-q", "-f", "qcow2", "-o",
            $"compat={compat},cluster_size={shape.ClusterBytes},refcount_bits={1 << shape.RefcountOrder}", path, $"{shape.SectorCount * 512}");
    }
}
