using System.Buffers.Binary;

namespace OrleansDisk.Interop.Tests.Fuzz;

/// <summary>A broken image, and in words what was done to the sound one.</summary>
internal sealed record Mutant(byte[] Bytes, IReadOnlyList<string> Mutations);

/// <summary>Breaks images: mostly fields by values that hurt, sometimes bytes, tables and the length of the file.</summary>
internal static class Mutator
{
    public static Mutant Mutate(CorpusImage image, Random random)
    {
        byte[] bytes = [.. image.Bytes];
        var mutations = new List<string>();
        int count = random.Next(3) == 0 ? random.Next(2, 7) : 1;
        for (int i = 0; i < count; i++)
        {
            mutations.Add(random.Next(12) switch
            {
                0 => FlipBit(bytes, image.Fields, random),
                1 => CopyStructure(bytes, image.Fields, random),
                2 when i == 0 => Resize(ref bytes, image.Fields.ClusterBytes, random),
                3 => FillTable(bytes, image.Fields, random),
                _ => SetField(bytes, image.Fields, random),
            });
        }
        return new Mutant(bytes, mutations);
    }

    private static string SetField(byte[] bytes, ImageFields fields, Random random)
    {
        // Every kind of structure gets its share, however many fields it has.
        string[] names = [.. fields.All.Select(field => Family(field.Name)).Distinct()];
        string family = names[random.Next(names.Length)];
        Field[] candidates = [.. fields.All.Where(field => Family(field.Name) == family)];
        Field target = candidates[random.Next(candidates.Length)];
        if (target.At + target.Bytes > bytes.Length)
            return "nothing (the file is too short)";
        ulong before = Read(bytes, target);
        ulong value = target.Kind switch
        {
            FieldKind.Bytes => (ulong)random.NextInt64(long.MinValue, long.MaxValue),
            FieldKind.Flags => before ^ (1UL << random.Next(random.Next(2) == 0 ? 8 : 64)),
            FieldKind.Count => Count(before, random),
            FieldKind.Offset => Offset(before, fields, random),
            _ => Entry(before, fields, random),
        };
        Write(bytes, target, value);
        return $"{target.Name} at 0x{target.At:x}: 0x{before:x} -> 0x{Read(bytes, target):x}";
    }

    private static string Family(string name) => name.TrimEnd('0', '1', '2', '3', '4', '5', '6', '7', '8', '9');

    private static ulong Count(ulong before, Random random) => random.Next(9) switch
    {
        0 => 0,
        1 => ulong.MaxValue,
        2 => 1UL << random.Next(64),
        3 => before + 1,
        4 => before - 1,
        5 => before * 2,
        6 => (1UL << random.Next(64)) - 1,
        7 => (ulong)random.Next(256),
        _ => (ulong)random.NextInt64(),
    };

    private static ulong Offset(ulong before, ImageFields fields, Random random)
    {
        ulong structure = (ulong)fields.Structures[random.Next(fields.Structures.Count)];
        return random.Next(10) switch
        {
            0 => 0,
            1 => before + 512,
            2 => before ^ (1UL << random.Next(64)),
            3 => ulong.MaxValue << random.Next(30),
            4 => (1UL << 56) - (ulong)fields.ClusterBytes,
            5 => (1UL << 63) - (ulong)fields.ClusterBytes,
            6 => (ulong)random.NextInt64(),
            7 => structure + 1,
            _ => structure,
        };
    }

    private static ulong Entry(ulong before, ImageFields fields, Random random)
    {
        const ulong copied = 1UL << 63, compressed = 1UL << 62;
        return random.Next(12) switch
        {
            0 => before ^ copied,
            1 => before ^ compressed,
            2 => before ^ 1,
            3 => before ^ (1UL << random.Next(64)),
            4 => before + (ulong)fields.ClusterBytes,
            5 => compressed | (ulong)random.NextInt64(1L << 62),
            6 => compressed | (before & 0x00ff_ffff_ffff_ffff),
            7 => Offset(before, fields, random) & 0x00ff_ffff_ffff_fe00,
            8 => copied | (((1UL << 56) - (ulong)fields.ClusterBytes) & 0x00ff_ffff_ffff_fe00),
            _ => (random.Next(2) == 0 ? copied : 0) | (Offset(before, fields, random) & 0x00ff_ffff_ffff_fe00),
        };
    }

    private static string FlipBit(byte[] bytes, ImageFields fields, Random random)
    {
        // Near something that means something; the guest's data is not worth it.
        long near = fields.All[random.Next(fields.All.Count)].At + random.Next(64);
        long at = Math.Min(near, bytes.Length - 1);
        bytes[at] ^= (byte)(1 << random.Next(8));
        return $"a bit of the byte at 0x{at:x}";
    }

    private static string CopyStructure(byte[] bytes, ImageFields fields, Random random)
    {
        long from = fields.Structures[random.Next(fields.Structures.Count)];
        long to = fields.Structures[random.Next(fields.Structures.Count)] + (random.Next(4) == 0 ? random.Next(64) * 8 : 0);
        int count = (int)Math.Min(random.Next(2) == 0 ? 64 : fields.ClusterBytes, bytes.Length - Math.Max(from, to));
        if (count <= 0 || to < 0)
            return "nothing (the file is too short)";
        bytes.AsSpan((int)from, count).ToArray().CopyTo(bytes, to);
        return $"{count} bytes copied from 0x{from:x} to 0x{to:x}";
    }

    private static string FillTable(byte[] bytes, ImageFields fields, Random random)
    {
        long table = fields.Structures[random.Next(fields.Structures.Count)];
        int count = (int)Math.Min(fields.ClusterBytes, bytes.Length - table);
        if (count < 8 || table < 112)
            return "nothing (no table there)";
        ulong value = random.Next(3) switch { 0 => 0, 1 => ulong.MaxValue, _ => Entry(0, fields, random) };
        for (int at = 0; at + 8 <= count; at += 8)
            BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan((int)table + at), value);
        return $"the cluster at 0x{table:x} filled with 0x{value:x}";
    }

    private static string Resize(ref byte[] bytes, int clusterBytes, Random random)
    {
        int length = random.Next(4) switch
        {
            0 => random.Next(bytes.Length),
            1 => bytes.Length - 1,
            2 => bytes.Length - random.Next(Math.Min(bytes.Length, 3 * clusterBytes)),
            _ => bytes.Length + random.Next(1, 3 * clusterBytes),
        };
        string mutation = $"length {bytes.Length} -> {length}";
        Array.Resize(ref bytes, length);
        return mutation;
    }

    private static ulong Read(byte[] bytes, Field field)
    {
        ulong value = 0;
        for (int i = 0; i < field.Bytes; i++)
            value = (value << 8) | bytes[field.At + i];
        return value;
    }

    private static void Write(byte[] bytes, Field field, ulong value)
    {
        for (int i = field.Bytes - 1; i >= 0; i--, value >>= 8)
            bytes[field.At + i] = (byte)value;
    }
}
