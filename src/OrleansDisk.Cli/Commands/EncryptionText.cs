using System.Text;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Cli.Commands;

/// <summary>How an image is encrypted, in qemu-img's words.</summary>
internal static class EncryptionText
{
    /// <summary>How a qcow2 image is encrypted.</summary>
    public static void Append(StringBuilder text, Header header, LuksHeader? luks)
    {
        if (luks is null)
            text.Append($"        format: {(header.Encryption == EncryptionMethod.Aes ? "aes" : "luks")}\n");
        else
            AppendLuks(text, luks, indent: 8, isPlain: false);
    }

    /// <summary>What a LUKS header says.</summary>
    public static void AppendLuks(StringBuilder text, LuksHeader luks, int indent, bool isPlain)
    {
        foreach ((string name, string value) in Facts(luks, isPlain))
            Line(indent, $"{name.Replace('-', ' ')}: {value}");
        Line(indent, "slots:");
        for (int i = 0; i < luks.Slots.Count; i++)
        {
            LuksKeySlot slot = luks.Slots[i];
            Line(indent + 4, $"[{i}]:");
            Line(indent + 8, $"active: {(slot.IsActive ? "true" : "false")}");
            if (slot.IsActive)
                Line(indent + 8, $"iters: {slot.Iterations}");
            Line(indent + 8, $"key offset: {slot.MaterialOffset}");
            if (slot.IsActive)
                Line(indent + 8, $"stripes: {LuksHeader.StripeCount}");
        }
        Line(indent, $"payload offset: {PayloadOffset(luks)}");
        Line(indent, $"master key iters: {luks.DigestIterations}");

        void Line(int spaces, string line) => text.Append(' ', spaces).Append(line).Append('\n');
    }

    public static void Append(JsonText json, Header header, LuksHeader? luks)
    {
        json.Begin("encrypt");
        if (luks is null)
            json.Value("format", header.Encryption == EncryptionMethod.Aes ? "aes" : "luks");
        else
            AppendLuks(json, luks, isPlain: false);
        json.End();
    }

    public static void AppendLuks(JsonText json, LuksHeader luks, bool isPlain)
    {
        foreach ((string name, string value) in Facts(luks, isPlain))
            json.Value(name, value);
        AppendSlots(json, luks);
        json.Value("payload-offset", PayloadOffset(luks)).Value("master-key-iters", luks.DigestIterations);
    }

    private static void AppendSlots(JsonText json, LuksHeader luks)
    {
        json.Begin("slots", isArray: true);
        foreach (LuksKeySlot slot in luks.Slots)
        {
            json.Begin().Value("active", slot.IsActive);
            if (slot.IsActive)
                json.Value("iters", slot.Iterations);
            json.Value("key-offset", slot.MaterialOffset);
            if (slot.IsActive)
                json.Value("stripes", LuksHeader.StripeCount);
            json.End();
        }
        json.End(isArray: true);
    }

    /// <summary>The facts that are one word each, in the order in which QEMU's tables hold them.</summary>
    private static IEnumerable<(string Name, string Value)> Facts(LuksHeader luks, bool isPlain)
    {
        yield return ("ivgen-alg", luks.Cipher.VectorGenerator);
        yield return ("hash-alg", luks.Hash.Name!.ToLowerInvariant());
        yield return ("cipher-alg", luks.Cipher.Algorithm);
        yield return ("uuid", luks.Uuid);
        if (luks.Cipher.VectorHash is { } hash)
            yield return ("ivgen-hash-alg", hash);
        if (!isPlain)
            yield return ("format", "luks");
        yield return ("cipher-mode", luks.Cipher.Mode);
    }

    private static long PayloadOffset(LuksHeader luks) => (long)luks.PayloadSector * SectorCipher.SectorBytes;
}
