using OrleansDisk.Qcow2.Check;
using OrleansDisk.Qcow2.Metadata;

namespace OrleansDisk.Qcow2;

/// <content>A check of the image while it is in use.</content>
public sealed partial class Qcow2Image
{
    private const int MaxCheckAttempts = 3;
    private Task _lastCheck = Task.CompletedTask;

    /// <summary>
    /// Checks the image as it is at one moment. That moment costs guests a write-back; while the check runs they go on
    /// (docs/consistency.md, "Check in use"). Resizing and snapshots make it begin again; checks wait for each other.
    /// </summary>
    /// <param name="options">What else is wanted; findings are passed on when the check is over.</param>
    /// <exception cref="Qcow2FailedException">The image has stopped.</exception>
    /// <exception cref="Io.BlockFileException">The file can't be read.</exception>
    public Task<CheckReport> CheckAsync(CheckOptions options)
    {
        Task<CheckReport> check = CheckAfterAsync(_lastCheck, options);
        _lastCheck = check;
        return check;
    }

    private async Task<CheckReport> CheckAfterAsync(Task before, CheckOptions options)
    {
        await Task.WhenAny(before);
        CheckReport report = await CheckInUseAsync(options with { OnFinding = null }) ?? await CheckAloneAsync(options with { OnFinding = null });
        foreach (CheckFinding finding in report.Findings)
            options.OnFinding?.Invoke(finding);
        return report;
    }

    /// <summary>Checks a view of the image; null when it always ended too soon.</summary>
    private async Task<CheckReport?> CheckInUseAsync(CheckOptions options)
    {
        for (int attempt = 0; attempt < MaxCheckAttempts; attempt++)
        {
            SettledView view;
            using (await _metadata.Gate.EnterExclusiveAsync())
            {
                ThrowIfClosed();
                if (!IsReadOnly)
                    await GuardAsync(() => new ValueTask(_metadata.SettleAsync()));
                view = _metadata.BeginView();
            }
            try
            {
                return await ImageCheck.RunAsync(view, options);
            }
            catch (ViewEndedException)
            {
                ThrowIfClosed();
            }
            finally
            {
                if (_metadata.IsCurrent(view))
                    await _metadata.EndViewAsync();
            }
        }
        return null;
    }

    private async Task<CheckReport> CheckAloneAsync(CheckOptions options)
    {
        CheckReport? report = null;
        await RunSettledAsync(async file => report = await ImageCheck.RunAsync(file, options));
        return report!;
    }
}
