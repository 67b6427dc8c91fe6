using OrleansDisk.Cli.CommandLine;
using OrleansDisk.Cli.Opening;
using OrleansDisk.Cli.Output;
using OrleansDisk.Cli.Shell;
using OrleansDisk.Qcow2.Data;
using OrleansDisk.Qcow2.Io;
using OrleansDisk.Qcow2.Operations;

namespace OrleansDisk.Cli.Commands;

/// <summary>The image that a convert command makes, or that it finds.</summary>
internal sealed class ConvertTarget
{
    private readonly ConvertArguments _arguments;
    private readonly NewImage? _new;
    private readonly long _virtualBytes;

    /// <param name="arguments">What the command was given.</param>
    /// <param name="virtualBytes">Length of all sources together.</param>
    /// <exception cref="CommandFailedException">The target can't be had as it was asked for.</exception>
    public ConvertTarget(ConvertArguments arguments, long virtualBytes)
    {
        (_arguments, _virtualBytes) = (arguments, virtualBytes);
        string? backing = arguments.Options.Value("B");
        string? backingFormat = arguments.Options.Value("F");
        if (!arguments.SkipsCreation)
        {
            _new = NewImage.OfSource(arguments.Target, arguments.TargetFormat!, arguments.Options, (backing, backingFormat));
            (backing, backingFormat) = (_new["backing_file"], _new["backing_fmt"]);
        }
        HasBacking = backing is not null;
        RefuseBacking(backingFormat);
        if (arguments.Compresses)
            RefuseCompression();
    }

    /// <summary>Whether the target is to have a backing file.</summary>
    public bool HasBacking { get; }

    /// <summary>Makes the target, unless it is there.</summary>
    public async Task CreateAsync()
    {
        if (_new is null)
            return;
        try
        {
            await _new.CreateAsync(_virtualBytes);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CommandFailedException)
        {
            throw new CommandFailedException($"{_arguments.Target}: error while converting {_arguments.TargetFormat}: {e.Message}");
        }
    }

    /// <summary>Opens the target.</summary>
    public async Task<OpenedDisk> OpenAsync()
    {
        var request = DiskRequest.Of(_arguments.Target, _arguments.Options.Has("target-image-opts"), _arguments.TargetFormat) with
        {
            Access = ImageAccess.Write,
            Cache = Command.CacheOf(_arguments.Options.Value("t") ?? "unsafe"),
            Secrets = _arguments.Secrets,
        };
        foreach (string name in (ReadOnlySpan<string>)["encrypt.key-secret", "key-secret"])
        {
            if (_new?[name] is { } secret)
                request.Options[name] = secret;
        }
        return await DiskOpener.OpenAsync(request);
    }

    /// <summary>How the sources are copied to the target.</summary>
    /// <param name="target">The target, open.</param>
    /// <exception cref="CommandFailedException">It can't take them.</exception>
    public ConvertOptions OptionsFor(OpenedDisk target)
    {
        if (_arguments.Compresses && target.Image is null)
            throw new CommandFailedException("Compression not supported for this file format");
        if (target.Source.VirtualBytes < _virtualBytes)
            throw new CommandFailedException("output file is smaller than input file");
        ParsedOptions options = _arguments.Options;
        bool isNewAndZero = _new is not null && _arguments.SparseBytes > 0 && !HasBacking && !HoldsOldBytes(target);
        return new ConvertOptions
        {
            SparseBytes = _arguments.SparseBytes,
            Compress = _arguments.Compresses,
            ParallelCount = _arguments.ParallelCount,
            InOrder = !options.Has("W"),
            LetHostCopy = options.Has("C"),
            TargetIsZero = isNewAndZero || options.Has("target-is-zero"),
            TargetBackingBytes = !HasBacking ? null : _new is null ? long.MaxValue : target.Source.Backing?.VirtualBytes ?? 0,
            OnUnreadable = options.Has("salvage") ? (offset, error) => Tell("reading", offset, error) : null,
            OnUnknown = options.Has("salvage") ? (offset, error) => Tell("reading block status at", offset, error) : null,
            Pace = _arguments.Rate > 0 ? new RateLimit(_arguments.Rate).WaitAsync : null,
        };
    }

    /// <summary>
    /// Whether what was never written reads as something: what a device held, or what an unwritten encrypted cluster deciphers to.
    /// </summary>
    private bool HoldsOldBytes(OpenedDisk target) => target.Source is LuksImage or RawImage { IsDevice: true }
        || target.Image is { Header: { Version: < 3, Encryption: not Qcow2.Format.EncryptionMethod.None } } && _new!["preallocation"] is not (null or "off");

    private void Tell(string what, long offset, Exception error)
    {
        if (!_arguments.Options.Has("q"))
            Terminal.Warn($"error while {what} offset {offset}: {ShellText.ErrorOf(error)}");
    }

    private void RefuseBacking(string? backingFormat)
    {
        if (!HasBacking)
            return;
        if (_arguments.Options.Has("target-is-zero"))
            throw new CommandFailedException("Cannot use --target-is-zero when the destination image has a backing file");
        if (_arguments.Sources.Count > 1)
        {
            throw new CommandFailedException(
                "Having a backing file for the target makes no sense when concatenating multiple input images");
        }
        if (_new is not null && backingFormat is null)
            throw new CommandFailedException("Use of backing file requires explicit backing format");
    }

    private void RefuseCompression()
    {
        if (_arguments.TargetFormat is "raw" or "luks" && !_arguments.SkipsCreation)
            throw new CommandFailedException("Compression not supported for this file format");
        if (_new?["encrypt.format"] is not null || _new?["encryption"] is "on")
            throw new CommandFailedException("Compression and encryption not supported at the same time");
        if (_new?["preallocation"] is not (null or "off"))
            throw new CommandFailedException("Compression and preallocation not supported at the same time");
    }
}
