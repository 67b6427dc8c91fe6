namespace OrleansDisk.Abstractions;

/// <summary>An image can't do what was asked. The message names the image, the reason and the remedy.</summary>
[GenerateSerializer, Alias("OrleansDisk.ImageException")]
public sealed class ImageException : Exception
{
    public ImageException(SectorError error, string message) : base(message) => Error = error;

    public ImageException(SectorError error, string message, Exception? inner) : base(message, inner) => Error = error;

    [Id(0)]
    public SectorError Error { get; private set; }
}
