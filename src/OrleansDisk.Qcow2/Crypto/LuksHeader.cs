using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace OrleansDisk.Qcow2.Crypto;

/// <summary>
/// The header of LUKS version 1: how the disk is encrypted, and eight slots, each of which can hold the master key under
/// a passphrase (LUKS1 on-disk format, section 6.1). Numbers are big-endian.
/// </summary>
public sealed record LuksHeader
{
    public const int SlotCount = 8;

    /// <summary>Bytes of the header itself; key material follows.</summary>
    public const int HeaderBytes = 592;

    /// <summary>Stripes of each slot's key material; the format has no other number in use.</summary>
    public const int StripeCount = 4000;

    public const int SaltBytes = 32;
    public const int DigestBytes = 20;

    /// <summary>Iterations that take more than minutes are damage, or an attempt to keep us busy.</summary>
    public const uint MaxIterations = 1u << 28;

    private const int NameBytes = 32;
    private const int CipherNameAt = 8;
    private const int CipherModeAt = 40;
    private const int HashAt = 72;
    private const int PayloadAt = 104;
    private const int KeyBytesAt = 108;
    private const int DigestAt = 112;
    private const int DigestSaltAt = 132;
    private const int DigestIterationsAt = 164;
    private const int UuidAt = 168;
    private const int UuidBytes = 40;
    private const int SlotsAt = 208;
    private const int SlotBytes = 48;
    private const uint ActiveMark = 0x00ac_71f3;
    private const uint InactiveMark = 0x0000_dead;

    private static ReadOnlySpan<byte> Magic => [(byte)'L', (byte)'U', (byte)'K', (byte)'S', 0xba, 0xbe];

    /// <summary>The hash of passphrases and stripes: sha1, sha256, sha384 or sha512.</summary>
    public required HashAlgorithmName Hash { get; init; }

    /// <summary>How the disk, and each slot's key material, is encrypted.</summary>
    public required LuksCipher Cipher { get; init; }

    /// <summary>Length of the master key.</summary>
    public int KeyBytes => Cipher.KeyBytes;

    /// <summary>Where a disk of its own would begin, in sectors; without a meaning inside qcow2.</summary>
    public required uint PayloadSector { get; init; }

    /// <summary>What the master key is recognized by.</summary>
    public required byte[] Digest { get; init; }

    public required byte[] DigestSalt { get; init; }

    public required uint DigestIterations { get; init; }

    public required string Uuid { get; init; }

    public required IReadOnlyList<LuksKeySlot> Slots { get; init; }

    /// <summary>Slots that hold the master key.</summary>
    public int ActiveSlotCount => Slots.Count(slot => slot.IsActive);

    /// <summary>Bytes of a slot's key material.</summary>
    public int MaterialBytes => KeyBytes * StripeCount;

    /// <summary>Whether a file that begins with these bytes, at least 8, is a LUKS image of version 1.</summary>
    public static bool Probe(ReadOnlySpan<byte> start) => start.StartsWith(Magic) && BinaryPrimitives.ReadUInt16BigEndian(start[6..]) == 1;

    /// <summary>Where the disk begins, in bytes, says a header that has not been checked.</summary>
    /// <param name="start">At least <see cref="HeaderBytes"/>.</param>
    internal static long PayloadBytesOf(ReadOnlySpan<byte> start) =>
        BinaryPrimitives.ReadUInt32BigEndian(start[PayloadAt..]) * (long)SectorCipher.SectorBytes;

    /// <summary>Reads a header and checks that its parts lie inside <paramref name="area"/> and apart.</summary>
    /// <param name="area">The header with its key material.</param>
    /// <exception cref="Qcow2FormatException">It is none, or is damaged.</exception>
    /// <exception cref="Qcow2UnsupportedException">It names a cipher or a hash that is not known here.</exception>
    public static LuksHeader Parse(ReadOnlySpan<byte> area)
    {
        if (area.Length < HeaderBytes || !area.StartsWith(Magic))
            throw new Qcow2FormatException("Volume is not in LUKS format");
        int version = BinaryPrimitives.ReadUInt16BigEndian(area[6..]);
        if (version != 1)
            throw new Qcow2UnsupportedException($"LUKS version {version}", "only version 1 can be in a qcow2 image");
        uint keyBytes = BinaryPrimitives.ReadUInt32BigEndian(area[KeyBytesAt..]);
        var header = new LuksHeader
        {
            Hash = HashOf(Text(area, HashAt, NameBytes)),
            Cipher = LuksCipher.Parse(Text(area, CipherNameAt, NameBytes), Text(area, CipherModeAt, NameBytes), keyBytes),
            PayloadSector = BinaryPrimitives.ReadUInt32BigEndian(area[PayloadAt..]),
            Digest = area.Slice(DigestAt, DigestBytes).ToArray(),
            DigestSalt = area.Slice(DigestSaltAt, SaltBytes).ToArray(),
            DigestIterations = BinaryPrimitives.ReadUInt32BigEndian(area[DigestIterationsAt..]),
            Uuid = Text(area, UuidAt, UuidBytes),
            Slots = ParseSlots(area),
        };
        header.Validate(area.Length);
        return header;
    }

    /// <summary>Writes the header, without key material.</summary>
    public void WriteTo(Span<byte> area)
    {
        area[..HeaderBytes].Clear();
        Magic.CopyTo(area);
        BinaryPrimitives.WriteUInt16BigEndian(area[6..], 1);
        Encoding.ASCII.GetBytes("aes", area[CipherNameAt..]);
        Encoding.ASCII.GetBytes(Cipher.HeaderMode, area[CipherModeAt..]);
        Encoding.ASCII.GetBytes(Hash.Name!.ToLowerInvariant(), area[HashAt..]);
        BinaryPrimitives.WriteUInt32BigEndian(area[PayloadAt..], PayloadSector);
        BinaryPrimitives.WriteUInt32BigEndian(area[KeyBytesAt..], (uint)KeyBytes);
        Digest.CopyTo(area[DigestAt..]);
        DigestSalt.CopyTo(area[DigestSaltAt..]);
        BinaryPrimitives.WriteUInt32BigEndian(area[DigestIterationsAt..], DigestIterations);
        Encoding.ASCII.GetBytes(Uuid, area.Slice(UuidAt, UuidBytes));
        for (int i = 0; i < SlotCount; i++)
            WriteSlot(area.Slice(SlotsAt + (i * SlotBytes), SlotBytes), Slots[i]);
    }

    internal static int DigestBytesOf(HashAlgorithmName hash) => hash.Name switch
    {
        "SHA1" => 20,
        "SHA256" => 32,
        "SHA384" => 48,
        _ => 64,
    };

    private static LuksKeySlot[] ParseSlots(ReadOnlySpan<byte> area)
    {
        var slots = new LuksKeySlot[SlotCount];
        for (int i = 0; i < SlotCount; i++)
        {
            ReadOnlySpan<byte> slot = area.Slice(SlotsAt + (i * SlotBytes), SlotBytes);
            uint mark = BinaryPrimitives.ReadUInt32BigEndian(slot);
            if (mark is not (ActiveMark or InactiveMark))
                throw new Qcow2FormatException($"Keyslot {i} state is corrupted");
            if (BinaryPrimitives.ReadUInt32BigEndian(slot[44..]) != StripeCount)
                throw new Qcow2FormatException($"Keyslot {i} is corrupted (stripes count is not {StripeCount})");
            slots[i] = new LuksKeySlot(mark == ActiveMark, BinaryPrimitives.ReadUInt32BigEndian(slot[4..]),
                slot.Slice(8, SaltBytes).ToArray(), BinaryPrimitives.ReadUInt32BigEndian(slot[40..]));
        }
        return slots;
    }

    private static void WriteSlot(Span<byte> target, LuksKeySlot slot)
    {
        BinaryPrimitives.WriteUInt32BigEndian(target, slot.IsActive ? ActiveMark : InactiveMark);
        BinaryPrimitives.WriteUInt32BigEndian(target[4..], slot.Iterations);
        slot.Salt.CopyTo(target[8..]);
        BinaryPrimitives.WriteUInt32BigEndian(target[40..], slot.MaterialSector);
        BinaryPrimitives.WriteUInt32BigEndian(target[44..], StripeCount);
    }

    private void Validate(int areaBytes)
    {
        if (DigestIterations is 0 or > MaxIterations)
            throw new Qcow2FormatException($"LUKS master key iteration count {DigestIterations} is not plausible");
        for (int i = 0; i < SlotCount; i++)
        {
            LuksKeySlot slot = Slots[i];
            if (slot.IsActive && slot.Iterations is 0 or > MaxIterations)
                throw new Qcow2FormatException($"Keyslot {i} iteration count {slot.Iterations} is not plausible");
            if (slot.MaterialOffset < HeaderBytes || slot.MaterialOffset + MaterialBytes > areaBytes)
                throw new Qcow2FormatException($"Keyslot {i} is corrupted (its key material is not inside the header area)");
            for (int other = 0; other < i; other++)
            {
                if (Math.Abs(Slots[other].MaterialOffset - slot.MaterialOffset) < MaterialBytes)
                    throw new Qcow2FormatException($"Keyslots {other} and {i} are overlapping in the header");
            }
        }
    }

    private static HashAlgorithmName HashOf(string name) => name switch
    {
        "sha1" => HashAlgorithmName.SHA1,
        "sha256" => HashAlgorithmName.SHA256,
        "sha384" => HashAlgorithmName.SHA384,
        "sha512" => HashAlgorithmName.SHA512,
        _ => throw new Qcow2UnsupportedException($"LUKS with the hash '{name}'", "sha1, sha256, sha384 and sha512 are known here; convert the image with qemu-img"),
    };

    private static string Text(ReadOnlySpan<byte> area, int at, int bytes)
    {
        ReadOnlySpan<byte> text = area.Slice(at, bytes);
        int end = text.IndexOf((byte)0);
        return Encoding.ASCII.GetString(end < 0 ? text : text[..end]);
    }
}

/// <summary>A slot of a LUKS header.</summary>
/// <param name="IsActive">Whether it holds a key.</param>
/// <param name="Iterations">Rounds of PBKDF2 from the passphrase to the slot's key.</param>
/// <param name="Salt">32 bytes.</param>
/// <param name="MaterialSector">Where its key material begins, in sectors of 512 bytes from the header's start.</param>
public sealed record LuksKeySlot(bool IsActive, uint Iterations, byte[] Salt, uint MaterialSector)
{
    /// <summary>Where its key material begins, in bytes from the header's start.</summary>
    public long MaterialOffset => (long)MaterialSector * SectorCipher.SectorBytes;
}
