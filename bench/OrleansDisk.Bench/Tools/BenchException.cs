namespace OrleansDisk.Bench.Tools;

/// <summary>The measurement can't go on; the message names what is missing or failed, and the remedy.</summary>
internal sealed class BenchException(string message) : Exception(message);
