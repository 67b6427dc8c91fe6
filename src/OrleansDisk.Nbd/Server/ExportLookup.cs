namespace OrleansDisk.Nbd.Server;

/// <summary>Finds exports by the names clients use.</summary>
internal static class ExportLookup
{
    /// <summary>
    /// The export of that name. The empty name also finds the only export there is (NBD protocol,
    /// "NBD_OPT_EXPORT_NAME": the default export).
    /// </summary>
    public static INbdExport? Find(IReadOnlyCollection<INbdExport> exports, string name)
    {
        foreach (INbdExport export in exports)
        {
            if (export.Name == name)
                return export;
        }
        return name.Length == 0 && exports.Count == 1 ? exports.First() : null;
    }
}
