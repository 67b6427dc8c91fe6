using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>The files of a chain, each opened by itself for reading, so that their holes can be seen too.</summary>
internal sealed class ImageChain : IAsyncDisposable
{
    private readonly List<IDiskSource> _sources = [];

    /// <summary>Opens an image and everything below it.</summary>
    /// <exception cref="IOException">A file can't be opened; the message names it.</exception>
    public async Task<IReadOnlyList<MapLayer>> OpenAsync(string path, string? format, ImageAccess access)
    {
        var layers = new List<MapLayer>();
        var seen = new HashSet<string>(StringComparer.Ordinal);
        for (string? next = path; next is not null;)
        {
            if (!seen.Add(Path.GetFullPath(next)))
                throw new Qcow2Exception($"Backing file '{next}' creates an infinite loop.");
            var file = LocalBlockFile.Open(next, access);
            Header? header = await AddAsync(file, format, access, layers);
            next = header?.BackingFile is { } backing ? ImageInfo.ResolveBackingFile(next, backing) : null;
            format = header?.BackingFormat;
        }
        return layers;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (IDiskSource source in _sources)
            await source.DisposeAsync();
    }

    private async Task<Header?> AddAsync(LocalBlockFile file, string? format, ImageAccess access, List<MapLayer> layers)
    {
        try
        {
            format ??= await HeaderReader.ProbeFormatAsync(file);
            if (format == "raw")
            {
                Add(new RawImage(file), null);
                return null;
            }
            if (format != "qcow2")
                throw new Qcow2Exception($"Unknown driver '{format}'");
            Qcow2Image image = await Qcow2Image.OpenAsync(file, new Qcow2OpenOptions { Access = access, OpenBacking = false });
            bool mayHaveHoles = FileSpace.AllocatedBytes(file.Name) is { } allocated
                && await PreallocationProbe.IsPreallocatedAsync(file, image.Header, allocated);
            Add(image, mayHaveHoles ? file : null);
            return image.Header;
        }
        catch
        {
            await file.DisposeAsync();
            throw;
        }

        void Add(IDiskSource source, IBlockFile? holeFile)
        {
            _sources.Add(source);
            layers.Add(new MapLayer(source, holeFile));
        }
    }
}
