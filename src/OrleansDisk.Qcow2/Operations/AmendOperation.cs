using System.Numerics;
using System.Text;
using OrleansDisk.Qcow2.Format;

namespace OrleansDisk.Qcow2.Operations;

/// <summary>Changes what an image is: its version, the width of its refcounts, its size, its features.</summary>
public static class AmendOperation
{
    /// <summary>
    /// Changes an image. Every step leaves an image that is sound, whatever ends it; what can be refused is refused
    /// before the first.
    /// </summary>
    /// <param name="open">Opens the image for writing; another width of refcounts needs it twice.</param>
    /// <param name="options">What is to change.</param>
    /// <param name="progress">Told how much is done, from 0 to 1.</param>
    /// <exception cref="Qcow2Exception">A change can't be had; the message says which and why.</exception>
    public static async Task RunAsync(Func<Task<Qcow2Image>> open, AmendOptions options, IProgress<double>? progress = null)
    {
        Qcow2Image image = await open();
        try
        {
            Validate(image.Header, options);
            int version = options.Version ?? image.Header.Version;
            int bits = (int)(options.RefcountBits ?? image.Header.Geometry.RefcountBits);
            bool changesWidth = bits != image.Header.Geometry.RefcountBits;
            bool[] longSteps = [options.KeySlots is not null, version != image.Header.Version, changesWidth];
            var steps = new Steps(progress, longSteps.Count(isAsked => isAsked));
            // The first, since its refusals depend on passwords.
            if (options.KeySlots is { } keySlots)
            {
                await image.ChangeKeySlotsAsync(keySlots);
                steps.EndOne();
            }
            if (version > image.Header.Version)
            {
                await image.UpgradeAsync();
                steps.EndOne();
            }
            if (changesWidth)
            {
                await image.CloseAsync(file => RefcountWidth.ChangeAsync(file, BitOperations.Log2((uint)bits), steps.Report));
                image = await open();
                steps.EndOne();
            }
            await image.ReplaceHeaderAsync(header => Change(header, options));
            if (options.VirtualBytes is { } bytes and > 0)
                await image.ResizeAsync(bytes);
            if (version < image.Header.Version)
            {
                await image.DowngradeAsync(steps.Report);
                steps.EndOne();
            }
        }
        finally
        {
            await image.DisposeAsync();
        }
    }

    /// <summary>All that is a matter of the header alone.</summary>
    private static Header Change(Header header, AmendOptions options)
    {
        if (options.LazyRefcounts is { } isLazy && header.Version >= 3)
        {
            CompatibleFeatures others = header.Compatible & ~CompatibleFeatures.LazyRefcounts;
            header = header with { Compatible = isLazy ? others | CompatibleFeatures.LazyRefcounts : others };
        }
        if (options.DataFileRaw is false)
            header = header with { Autoclear = header.Autoclear & ~AutoclearFeatures.RawExternalData };
        if (options.DataFile is not { } name)
            return header;
        List<HeaderExtension> extensions =
            [.. header.Extensions.Where(extension => extension.Type != HeaderExtensionType.ExternalDataFileName)];
        if (name.Length > 0)
            extensions.Add(new HeaderExtension(HeaderExtensionType.ExternalDataFileName, Encoding.UTF8.GetBytes(name)));
        return header with { Extensions = extensions };
    }

    private static void Validate(Header header, AmendOptions options)
    {
        int version = options.Version ?? header.Version;
        if (version is not (2 or 3))
            throw new Qcow2Exception($"qcow2 version {version} does not exist; use 2 or 3");
        ValidateDataFile(header, options);
        ValidateEncryption(header, options);
        ValidateRefcountBits(header, options, version);
        bool namesBacking = options.BackingFile is not null || options.BackingFormat is not null;
        if (namesBacking && (options.BackingFile != header.BackingFile || options.BackingFormat != header.BackingFormat))
            throw new Qcow2Exception("Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.");
        if (version < 3 && options.LazyRefcounts is true && !header.Compatible.HasFlag(CompatibleFeatures.LazyRefcounts))
        {
            throw new Qcow2Exception(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)");
        }
    }

    private static void ValidateRefcountBits(Header header, AmendOptions options, int version)
    {
        long bits = options.RefcountBits ?? header.Geometry.RefcountBits;
        if (bits is <= 0 or > 64 || !BitOperations.IsPow2(bits))
            throw new Qcow2Exception("Refcount width must be a power of two and may not exceed 64 bits");
        if (version < 3 && bits != 16)
        {
            throw new Qcow2Exception(options.RefcountBits is null ? "compat=0.10 requires refcount_bits=16"
                : "Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)");
        }
    }

    private static void ValidateEncryption(Header header, AmendOptions options)
    {
        if (options.KeySlots is not null)
            Qcow2Image.RequireKeySlots(header);
    }

    private static void ValidateDataFile(Header header, AmendOptions options)
    {
        if (options.DataFile is not null && !header.Geometry.HasExternalData)
            throw new Qcow2Exception("data-file can only be set for images that use an external data file");
        if (options.DataFileRaw is true && !header.Autoclear.HasFlag(AutoclearFeatures.RawExternalData))
            throw new Qcow2Exception("data-file-raw cannot be set on existing images");
    }

    /// <summary>How far the steps that take time have come, all taken together.</summary>
    private sealed class Steps(IProgress<double>? progress, int count)
    {
        private int _done;

        public void Report(double part) => progress?.Report((_done + part) / Math.Max(count, 1));

        public void EndOne()
        {
            Report(1);
            _done++;
        }
    }
}
