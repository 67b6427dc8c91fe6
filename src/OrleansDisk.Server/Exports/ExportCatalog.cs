using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;
using OrleansDisk.Abstractions;
using OrleansDisk.Grains;
using OrleansDisk.Nbd.Server;
using OrleansDisk.Server.Configuration;

namespace OrleansDisk.Server.Exports;

/// <summary>Everything that the daemon exports: what is configured, and the images that the pools hold now.</summary>
internal sealed class ExportCatalog
{
    private const char SnapshotMark = '@';

    private readonly DaemonOptions _options;
    private readonly IGrainFactory _grains;
    private readonly OpenImages _openImages;
    private readonly Pools _pools;
    private readonly TimeProvider _time;
    private readonly ILogger _logger;
    private readonly List<GrainExport> _configured = [];
    private readonly ConcurrentDictionary<ImageKey, GrainExport> _ofPools = [];
    private readonly ConcurrentDictionary<string, GrainExport> _ofSnapshots = [];

    public ExportCatalog(
        DaemonOptions options, IGrainFactory grains, OpenImages openImages, Pools pools, TimeProvider time, ILogger<ExportCatalog> logger)
    {
        (_options, _grains, _openImages, _pools, _time, _logger) = (options, grains, openImages, pools, time, logger);
        foreach (ExportSetting export in options.Exports)
            _configured.Add(new GrainExport(grains, openImages, time, export));
    }

    /// <summary>The exports of this moment, those of the configuration first; of one name there is one object.</summary>
    public IReadOnlyCollection<INbdExport> List()
    {
        var exports = new List<INbdExport>(_configured);
        if (!_options.ExportsPools)
            return exports;
        var found = new HashSet<ImageKey>();
        foreach (string pool in _pools.Names)
        {
            foreach (ImageKey image in ImagesOf(pool))
            {
                found.Add(image);
                exports.Add(_ofPools.GetOrAdd(image, key =>
                    new GrainExport(_grains, _openImages, _time, new ExportSetting(key.ToString(), key.ToString(), _pools.IsReadOnly(key.Pool), "", []))));
            }
        }
        foreach ((ImageKey image, GrainExport export) in _ofPools)
        {
            if (!found.Contains(image) && !export.IsInUse)
                _ofPools.TryRemove(image, out _);
        }
        return exports;
    }

    /// <summary>POOL/IMAGE@SNAPSHOT: an internal snapshot of an image of a pool. Nobody lists them, since that would open all images.</summary>
    public INbdExport? FindSnapshot(string name)
    {
        foreach ((string other, GrainExport unused) in _ofSnapshots)
        {
            if (other != name && !unused.IsInUse)
                _ofSnapshots.TryRemove(other, out _);
        }
        // Both names may have the mark in them: the image is one that is there.
        for (int at = name.IndexOf(SnapshotMark); _options.ExportsPools && at >= 0; at = name.IndexOf(SnapshotMark, at + 1))
        {
            if (at + 1 < name.Length && IsThere(name[..at]))
            {
                var setting = new ExportSetting(name, name[..at], IsReadOnly: true, "", []) { Snapshot = name[(at + 1)..] };
                return _ofSnapshots.GetOrAdd(name, _ => new GrainExport(_grains, _openImages, _time, setting));
            }
        }
        return null;
    }

    private bool IsThere(string image)
    {
        try
        {
            return File.Exists(_pools.Find(ImageKey.Parse(image)).Path);
        }
        catch (ImageException)
        {
            return false;
        }
    }

    private IReadOnlyList<ImageKey> ImagesOf(string pool)
    {
        try
        {
            return _pools.List(pool);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Log.PoolUnreadable(_logger, pool, e.Message);
            return [];
        }
    }
}
