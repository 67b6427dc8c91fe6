using System.Security.Cryptography;
using System.Text;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Simulation.Workload;

namespace OrleansDisk.Simulation.Model;

/// <summary>Which passwords open an encrypted image, beside the one that always does.</summary>
internal sealed class KeyModel
{
    /// <summary>By password: whether it opens the image, or null: it may.</summary>
    private readonly Dictionary<string, bool?> _opens = [];

    /// <summary>Which password opens a slot of these bytes, or null: finding out takes long, on purpose.</summary>
    private Dictionary<string, string?> _found = [];

    public bool? Opens(string password) => _opens.GetValueOrDefault(password, false);

    /// <summary>A slot with the password begins to be filled or erased.</summary>
    public void Begin(string password) => _opens[password] = null;

    /// <summary>That has ended, and is on stable storage.</summary>
    public void End(string password, bool opens) => _opens[password] = opens;

    /// <summary>Holds the keys of a file against what must be.</summary>
    /// <exception cref="SimulationFailure">A password opens nothing any more, or still something, or a slot is half changed.</exception>
    public void Judge(LuksKeys keys)
    {
        HashSet<string> opening = Opening(keys);
        foreach ((string password, bool? expected) in _opens)
        {
            if (expected is { } opens && opening.Contains(password) != opens)
                throw new SimulationFailure("K1", $"'{password}' {(opens ? "does not open the image any more" : "opens the image though it was erased")}");
        }
    }

    /// <summary>The machine has started again: what was in doubt the file tells.</summary>
    public void Adopt(LuksKeys keys)
    {
        HashSet<string> opening = Opening(keys);
        foreach (string password in _opens.Keys.Where(password => _opens[password] is null).ToArray())
            _opens[password] = opening.Contains(password);
    }

    public KeyModel Clone()
    {
        var clone = new KeyModel { _found = _found };
        foreach ((string password, bool? opens) in _opens)
            clone._opens.Add(password, opens);
        return clone;
    }

    /// <summary>The passwords that open a slot.</summary>
    private HashSet<string> Opening(LuksKeys keys)
    {
        var opening = new HashSet<string>();
        for (int slot = 0; slot < LuksHeader.SlotCount; slot++)
        {
            if (!keys.Header.Slots[slot].IsActive)
                continue;
            opening.Add(PasswordOf(keys, slot)
                ?? throw new SimulationFailure("K1", $"key slot {slot} counts as filled, and no password opens it"));
        }
        return opening;
    }

    private string? PasswordOf(LuksKeys keys, int slot)
    {
        LuksKeySlot stored = keys.Header.Slots[slot];
        string bytes = $"{stored.Iterations} {Convert.ToHexString(stored.Salt)} "
            + Convert.ToHexString(SHA256.HashData(keys.Area.Span.Slice((int)stored.MaterialOffset, keys.Header.MaterialBytes)));
        if (!_found.TryGetValue(bytes, out string? password))
        {
            password = _opens.Keys.Append(Shape.Password).FirstOrDefault(one => keys.Opens(slot, Encoding.ASCII.GetBytes(one)));
            _found.Add(bytes, password);
        }
        return password;
    }
}
