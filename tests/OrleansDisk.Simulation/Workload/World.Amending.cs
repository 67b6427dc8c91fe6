using OrleansDisk.Qcow2;
using OrleansDisk.Qcow2.Crypto;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Format;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;
using OrleansDisk.Simulation.Crash;
using OrleansDisk.Simulation.Model;

namespace OrleansDisk.Simulation.Workload;

/// <content>Changes of what the image is; each has it alone, and it is opened again afterwards.</content>
internal sealed partial class World
{
    /// <summary>What an image refuses for what it holds, which the model does not follow.</summary>
    private static readonly string[] s_refusals =
    [
        "Cannot decrease refcount entry width", // snapshots share a cluster more often than the new width can say
        "Cannot downgrade an image with zstd compression type and existing compressed clusters",
        "Internal snapshots prevent downgrade of image", // one has another size
    ];

    /// <summary>Version, width of refcounts, features.</summary>
    public async Task AmendAsync(AmendOptions options)
    {
        if (options.Version == 2 && shape.KeepsDiscarded)
            return; // version 2 could not be opened again
        if (options.Version == 2 && (Model.Bitmaps.IsUnsure || Model.Bitmaps.Names.Count > 0))
            return;
        HasChangedSnapshots = true; // their tables are rewritten where they lie
        int openCount = 0;
        await ChangeImageAsync(() => AmendOperation.RunAsync(async () =>
        {
            if (openCount++ > 0)
                await OpenAsync();
            return Image;
        }, options));
    }

    /// <summary>The image gets another backing file, or none; what it reads stays, so what differs is copied before.</summary>
    /// <param name="name">One of <see cref="Backing"/>, or null: none.</param>
    /// <param name="letters">By how many letters its name is longer than it need be.</param>
    public async Task ChangeBackingAsync(string? name, int letters)
    {
        string? before = Image.Header.BackingFile;
        bool isSame = name is not null && before is not null && BackingContents.PlainNameOf(before) == name;
        // A snapshot shows the backing file, too.
        if (!isSame && Snapshots.Any)
            return;
        await ChangeImageAsync(async () =>
        {
            if (!isSame)
            {
                await using IDiskSource? newBacking = name is null ? null : await OpenDiskAsync(name);
                await RebaseOperation.CopyAsync(Image, newBacking, new RebaseOptions { RunBeside = RunLaterAsync });
            }
            await Image.ChangeBackingFileAsync(name is null ? null : BackingContents.LongNameOf(name, letters), name is null ? null : FormatOf(name));
        });
    }

    /// <summary>The image gives up all data, as after a commit: what lies below shows.</summary>
    public async Task MakeEmptyAsync()
    {
        if (shape.DataFile == DataFileKind.Raw)
            return;
        DiskModel.Change change = Model.BeginEmpty(
            [.. Enumerable.Range(0, Model.SectorCount).Select(sector => Backing.ContentOf(Image.Header.BackingFile, sector))]);
        await ChangeAsync(change, 2 * VirtualBytes, isDurable: true, image => new ValueTask(image.MakeEmptyAsync()));
    }

    /// <summary>A key slot gets a password, or all that have it are erased.</summary>
    public async Task ChangeKeysAsync(string password, KeySlotChange change)
    {
        if (shape.Encryption != EncryptionMethod.Luks || Model.Keys.Opens(password) is not { } opens || opens == change.Activates)
            return;
        Model.Keys.Begin(password);
        bool succeeded = await TryAsync(image => new ValueTask(image.ChangeKeySlotsAsync(change)));
        if (succeeded)
            Model.Keys.End(password, change.Activates);
    }

    /// <summary>Holds the keys as all programs see them against the model.</summary>
    private async Task JudgeKeysAsync(bool isDurable)
    {
        if (shape.Encryption != EncryptionMethod.Luks)
            return;
        await using var view = CrashView.Of(StartImage.Name, Disk.Visible);
        using LuksKeys keys = await KeyReader.ReadAsync(view, Image.Header);
        Model.Keys.Judge(keys);
        if (isDurable)
            Model.Keys.Adopt(keys);
    }

    /// <summary>Runs a change that nothing of what the image holds sees, and opens the image again.</summary>
    private async Task ChangeImageAsync(Func<Task> change)
    {
        long begin = Model.BeginFlush();
        bool succeeded = await TryChangeAsync(4 * VirtualBytes, async _ =>
        {
            try
            {
                await change();
                await Image.CloseAsync();
            }
            catch (Qcow2Exception e) when (Array.Exists(s_refusals, refusal => e.Message.StartsWith(refusal, StringComparison.Ordinal)))
            {
                // Nothing has changed, and the image is closed.
            }
        });
        if (Image.HasFailed)
            return;
        if (succeeded)
            Model.EndFlush(begin);
        else
            await CloseRefusedAsync();
        NoteSettled();
        await OpenAsync();
        await JudgeBitmapsAsync();
        await ReadAsync(0, (int)VirtualBytes);
    }

    /// <summary>A change failed before it mattered: the image is closed, and says again what ended its closing.</summary>
    private async Task CloseRefusedAsync()
    {
        Model.Bitmaps.IsUnsure = true; // they may not have been stored
        try
        {
            await Image.CloseAsync();
        }
        catch (IOException)
        {
            // It is the fault that struck before.
        }
    }

    private async Task<IDiskSource> OpenDiskAsync(string name)
    {
        IBlockFile file = host.OpenBacking(name, ImageAccess.Read);
        try
        {
            return FormatOf(name) == "raw" ? new RawImage(file) : await Qcow2Image.OpenAsync(file, new Qcow2OpenOptions { OpenFile = host.OpenBacking });
        }
        catch
        {
            await file.DisposeAsync();
            throw;
        }
    }

    private static string FormatOf(string name) => Path.GetExtension(name)[1..];
}
