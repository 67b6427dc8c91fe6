namespace OrleansDisk.Qcow2.Crypto;

/// <summary>What is to become of the key slots of an image that LUKS encrypts, by the names of qemu-img amend.</summary>
public sealed record KeySlotChange
{
    /// <summary>encrypt.state: whether a slot is to be filled, else slots are to be erased.</summary>
    public required bool Activates { get; init; }

    /// <summary>encrypt.keyslot: the slot, from 0 to 7; null for any free one, or for those that have the old secret.</summary>
    public long? Slot { get; init; }

    /// <summary>encrypt.new-secret: the password that a filled slot gets.</summary>
    public Secret? NewSecret { get; init; }

    /// <summary>encrypt.old-secret: the password that slots to be erased have.</summary>
    public Secret? OldSecret { get; init; }

    /// <summary>A password that the image has: it opens the master key for a slot that is filled.</summary>
    public Secret? Secret { get; init; }

    /// <summary>Rounds of PBKDF2 for a slot that is filled, or null when nothing was said of the time they take.</summary>
    public uint? Iterations { get; init; }

    /// <summary>--force: whether a slot in use may be overwritten, and the last one erased, which loses the disk.</summary>
    public bool Force { get; init; }

    /// <summary>Changes keys in memory; returns the slots that it changed.</summary>
    /// <exception cref="Qcow2Exception">It can't be done, in QEMU's words; nothing has changed.</exception>
    internal IReadOnlyList<int> Apply(LuksKeys keys) => Activates ? Fill(keys) : Erase(keys);

    private int[] Fill(LuksKeys keys)
    {
        if (NewSecret is null)
            throw new Qcow2Exception("'new-secret' is required to activate a keyslot");
        if (OldSecret is not null)
            throw new Qcow2Exception("'old-secret' must not be given when activating keyslots");
        int slot = ValidSlot() ?? FreeSlot(keys.Header);
        if (!Force && keys.Header.Slots[slot].IsActive)
            throw new Qcow2Exception($"Refusing to overwrite active keyslot {slot} - please erase it first");
        if (Secret is null)
            throw new Qcow2Exception("Parameter 'encrypt.key-secret' is required for cipher");
        if (!keys.TryUnlock(Secret.Bytes))
            throw new Qcow2Exception("Invalid password, cannot unlock any keyslot");
        keys.Fill(slot, NewSecret.Bytes, Iterations ?? keys.Header.Slots.Max(other => other.Iterations));
        return [slot];
    }

    private int[] Erase(LuksKeys keys)
    {
        if (NewSecret is not null)
            throw new Qcow2Exception("'new-secret' must not be given when erasing keyslots");
        if (Iterations is not null)
            throw new Qcow2Exception("'iter-time' must not be given when erasing keyslots");
        int[] slots = ValidSlot() is { } slot ? [EnsureErasable(keys, slot)] : SlotsOfOldSecret(keys);
        foreach (int erased in slots)
            keys.Erase(erased);
        return slots;
    }

    private int EnsureErasable(LuksKeys keys, int slot)
    {
        if (OldSecret is not null && !keys.Opens(slot, OldSecret.Bytes))
            throw new Qcow2Exception($"Given keyslot {slot} doesn't contain the given old password for erase operation");
        if (!Force && !keys.Header.Slots[slot].IsActive)
            throw new Qcow2Exception($"Given keyslot {slot} is already erased (inactive) ");
        if (!Force && keys.Header.ActiveSlotCount == 1)
        {
            throw new Qcow2Exception($"Attempt to erase the only active keyslot {slot} "
                + "which will erase all the data in the image irreversibly - refusing operation");
        }
        return slot;
    }

    private int[] SlotsOfOldSecret(LuksKeys keys)
    {
        if (OldSecret is null)
        {
            throw new Qcow2Exception("To erase keyslot(s), either explicit keyslot index "
                + "or the password currently contained in them must be given");
        }
        int[] slots = [.. Enumerable.Range(0, LuksHeader.SlotCount).Where(slot => keys.Opens(slot, OldSecret.Bytes))];
        if (slots.Length == 0)
            throw new Qcow2Exception("No keyslots match given (old) password for erase operation");
        if (!Force && slots.Length == keys.Header.ActiveSlotCount)
        {
            throw new Qcow2Exception("All the active keyslots match the (old) password that was given and erasing them "
                + "will erase all the data in the image irreversibly - refusing operation");
        }
        return slots;
    }

    private int? ValidSlot() => Slot is null or (>= 0 and < LuksHeader.SlotCount) ? (int?)Slot
        : throw new Qcow2Exception($"Invalid keyslot {Slot} specified, must be between 0 and {LuksHeader.SlotCount - 1}");

    private static int FreeSlot(LuksHeader header)
    {
        for (int slot = 0; slot < LuksHeader.SlotCount; slot++)
        {
            if (!header.Slots[slot].IsActive)
                return slot;
        }
        throw new Qcow2Exception("Can't add a keyslot - all keyslots are in use");
    }
}
