using OrleansDisk.Qcow2;

namespace OrleansDisk.Interop.Tests.Differential;

internal enum OperationKind
{
    Write,
    Zero,
    ZeroUnmap,
    Discard,
    Flush,
    Reopen,
    Grow,
    TakeSnapshot,
    ApplySnapshot,
    DeleteSnapshot,
}

/// <summary>One step of a list that two engines carry out. Offsets and lengths are whole sectors, as qemu-io wants them.</summary>
/// <param name="Kind">What is done.</param>
/// <param name="Start">First byte; for Grow the new size, for a snapshot its number.</param>
/// <param name="Bytes">Length of the range.</param>
/// <param name="Pattern">The byte that a write repeats.</param>
internal readonly record struct Operation(OperationKind Kind, long Start = 0, int Bytes = 0, byte Pattern = 0)
{
    /// <summary>The option of qemu-img snapshot that does the step, or null: it is one of qemu-io's.</summary>
    public string? SnapshotOption => Kind switch
    {
        OperationKind.TakeSnapshot => "-c",
        OperationKind.ApplySnapshot => "-a",
        OperationKind.DeleteSnapshot => "-d",
        _ => null,
    };

    /// <summary>The name of the snapshot that the step is about.</summary>
    public string SnapshotName => $"number {Start}";

    /// <summary>The step in the words of qemu-io.</summary>
    public IEnumerable<string> ForQemuIo(string path) => Kind switch
    {
        OperationKind.Write => [$"write -P {Pattern} {Start} {Bytes}"],
        OperationKind.Zero => [$"write -z {Start} {Bytes}"],
        OperationKind.ZeroUnmap => [$"write -z -u {Start} {Bytes}"],
        OperationKind.Discard => [$"discard {Start} {Bytes}"],
        OperationKind.Flush => ["flush"],
        OperationKind.Grow => [$"truncate {Start}"],
        _ => ["close", $"open -d unmap -o driver=qcow2 {path}"],
    };

    /// <summary>Does it on an image; Reopen is the caller's.</summary>
    public async Task ApplyAsync(Qcow2Image image)
    {
        switch (Kind)
        {
            case OperationKind.Write:
                byte[] data = new byte[Bytes];
                data.AsSpan().Fill(Pattern);
                await image.WriteAsync(Start, data);
                break;
            case OperationKind.Zero:
                await image.WriteZeroesAsync(Start, Bytes, mayUnmap: false);
                break;
            case OperationKind.ZeroUnmap:
                await image.WriteZeroesAsync(Start, Bytes, mayUnmap: true);
                break;
            case OperationKind.Discard:
                await image.DiscardAsync(Start, Bytes);
                break;
            case OperationKind.Grow:
                await image.ResizeAsync(Start);
                break;
            case OperationKind.TakeSnapshot:
                await image.CreateSnapshotAsync(new SnapshotDescription { Name = SnapshotName, Date = DateTimeOffset.UnixEpoch });
                break;
            case OperationKind.ApplySnapshot:
                await image.ApplySnapshotAsync(SnapshotName);
                break;
            case OperationKind.DeleteSnapshot:
                await image.DeleteSnapshotAsync(SnapshotName);
                break;
            default:
                await image.FlushAsync();
                break;
        }
    }
}
