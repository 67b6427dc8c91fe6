using OrleansDisk.Nbd.Protocol;

namespace OrleansDisk.Nbd.Server;

/// <summary>
/// One request of the transmission phase, already checked against the export's size, flags and the protocol's limits.
/// Instances and their buffers are pooled by the server.
/// </summary>
public abstract class NbdRequest
{
    public NbdCommand Command { get; protected set; }

    /// <summary>
    /// Only flags that the command has and the export offers. <see cref="NbdCommandFlags.Fua"/> can come with every
    /// command, and asks something of those that write.
    /// </summary>
    public NbdCommandFlags Flags { get; protected set; }

    /// <summary>First byte of the range, in bytes; 0 for a flush.</summary>
    public long Offset { get; protected set; }

    /// <summary>
    /// Bytes of the range; 0 for a flush. Reads and writes are no longer than the maximum payload; the others have up to 32 bits,
    /// or 63 where the client uses extended headers.
    /// </summary>
    public long Length { get; protected set; }

    /// <summary>The payload of a write, or where a read puts its bytes: <see cref="Length"/> bytes. Empty otherwise.</summary>
    public Memory<byte> Buffer { get; protected set; }

    /// <summary>Whether the client can be told which parts of a read are holes, by <see cref="AddExtent(long, NbdExtentState)"/>.</summary>
    public bool WantsHoles { get; protected set; }

    /// <summary>Whether a block-status request is to be told of base:allocation.</summary>
    public bool WantsAllocation { get; protected set; }

    /// <summary>The other contexts that a block-status request is to be told of: places in <see cref="INbdExport.MetaContexts"/>.</summary>
    public IReadOnlyList<int> WantedContexts { get; protected set; } = [];

    /// <summary>
    /// Reports the next extent of a block-status request (base:allocation), or of a read that <see cref="WantsHoles"/>.
    /// Extents follow each other without gaps from <see cref="Offset"/>; neighbours of one state are merged. A
    /// block-status request needs at least one and may stop anywhere; its last one may go past the range. A read needs
    /// none (all data) or all of its range; the buffer under extents that are <see cref="NbdExtentState.Zero"/> need
    /// not be filled, and must not be written once the extent is reported.
    /// </summary>
    /// <returns>Whether more extents are of use: false once the range is covered, or the reply is full.</returns>
    public abstract bool AddExtent(long length, NbdExtentState state);

    /// <summary>
    /// Reports the next extent of a block-status request in one of its <see cref="WantedContexts"/>, as
    /// <see cref="AddExtent(long, NbdExtentState)"/> does; each context needs at least one.
    /// </summary>
    /// <param name="context">The context's place in <see cref="INbdExport.MetaContexts"/>.</param>
    /// <param name="length">Bytes of the extent.</param>
    /// <param name="flags">What the context says of it.</param>
    public abstract bool AddExtent(int context, long length, uint flags);

    /// <summary>Ends the request; call it once. The request must not be touched afterwards.</summary>
    /// <param name="error">What the client is told.</param>
    /// <param name="message">Why, for people; sent where the client negotiated structured replies.</param>
    public abstract void Complete(NbdError error, string? message = null);
}

/// <summary>State of an extent (meta context base:allocation).</summary>
[Flags]
public enum NbdExtentState : uint
{
    Data = 0,

    /// <summary>NBD_STATE_HOLE: nothing is allocated.</summary>
    Hole = 1,

    /// <summary>NBD_STATE_ZERO: reads as zeros.</summary>
    Zero = 2,
}
