namespace OrleansDisk.Qcow2.Io;

/// <summary>Finds who holds an image lock. The kernel does not tell the process of such a lock, but /proc shows which
/// handles have one.</summary>
internal static class LockHolder
{
    /// <summary>"name (process id)" of a process with a locked handle on the file, or null when none can be seen.</summary>
    public static string? Describe(string path)
    {
        try
        {
            string target = Path.GetFullPath(path);
            foreach (string process in Directory.EnumerateDirectories("/proc"))
            {
                if (int.TryParse(Path.GetFileName(process), out int id) && HoldsLock(process, target))
                    return $"{File.ReadAllText($"{process}/comm").Trim()} (process {id})";
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Only a courtesy to the reader of the message.
        }
        return null;
    }

    private static bool HoldsLock(string process, string target)
    {
        try
        {
            foreach (string handle in Directory.EnumerateFiles($"{process}/fd"))
            {
                if (File.ResolveLinkTarget(handle, returnFinalTarget: false)?.FullName == target
                    && File.ReadAllText($"{process}/fdinfo/{Path.GetFileName(handle)}").Contains("OFDLCK", StringComparison.Ordinal))
                {
                    return true;
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Processes end, and others' handles are not ours to see.
        }
        return false;
    }
}
