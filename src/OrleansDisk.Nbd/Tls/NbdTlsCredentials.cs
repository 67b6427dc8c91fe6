using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace OrleansDisk.Nbd.Tls;

/// <summary>
/// X.509 credentials for TLS, from a directory with the file names of QEMU's tls-creds-x509: ca-cert.pem, and server-cert.pem
/// with server-key.pem, or client-cert.pem with client-key.pem. For use by any number of connections.
/// </summary>
public sealed class NbdTlsCredentials
{
    private readonly X509Certificate2Collection _authorities = [];
    private readonly SslStreamCertificateContext? _own;
    private readonly bool _verifiesPeer;

    /// <summary>Reads the files.</summary>
    /// <param name="directory">Where they are.</param>
    /// <param name="isServer">Whether they are for a server, which must have a certificate; a client may have none.</param>
    /// <param name="verifiesPeer">Whether the other side must show a certificate of the authority.</param>
    /// <exception cref="IOException">A file is missing or can't be used; the message names it.</exception>
    public NbdTlsCredentials(string directory, bool isServer, bool verifiesPeer = true)
    {
        (IsServer, _verifiesPeer) = (isServer, verifiesPeer);
        string authority = Path.Combine(directory, "ca-cert.pem");
        if (File.Exists(authority) || verifiesPeer)
            Read(authority, () => _authorities.ImportFromPemFile(authority));
        if (File.Exists(Path.Combine(directory, "ca-crl.pem")))
            throw new IOException($"'{directory}' has a ca-crl.pem; lists of revoked certificates are not supported, so remove it to do without");
        string name = isServer ? "server" : "client";
        string certificate = Path.Combine(directory, $"{name}-cert.pem");
        string key = Path.Combine(directory, $"{name}-key.pem");
        if (!isServer && !File.Exists(certificate))
            return;
        Read(certificate, () => File.OpenRead(certificate).Dispose());
        X509Certificate2 own = Read(key, () => X509Certificate2.CreateFromPemFile(certificate, key));
        var more = new X509Certificate2Collection();
        Read(certificate, () => more.ImportFromPemFile(certificate));
        more.AddRange(_authorities);
        _own = SslStreamCertificateContext.Create(own, more, offline: true);
    }

    /// <summary>Whether they are for a server.</summary>
    public bool IsServer { get; }

    /// <summary>The server's part of the TLS handshake; blocks.</summary>
    /// <exception cref="IOException">It fails; the message says why.</exception>
    internal SslStream Accept(Stream stream)
    {
        string? failure = null;
        var tls = new SslStream(stream);
        try
        {
            tls.AuthenticateAsServer(new SslServerAuthenticationOptions
            {
                ServerCertificateContext = _own,
                ClientCertificateRequired = _verifiesPeer,
                CertificateChainPolicy = Policy(),
                RemoteCertificateValidationCallback = (_, _, _, errors) => Verify(errors, "", out failure),
            });
            return tls;
        }
        catch (Exception e) when (e is AuthenticationException or IOException or ObjectDisposedException)
        {
            tls.Dispose();
            throw new IOException($"TLS handshake failed: {failure ?? e.Message}", e);
        }
    }

    /// <summary>The client's part of the TLS handshake.</summary>
    /// <param name="stream">The connection.</param>
    /// <param name="hostName">The name that the server's certificate must have, or null: there is none.</param>
    /// <param name="cancellation">Ends waiting.</param>
    /// <exception cref="IOException">It fails; the message says why.</exception>
    internal async Task<SslStream> ConnectAsync(Stream stream, string? hostName, CancellationToken cancellation)
    {
        if (hostName is null && _verifiesPeer)
            throw new IOException("No hostname for certificate validation");
        string? failure = null;
        var tls = new SslStream(stream);
        try
        {
            await tls.AuthenticateAsClientAsync(new SslClientAuthenticationOptions
            {
                TargetHost = hostName ?? "",
                ClientCertificateContext = _own,
                CertificateChainPolicy = Policy(),
                RemoteCertificateValidationCallback = (_, _, _, errors) => Verify(errors, hostName ?? "", out failure),
            }, cancellation);
            return tls;
        }
        catch (Exception e) when (e is AuthenticationException or IOException)
        {
            await tls.DisposeAsync();
            throw new IOException(failure ?? $"TLS handshake failed: {e.Message}", e);
        }
    }

    /// <summary>Only the given authority counts, and nothing is fetched from anywhere.</summary>
    private X509ChainPolicy Policy()
    {
        var policy = new X509ChainPolicy
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck,
            DisableCertificateDownloads = true,
        };
        policy.CustomTrustStore.AddRange(_authorities);
        return policy;
    }

    private bool Verify(SslPolicyErrors errors, string hostName, out string? failure)
    {
        failure = !_verifiesPeer ? null
            : errors.HasFlag(SslPolicyErrors.RemoteCertificateNotAvailable) ? "No certificate was found."
            : errors.HasFlag(SslPolicyErrors.RemoteCertificateChainErrors) ? "The certificate hasn't got a known issuer"
            : errors.HasFlag(SslPolicyErrors.RemoteCertificateNameMismatch) ? $"Certificate does not match the hostname {hostName}"
            : null;
        return failure is null;
    }

    private static void Read(string path, Action read) => Read(path, () =>
    {
        read();
        return true;
    });

    private static T Read<T>(string path, Func<T> read)
    {
        try
        {
            return read();
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new IOException($"Unable to access credentials {path}: No such file or directory", e);
        }
        catch (Exception e) when (e is CryptographicException or UnauthorizedAccessException)
        {
            throw new IOException($"Unable to import credentials {path}: {e.Message}", e);
        }
    }
}
