using System.Security.Cryptography;

namespace OrleansDisk.Qcow2.Crypto;

/// <summary>
/// A LUKS header with its key material in memory, as it lies in the image: finds the master key by a passphrase, and
/// fills and erases slots. Changes are in memory; <see cref="Area"/> is what belongs on disk.
/// </summary>
public sealed class LuksKeys : IDisposable
{
    /// <summary>Key material is aligned to this, as the format asks.</summary>
    private const int AlignBytes = 4096;

    /// <summary>Fewest rounds of PBKDF2, however little time they may take.</summary>
    private const uint MinIterations = 1000;

    private readonly byte[] _area;
    private byte[]? _masterKey;

    private LuksKeys(byte[] area, LuksHeader header) => (_area, Header) = (area, header);

    public LuksHeader Header { get; private set; }

    /// <summary>Header and key material: the bytes of the image's encryption header.</summary>
    public ReadOnlyMemory<byte> Area => _area;

    /// <summary>Whether a passphrase has been accepted.</summary>
    public bool IsUnlocked => _masterKey is not null;

    /// <summary>Reads what lies in an image.</summary>
    /// <param name="area">Header and key material; owned by this object from here on.</param>
    /// <exception cref="Qcow2FormatException">It is damaged.</exception>
    /// <exception cref="Qcow2UnsupportedException">It names a cipher or a hash that is not known here.</exception>
    public static LuksKeys Parse(byte[] area) => new(area, LuksHeader.Parse(area));

    /// <summary>Makes a header with a new master key and one slot.</summary>
    /// <param name="passphrase">Opens slot 0.</param>
    /// <param name="iterations">Rounds of PBKDF2 for the slot; see <see cref="IterationsFor"/>.</param>
    /// <param name="cipher">How the disk is to be encrypted; null for <see cref="LuksCipher.Default"/>.</param>
    /// <param name="hash">Of passphrases and stripes: SHA1, SHA256, SHA384 or SHA512; null for SHA256.</param>
    public static LuksKeys Create(ReadOnlySpan<byte> passphrase, uint iterations, LuksCipher? cipher = null, HashAlgorithmName? hash = null)
    {
        cipher ??= LuksCipher.Default;
        HashAlgorithmName usedHash = hash ?? HashAlgorithmName.SHA256;
        int keyBytes = cipher.KeyBytes;
        int materialBytes = MaterialBytesOf(cipher);
        byte[] masterKey = GC.AllocateArray<byte>(keyBytes, pinned: true); // not copied about by the collector
        RandomNumberGenerator.Fill(masterKey);
        byte[] salt = RandomNumberGenerator.GetBytes(LuksHeader.SaltBytes);
        uint digestIterations = Math.Max(iterations / 8, MinIterations);
        var header = new LuksHeader
        {
            Hash = usedHash,
            Cipher = cipher,
            PayloadSector = (uint)AreaBytesOf(cipher) / SectorCipher.SectorBytes,
            Digest = Derive(masterKey, salt, digestIterations, usedHash, LuksHeader.DigestBytes),
            DigestSalt = salt,
            DigestIterations = digestIterations,
            Uuid = Guid.NewGuid().ToString(),
            Slots = [.. Enumerable.Range(0, LuksHeader.SlotCount).Select(i => new LuksKeySlot(
                IsActive: false, 0, new byte[LuksHeader.SaltBytes], (uint)(AlignBytes + (i * materialBytes)) / SectorCipher.SectorBytes))],
        };
        var keys = new LuksKeys(new byte[header.PayloadSector * SectorCipher.SectorBytes], header) { _masterKey = masterKey };
        keys.Fill(0, passphrase, iterations);
        return keys;
    }

    /// <summary>How many rounds of PBKDF2 take about <paramref name="time"/> on this machine.</summary>
    public static uint IterationsFor(TimeSpan time, TimeProvider clock, HashAlgorithmName hash)
    {
        const uint probe = 20_000;
        byte[] salt = new byte[LuksHeader.SaltBytes];
        long start = clock.GetTimestamp();
        Derive("probe"u8, salt, probe, hash, 64);
        double seconds = Math.Max(clock.GetElapsedTime(start).TotalSeconds, 1e-6);
        return (uint)Math.Clamp(probe * time.TotalSeconds / seconds, MinIterations, LuksHeader.MaxIterations);
    }

    /// <summary>Finds the master key; false when no slot opens with the passphrase.</summary>
    public bool TryUnlock(ReadOnlySpan<byte> passphrase)
    {
        for (int slot = 0; slot < LuksHeader.SlotCount; slot++)
        {
            if (TryOpen(slot, passphrase) is not { } key)
                continue;
            Wipe();
            _masterKey = key;
            return true;
        }
        return false;
    }

    /// <summary>The cipher of the disk's sectors, which are counted from the start of the image file.</summary>
    public SectorCipher CreateCipher() => Header.Cipher.Create(MasterKey);

    /// <summary>Whether a slot opens with a passphrase.</summary>
    public bool Opens(int slot, ReadOnlySpan<byte> passphrase)
    {
        byte[]? key = TryOpen(slot, passphrase);
        CryptographicOperations.ZeroMemory(key);
        return key is not null;
    }

    /// <summary>Puts the master key into a slot, under a passphrase. The keys must be unlocked.</summary>
    public void Fill(int slot, ReadOnlySpan<byte> passphrase, uint iterations)
    {
        iterations = Math.Clamp(iterations, MinIterations, LuksHeader.MaxIterations);
        byte[] salt = RandomNumberGenerator.GetBytes(LuksHeader.SaltBytes);
        Span<byte> material = Material(slot);
        AntiForensicSplitter.Split(MasterKey, material, Header.Hash);
        byte[] slotKey = Derive(passphrase, salt, iterations, Header.Hash, Header.KeyBytes);
        using (SectorCipher cipher = Header.Cipher.Create(slotKey))
            cipher.Encrypt(material, 0);
        CryptographicOperations.ZeroMemory(slotKey);
        Change(slot, Header.Slots[slot] with { IsActive = true, Iterations = iterations, Salt = salt });
    }

    /// <summary>Erases a slot: no passphrase opens it any more.</summary>
    public void Erase(int slot)
    {
        RandomNumberGenerator.Fill(Material(slot));
        Change(slot, Header.Slots[slot] with { IsActive = false, Iterations = 0, Salt = new byte[LuksHeader.SaltBytes] });
    }

    /// <summary>The place of a slot's key material in <see cref="Area"/>, and its bytes.</summary>
    internal (long Offset, byte[] Bytes) StoredMaterial(int slot) => (Header.Slots[slot].MaterialOffset, Material(slot).ToArray());

    public void Dispose() => Wipe();

    private ReadOnlySpan<byte> MasterKey => _masterKey ?? throw new InvalidOperationException("the keys are not unlocked");

    private Span<byte> Material(int slot) => _area.AsSpan((int)Header.Slots[slot].MaterialOffset, Header.MaterialBytes);

    private byte[]? TryOpen(int index, ReadOnlySpan<byte> passphrase)
    {
        LuksKeySlot slot = Header.Slots[index];
        if (!slot.IsActive)
            return null;
        byte[] slotKey = Derive(passphrase, slot.Salt, slot.Iterations, Header.Hash, Header.KeyBytes);
        byte[] material = Material(index).ToArray();
        byte[] key = GC.AllocateArray<byte>(Header.KeyBytes, pinned: true);
        using (SectorCipher cipher = Header.Cipher.Create(slotKey))
            cipher.Decrypt(material, 0);
        AntiForensicSplitter.Merge(material, key, Header.Hash);
        CryptographicOperations.ZeroMemory(slotKey);
        CryptographicOperations.ZeroMemory(material);
        byte[] digest = Derive(key, Header.DigestSalt, Header.DigestIterations, Header.Hash, LuksHeader.DigestBytes);
        if (CryptographicOperations.FixedTimeEquals(digest, Header.Digest))
            return key;
        CryptographicOperations.ZeroMemory(key);
        return null;
    }

    private void Change(int slot, LuksKeySlot changed)
    {
        LuksKeySlot[] slots = [.. Header.Slots];
        slots[slot] = changed;
        Header = Header with { Slots = slots };
        Header.WriteTo(_area);
    }

    private void Wipe()
    {
        CryptographicOperations.ZeroMemory(_masterKey);
        _masterKey = null;
    }

    /// <summary>Bytes of a new header with its key material.</summary>
    internal static int AreaBytesOf(LuksCipher cipher) => AlignBytes + (LuksHeader.SlotCount * MaterialBytesOf(cipher));

    private static int MaterialBytesOf(LuksCipher cipher) => Align(cipher.KeyBytes * LuksHeader.StripeCount);

    private static int Align(int bytes) => (bytes + AlignBytes - 1) & ~(AlignBytes - 1);

    private static byte[] Derive(ReadOnlySpan<byte> secret, ReadOnlySpan<byte> salt, uint iterations, HashAlgorithmName hash, int bytes) =>
        Rfc2898DeriveBytes.Pbkdf2(secret, salt, (int)iterations, hash, bytes);
}
