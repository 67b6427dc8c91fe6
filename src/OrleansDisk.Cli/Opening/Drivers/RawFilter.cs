using OrleansDisk.Qcow2.Data;

namespace OrleansDisk.Cli.Opening.Drivers;

/// <summary>The raw driver on top of a disk that is not a file: it knows its holes.</summary>
internal sealed class RawFilter(IWritableDisk below) : FilterDisk(below)
{
    public override string Format => "raw";
}
