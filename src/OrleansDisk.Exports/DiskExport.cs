using OrleansDisk.Nbd.Server;
using OrleansDisk.Qcow2;

namespace OrleansDisk.Exports;

/// <summary>A disk that stays open as long as the server runs, as an export.</summary>
/// <param name="name">The name that clients ask for.</param>
/// <param name="description">Free text for people.</param>
/// <param name="disk">The disk. It can be written if it is open for writing.</param>
/// <param name="canMultiConnect">Whether clients may open several connections; the server must have room for them.</param>
public sealed class DiskExport(string name, string description, SharedDisk disk, bool canMultiConnect) : INbdExport
{
    private IReadOnlyList<string>? _metaContexts;

    public string Name => name;

    public string Description => description;

    /// <summary>What clients can be told beside base:allocation.</summary>
    public IReadOnlyList<DiskContext> Contexts { get; init; } = [];

    public IReadOnlyList<string> MetaContexts => _metaContexts ??= [.. Contexts.Select(context => context.Name)];

    public ValueTask<INbdExportSession> ConnectAsync(CancellationToken cancellation)
    {
        bool canWrite = disk.Writable is not null;
        // A raw file need not end with a sector; clients count in sectors.
        var info = new NbdExportInfo((disk.Source.VirtualBytes + 511) & ~511L)
        {
            IsReadOnly = !canWrite,
            CanTrim = canWrite,
            CanWriteZeroes = canWrite,
            CanFastZero = canWrite && disk.Image is { Header.Version: >= 3 },
            CanCache = true,
            CanMultiConnect = canMultiConnect,
        };
        return new ValueTask<INbdExportSession>(new Session(disk, Contexts, info));
    }

    private sealed class Session(SharedDisk disk, IReadOnlyList<DiskContext> contexts, NbdExportInfo info) : INbdExportSession
    {
        private readonly DiskSession _requests = new(disk, contexts: contexts);

        public NbdExportInfo Info => info;

        public void Submit(ReadOnlySpan<NbdRequest> batch) => _requests.Submit(batch);

        public ValueTask DisposeAsync()
        {
            _requests.Dispose();
            return ValueTask.CompletedTask;
        }
    }
}
