using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Client;

/// <summary>A request that was sent, or is about to be, and what has come of it.</summary>
/// <param name="command">What is asked for.</param>
/// <param name="offset">First byte.</param>
/// <param name="length">Length in bytes.</param>
/// <param name="target">Where the bytes of a read go.</param>
internal sealed class PendingRequest(NbdCommand command, long offset, uint length, Memory<byte> target)
{
    /// <summary>More extents than these are asked for again.</summary>
    private const int MaxExtents = 64 << 10;

    private readonly TaskCompletionSource _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private NbdError _error;
    private string? _reason;
    private uint _filledBytes;
    private long _describedBytes;

    public NbdCommand Command => command;

    public long Offset => offset;

    public uint Length => length;

    public ulong Cookie { get; set; }

    /// <summary>What the chunks of a block status said.</summary>
    public List<NbdExtent> Extents { get; } = [];

    /// <summary>Ends when the server has answered, or can't any more.</summary>
    public Task Completion => _completion.Task;

    /// <summary>The part of the target that a chunk of a read fills.</summary>
    /// <exception cref="NbdConnectionException">The chunk lies outside the request.</exception>
    public Memory<byte> Fill(ulong at, uint bytes)
    {
        ulong start = unchecked(at - (ulong)offset);
        if (command != NbdCommand.Read || start > length || bytes > length - start)
            throw new NbdConnectionException("the server broke the protocol: a chunk outside the request");
        _filledBytes += Math.Min(bytes, length - _filledBytes);
        return target.Slice((int)start, (int)bytes);
    }

    /// <summary>Keeps what a block status says. What goes past the request is dropped: a server can't make the list endless.</summary>
    public void Describe(NbdExtent extent)
    {
        if (_describedBytes < length && Extents.Count < MaxExtents)
            Extents.Add(extent);
        _describedBytes += extent.Bytes;
    }

    /// <summary>Notes an error; the first one is reported.</summary>
    public void Note(NbdError error, string? reason)
    {
        if (_error != NbdError.None)
            return;
        _error = error == NbdError.None ? NbdError.InvalidArgument : error;
        _reason = reason;
    }

    /// <summary>The server has said all.</summary>
    /// <exception cref="NbdConnectionException">It has left something out.</exception>
    public void Complete()
    {
        if (_error != NbdError.None)
        {
            string reason = string.IsNullOrEmpty(_reason) ? "" : $" ({_reason})";
            _completion.TrySetException(new NbdRequestException(_error, $"{command} of {length} bytes at {offset} failed: {_error}{reason}"));
            return;
        }
        if (command == NbdCommand.Read && _filledBytes < length)
            throw new NbdConnectionException("the server broke the protocol: a part of a read is missing");
        if (command == NbdCommand.BlockStatus && Extents.Count == 0)
            throw new NbdConnectionException("the server broke the protocol: a block status without extents");
        _completion.TrySetResult();
    }

    public void Fail(NbdConnectionException e) => _completion.TrySetException(e);
}
