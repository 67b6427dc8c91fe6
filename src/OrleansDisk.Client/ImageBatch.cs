using OrleansDisk.Abstractions;

namespace OrleansDisk.Client;

/// <summary>
/// Requests that <see cref="ImageConnection.SubmitAsync"/> sends in one call. Reads go where <see cref="ReadTarget"/>
/// says, and each request ends with <see cref="OnCompleted"/>, on any thread. May be filled and sent again.
/// </summary>
public abstract class ImageBatch : ISectorCompletions
{
    internal SectorBatch Message { get; } = new();

    /// <summary>What the batch was sent to last.</summary>
    internal ImageOpening? Opening { get; private set; }

    /// <summary>Writes that had completed when the batch was sent: those that its flushes cover.</summary>
    internal long WrittenBefore { get; private set; }

    /// <summary>The requests; they and their payloads stay as they are until the batch has ended.</summary>
    protected ReadOnlyMemory<SectorRequest> Requests
    {
        get => Message.Requests;
        set => Message.Requests = value;
    }

    Memory<byte> ISectorCompletions.ReadTarget(int index) => ReadTarget(index);

    bool ISectorCompletions.AddExtent(int index, SectorExtent extent) => AddExtent(index, extent);

    void ISectorCompletions.Complete(int index, SectorError error, string? message)
    {
        if (error == SectorError.None)
            Opening!.NoteCompleted(Requests.Span[index], WrittenBefore);
        OnCompleted(index, error, message);
    }

    internal void Address(ImageOpening opening)
    {
        Opening = opening;
        WrittenBefore = opening.WrittenCount;
        Message.Image = opening.Image.Image;
        Message.Generation = opening.Image.Generation;
        Message.Completions = this;
        Message.Arm();
    }

    internal void Fail(SectorError error, string? message)
    {
        int count = Requests.Length; // the last completion may hand the requests on
        for (int i = 0; i < count; i++)
            OnCompleted(i, error, message);
    }

    /// <summary>Where the bytes of a read go: as many as it asks for.</summary>
    protected abstract Memory<byte> ReadTarget(int index);

    /// <summary>Takes an extent of a status request or a sparse read; whether more are of use.</summary>
    protected abstract bool AddExtent(int index, SectorExtent extent);

    /// <summary>Takes the end of a request. Must not throw.</summary>
    protected abstract void OnCompleted(int index, SectorError error, string? message);
}
