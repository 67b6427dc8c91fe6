using OrleansDisk.Abstractions;

namespace OrleansDisk.Client;

/// <summary>
/// One opening of an image as a client sees it, and which of the client's completed writes a flush has covered.
/// </summary>
public sealed class ImageOpening
{
    private readonly LostWrites _lost;
    private OpenedImage _image;
    private long _writtenCount;
    private long _flushedCount;
    private int _endedWithError;

    internal ImageOpening(OpenedImage image, LostWrites lost) => (_image, _lost) = (image, lost);

    /// <summary>The image as the grain described it last.</summary>
    public OpenedImage Image
    {
        get => Volatile.Read(ref _image);
        internal set => Volatile.Write(ref _image, value);
    }

    /// <summary>Writes that have completed.</summary>
    public long WrittenCount => Interlocked.Read(ref _writtenCount);

    /// <summary>The opening was closed with an error: what no flush had covered may be lost.</summary>
    internal void EndWithError()
    {
        Interlocked.Exchange(ref _endedWithError, 1);
        if (WrittenCount > Interlocked.Read(ref _flushedCount))
            _lost.Any = true;
    }

    /// <summary>Keeps account of a request that succeeded.</summary>
    /// <param name="request">The request.</param>
    /// <param name="writtenBefore">Writes that had completed when it was sent.</param>
    internal void NoteCompleted(in SectorRequest request, long writtenBefore)
    {
        switch (request.Command)
        {
            case SectorCommand.Write or SectorCommand.WriteZeroes or SectorCommand.Discard when (request.Flags & SectorFlags.Fua) == 0:
                NoteWritten();
                break;
            case SectorCommand.Flush:
                NoteFlushed(writtenBefore);
                break;
        }
    }

    /// <summary>Counts a write that succeeded and that no flush of its own covers.</summary>
    public void NoteWritten()
    {
        Interlocked.Increment(ref _writtenCount);
        if (Volatile.Read(ref _endedWithError) != 0)
            _lost.Any = true;
    }

    /// <summary>A flush has succeeded that was sent when <see cref="WrittenCount"/> was <paramref name="writtenBefore"/>.</summary>
    public void NoteFlushed(long writtenBefore)
    {
        for (long known = Interlocked.Read(ref _flushedCount); known < writtenBefore;)
        {
            long found = Interlocked.CompareExchange(ref _flushedCount, writtenBefore, known);
            if (found == known)
                return;
            known = found;
        }
    }
}

/// <summary>Whether a client has seen writes complete that may be lost.</summary>
internal sealed class LostWrites
{
    private volatile bool _any;

    public bool Any
    {
        get => _any;
        set => _any = value;
    }
}
