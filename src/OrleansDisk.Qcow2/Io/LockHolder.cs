namespace OrleansDisk.Qcow2.Io;

/// <summary>Finds who holds an image lock. The kernel does not tell the process of such a lock, but /proc shows which
/// handles have one.</summary>
internal static class LockHolder
{
    /// <summary>
    /// "name (process id)" of a process that holds a lock on a byte of the file, or null when none can be seen.
    /// </summary>
    /// <param name="path">The file.</param>
    /// <param name="position">The byte.</param>
    /// <param name="ownDescriptor">The handle that asks; its own locks do not count.</param>
    public static string? Describe(string path, int position, int ownDescriptor)
    {
        try
        {
            string target = Path.GetFullPath(path);
            // This process first: one that it is just starting has copies of its handles for a moment.
            if (HoldsLock($"/proc/{Environment.ProcessId}", target, position, ownDescriptor))
                return Name(Environment.ProcessId);
            foreach (string process in Directory.EnumerateDirectories("/proc"))
            {
                if (int.TryParse(Path.GetFileName(process), out int id) && id != Environment.ProcessId
                    && HoldsLock(process, target, position, ignoredDescriptor: -1))
                {
                    return Name(id);
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Only a courtesy to the reader of the message.
        }
        return null;
    }

    private static string Name(int process) => $"{File.ReadAllText($"/proc/{process}/comm").Trim()} (process {process})";

    private static bool HoldsLock(string process, string target, int position, int ignoredDescriptor)
    {
        try
        {
            return Directory.EnumerateFiles($"{process}/fd")
                .Select(Path.GetFileName)
                .Any(descriptor => descriptor != $"{ignoredDescriptor}" && IsLocked(process, descriptor!, target, position));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false; // Processes end, and others' handles are not ours to see.
        }
    }

    private static bool IsLocked(string process, string descriptor, string target, int position)
    {
        try
        {
            return File.ResolveLinkTarget($"{process}/fd/{descriptor}", returnFinalTarget: false)?.FullName == target
                && File.ReadLines($"{process}/fdinfo/{descriptor}").Any(line => IsLockOn(line, position));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false; // A handle that was closed meanwhile says nothing about the others.
        }
    }

    /// <summary>Whether a line such as "lock: 1: OFDLCK ADVISORY READ -1 00:1a:42 100 101" covers the byte.</summary>
    private static bool IsLockOn(string line, int position)
    {
        string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return words.Length > 3 && words.Contains("OFDLCK") && long.TryParse(words[^2], out long first) && first <= position
            && (words[^1] == "EOF" || (long.TryParse(words[^1], out long last) && position <= last));
    }
}
