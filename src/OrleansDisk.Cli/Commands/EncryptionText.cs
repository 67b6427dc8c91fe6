using System.Text;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Cli.Commands;

/// <summary>How an image is encrypted, in qemu-img's words.</summary>
internal static class EncryptionText
{
    private const int Indent = 8;

    public static void Append(StringBuilder text, Header header, LuksHeader? luks)
    {
        foreach ((string name, string value) in Facts(header, luks))
            Line(Indent, $"{name.Replace('-', ' ')}: {value}");
        if (luks is null)
            return;
        Line(Indent, "slots:");
        for (int i = 0; i < luks.Slots.Count; i++)
        {
            LuksKeySlot slot = luks.Slots[i];
            Line(Indent + 4, $"[{i}]:");
            Line(Indent + 8, $"active: {(slot.IsActive ? "true" : "false")}");
            if (slot.IsActive)
                Line(Indent + 8, $"iters: {slot.Iterations}");
            Line(Indent + 8, $"key offset: {slot.MaterialOffset}");
            if (slot.IsActive)
                Line(Indent + 8, $"stripes: {LuksHeader.StripeCount}");
        }
        Line(Indent, $"payload offset: {PayloadOffset(luks)}");
        Line(Indent, $"master key iters: {luks.DigestIterations}");

        void Line(int indent, string line) => text.Append(' ', indent).Append(line).Append('\n');
    }

    public static void Append(JsonText json, Header header, LuksHeader? luks)
    {
        json.Begin("encrypt");
        foreach ((string name, string value) in Facts(header, luks))
            json.Value(name, value);
        if (luks is not null)
        {
            AppendSlots(json, luks);
            json.Value("payload-offset", PayloadOffset(luks)).Value("master-key-iters", luks.DigestIterations);
        }
        json.End();
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
    private static IEnumerable<(string Name, string Value)> Facts(Header header, LuksHeader? luks)
    {
        if (luks is null)
        {
            yield return ("format", header.Encryption == EncryptionMethod.Aes ? "aes" : "luks");
            yield break;
        }
        yield return ("ivgen-alg", luks.Cipher.VectorGenerator);
        yield return ("hash-alg", luks.Hash.Name!.ToLowerInvariant());
        yield return ("cipher-alg", luks.Cipher.Algorithm);
        yield return ("uuid", luks.Uuid);
        if (luks.Cipher.VectorHash is { } hash)
            yield return ("ivgen-hash-alg", hash);
        yield return ("format", "luks");
        yield return ("cipher-mode", luks.Cipher.Mode);
    }

    private static long PayloadOffset(LuksHeader luks) => (long)luks.PayloadSector * SectorCipher.SectorBytes;
}
