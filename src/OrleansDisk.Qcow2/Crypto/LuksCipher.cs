namespace OrleansDisk.Qcow2.Crypto;

/// <summary>How LUKS encrypts a disk: AES with a key, a mode and initialization vectors, by QEMU's names.</summary>
public sealed record LuksCipher
{
    /// <summary>The cipher that is used unless something else is asked for.</summary>
    public static LuksCipher Default { get; } = new();

    /// <summary>"aes-128", "aes-192" or "aes-256".</summary>
    public string Algorithm { get; init; } = "aes-256";

    /// <summary>"xts" or "cbc".</summary>
    public string Mode { get; init; } = "xts";

    /// <summary>"plain", "plain64" or "essiv".</summary>
    public string VectorGenerator { get; init; } = "plain64";

    /// <summary>The hash of "essiv": sha256. Others may name one, too; it then means nothing.</summary>
    public string? VectorHash { get; init; }

    /// <summary>Length of the master key: XTS has two of the cipher's.</summary>
    public int KeyBytes => AlgorithmKeyBytes * (Mode == "xts" ? 2 : 1);

    /// <summary>The cipher-mode field of a LUKS header.</summary>
    internal string HeaderMode => $"{Mode}-{VectorGenerator}{(VectorHash is null ? "" : $":{VectorHash}")}";

    private int AlgorithmKeyBytes => Algorithm switch { "aes-128" => 16, "aes-192" => 24, _ => 32 };

    /// <summary>Reads the fields of a LUKS header.</summary>
    /// <exception cref="Qcow2FormatException">The key's length is none of the cipher's.</exception>
    /// <exception cref="Qcow2UnsupportedException">The cipher is not known here.</exception>
    internal static LuksCipher Parse(string name, string headerMode, uint keyBytes)
    {
        string[] parts = headerMode.Split('-', ':');
        var cipher = new LuksCipher
        {
            Mode = parts[0],
            VectorGenerator = parts.Length > 1 ? parts[1] : "",
            VectorHash = parts.Length > 2 ? parts[2] : null,
        };
        if (name != "aes" || !cipher.IsKnown || cipher.HeaderMode != headerMode)
        {
            throw new Qcow2UnsupportedException($"LUKS with the cipher '{name}-{headerMode}'",
                "aes with xts or cbc, and plain, plain64 or essiv:sha256, is known here; convert the image with qemu-img");
        }
        uint bits = keyBytes * 8 / (cipher.Mode == "xts" ? 2u : 1u);
        if (keyBytes > 64 || bits is not (128 or 192 or 256))
            throw new Qcow2FormatException($"LUKS master key length {keyBytes} is not that of aes in {cipher.Mode} mode");
        cipher = cipher with { Algorithm = $"aes-{bits}" };
        cipher.RefusePartialSectors();
        return cipher;
    }

    /// <summary>Refuses what is not known here, or does not go together.</summary>
    /// <exception cref="Qcow2Exception">It can't be had; the message says what can.</exception>
    public void Validate()
    {
        if (Algorithm is not ("aes-128" or "aes-192" or "aes-256"))
            throw new Qcow2UnsupportedException($"the cipher '{Algorithm}'", "use aes-128, aes-192 or aes-256");
        if (Mode is not ("xts" or "cbc"))
            throw new Qcow2UnsupportedException($"the cipher mode '{Mode}'", "use xts or cbc");
        if (VectorGenerator == "essiv" && VectorHash != "sha256")
            throw new Qcow2UnsupportedException($"essiv with the hash '{VectorHash}'", "use sha256");
        if (!IsKnown)
            throw new Qcow2UnsupportedException($"the IV generator '{VectorGenerator}'", "use plain, plain64 or essiv");
        RefusePartialSectors();
    }

    /// <summary>The cipher with a key.</summary>
    internal SectorCipher Create(ReadOnlySpan<byte> key)
    {
        SectorVectors vectors = VectorGenerator switch
        {
            "plain" => SectorVectors.Plain(),
            "essiv" => SectorVectors.Essiv(key),
            _ => SectorVectors.Plain64(),
        };
        return Mode == "xts" ? new AesXtsCipher(key, vectors) : new AesCbcCipher(key, vectors);
    }

    /// <summary>Key material is encrypted by sectors, and that of a key of 192 bits has half a one at its end.</summary>
    private void RefusePartialSectors()
    {
        if (KeyBytes * LuksHeader.StripeCount % SectorCipher.SectorBytes != 0)
            throw new Qcow2UnsupportedException($"LUKS with {Algorithm} in mode {Mode}, whose key material is not whole sectors", "use xts, or aes-256");
    }

    private bool IsKnown => Mode is "xts" or "cbc"
        && (VectorGenerator is "plain" or "plain64" || (VectorGenerator == "essiv" && VectorHash == "sha256"));
}
