using System.Security.Cryptography;

namespace OrleansDisk.Qcow2.Crypto;

/// <summary>A password in memory that the garbage collector does not move about; disposing it wipes it.</summary>
public sealed class Secret : IDisposable
{
    private readonly byte[] _bytes;

    /// <param name="bytes">The password as QEMU's secret objects have it; it is copied.</param>
    public Secret(ReadOnlySpan<byte> bytes)
    {
        _bytes = GC.AllocateArray<byte>(bytes.Length, pinned: true);
        bytes.CopyTo(_bytes);
    }

    /// <summary>The password; zeros once the secret is disposed.</summary>
    public ReadOnlySpan<byte> Bytes => _bytes;

    public void Dispose() => CryptographicOperations.ZeroMemory(_bytes);
}
