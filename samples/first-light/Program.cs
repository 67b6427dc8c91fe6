// Writes a disk through NBD and reads it back: `first-light write|read SOCKET EXPORT`.
using System.Security.Cryptography;
using OrleansDisk.Nbd.Client;

const int blockBytes = 64 << 10;
const int blockCount = 256;

if (args is not [("write" or "read") and string verb, string socketPath, string export])
{
    Console.Error.WriteLine("usage: first-light write|read SOCKET EXPORT");
    return 64;
}

await using NbdClient disk = await NbdClient.ConnectUnixAsync(socketPath, export);
Console.WriteLine($"connected to '{export}': {disk.Bytes / (1 << 20)} MiB");

// Blocks all over the disk, each with bytes that follow from its place.
long stride = disk.Bytes / blockCount / blockBytes * blockBytes;
using var written = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
byte[] block = new byte[blockBytes];
byte[] found = new byte[blockBytes];
for (int i = 0; i < blockCount; i++)
{
    new Random(i).NextBytes(block);
    if (verb == "write")
    {
        await disk.WriteAsync(i * stride, block);
    }
    else
    {
        await disk.ReadAsync(i * stride, found);
        if (!found.AsSpan().SequenceEqual(block))
        {
            Console.Error.WriteLine($"the block at {i * stride} is not what was written");
            return 1;
        }
    }
    written.AppendData(block);
}
if (verb == "write")
    await disk.FlushAsync();
string done = verb == "write" ? "wrote and flushed" : "read and compared";
Console.WriteLine($"{done} {blockCount} blocks of {blockBytes >> 10} KiB, sha256 {Convert.ToHexStringLower(written.GetHashAndReset())[..16]}...");
return 0;
