using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Shell;

/// <summary>
/// A shell on one disk at a time. It runs in the turns of the disk, so that requests under way and the command that is
/// being read never meet; what they have to say is shown when a command waits.
/// </summary>
internal sealed class ShellSession(Terminal terminal, Secrets secrets, bool takesOptionLists)
{
    private readonly List<string> _finished = [];
    private readonly HashSet<Task> _pending = [];
    private OpenedDisk? _disk;
    private bool _hasToldOfDamage;

    public Secrets Secrets => secrets;

    /// <summary>Whether names are lists of options (--image-opts).</summary>
    public bool TakesOptionLists => takesOptionLists;

    public Terminal Terminal => terminal;

    /// <summary>Set by the command that ends the shell.</summary>
    public bool HasQuit { get; set; }

    public bool HasDisk => _disk is not null;

    /// <summary>The disk that is open.</summary>
    public OpenedDisk Disk => _disk ?? throw new InvalidOperationException("no disk is open");

    /// <summary>The disk for changing it.</summary>
    public IWritableDisk Writable => Disk.Writable ?? throw new CommandFailedException("Block node is read-only");

    /// <summary>Size of the disk in whole sectors.</summary>
    public long DiskBytes => (Disk.Source.VirtualBytes + 511) & ~511L;

    /// <summary>Opens a disk; says why not when it can't.</summary>
    public async Task<bool> OpenAsync(DiskRequest request)
    {
        if (_disk is not null)
        {
            terminal.Error("file open already, try 'help close'");
            return false;
        }
        if (await TryOpenAsync(request) is not { } complaint)
            return true;
        terminal.Error($"{(request.Name is null ? "can't open" : $"can't open device {request.Name}")}: {complaint}");
        return false;
    }

    /// <summary>Opens the disk that is open in another way; it stays as it is when that can't be.</summary>
    public async Task<bool> ReopenAsync(DiskRequest request)
    {
        DiskRequest old = Disk.Request;
        await CloseAsync();
        if (await TryOpenAsync(request) is not { } complaint)
            return true;
        terminal.Error(complaint);
        await OpenAsync(old);
        return false;
    }

    /// <summary>Opens a disk; the text says why it can't, or null.</summary>
    private async Task<string?> TryOpenAsync(DiskRequest request)
    {
        try
        {
            _disk = await DiskOpener.OpenAsync(request);
            if (_disk.Blkdebug is { } blkdebug)
                blkdebug.Report = terminal.WriteLine;
            _hasToldOfDamage = false;
            return null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CommandFailedException)
        {
            return e.Message;
        }
    }

    /// <summary>Waits for what is under way and closes the disk, if one is open.</summary>
    public async Task CloseAsync()
    {
        await DrainAsync();
        if (_disk is not { } disk)
            return;
        _disk = null;
        try
        {
            await disk.DisposeAsync();
        }
        catch (IOException e)
        {
            Complain(e);
        }
    }

    /// <summary>Reads a line and does what it says; false when that failed.</summary>
    public async Task<bool> RunAsync(string line)
    {
        string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        if (words.Length == 0)
            return true;
        if (ShellCommands.Find(words[0]) is not { } command)
        {
            Terminal.WriteError($"command \"{words[0]}\" not found");
            return false;
        }
        try
        {
            if (!IsAdmitted(command, words))
                return false;
            if (command.Writes)
                _ = Writable;
            return await command.RunAsync(this, ShellArguments.Parse(command, words[1..]));
        }
        catch (ShellUsageException)
        {
            terminal.WriteLine(command.Usage);
        }
        catch (ShellException e)
        {
            terminal.WriteLine(e.Message);
        }
        catch (CommandFailedException e)
        {
            terminal.Error(e.Message);
        }
        return false;
    }

    /// <summary>Starts a request that goes on while other commands are read.</summary>
    /// <param name="request">Does it, and gives the text to show.</param>
    public void Start(Func<Task<string>> request)
    {
        Task running = RunInBackgroundAsync(request);
        if (!running.IsCompleted)
            _pending.Add(running);
    }

    /// <summary>Shows what requests said that ended meanwhile.</summary>
    public void ShowFinished()
    {
        foreach (string text in _finished)
            terminal.Write(text);
        _finished.Clear();
    }

    /// <summary>Waits until nothing is under way.</summary>
    public async Task DrainAsync()
    {
        while (_pending.Count > 0)
            _pending.ExceptWith([await Task.WhenAny(_pending)]);
        ShowFinished();
    }

    /// <summary>What a request that failed is told to be; damage of the image is named once, on the error output.</summary>
    public string Complain(Exception e)
    {
        bool isDamage = e is Qcow2CorruptException;
        if ((isDamage && !_hasToldOfDamage) || e is Qcow2UnsupportedException)
            Terminal.WriteError(e.Message);
        _hasToldOfDamage |= isDamage;
        return ShellText.ErrorOf(e);
    }

    private bool IsAdmitted(ShellCommand command, string[] words)
    {
        if (!command.NeedsNoDisk && _disk is null)
        {
            Terminal.WriteError("no file open, try 'help open'");
            return false;
        }
        int count = words.Length - 1;
        if (count >= command.MinWords && count <= (command.MaxWords ?? int.MaxValue))
            return true;
        string expected = command.MaxWords is not { } most ? $"at least {command.MinWords}"
            : most == command.MinWords ? $"{most}" : $"between {command.MinWords} and {most}";
        Terminal.WriteError($"bad argument count {count} to {words[0]}, expected {expected} arguments");
        return false;
    }

    private async Task RunInBackgroundAsync(Func<Task<string>> request) => _finished.Add(await request());
}
