namespace OrleansDisk.Qcow2.Format;

/// <summary>How an image's compressed clusters are compressed (header field compression_type).</summary>
public enum CompressionType : byte
{
    /// <summary>A raw deflate stream (RFC 1951), without the header of zlib.</summary>
    Zlib = 0,

    /// <summary>One or more frames of zstd (RFC 8878).</summary>
    Zstd = 1,
}
