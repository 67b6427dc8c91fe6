using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace OrleansDisk.Nbd.Tests.Fixtures;

/// <summary>A directory with the files of QEMU's tls-creds-x509: an authority, and a server and a client that it vouches for.</summary>
internal static class TlsFiles
{
    /// <summary>Makes the directory: the server is 127.0.0.1 and "disks.test".</summary>
    public static string Create(string directory)
    {
        Directory.CreateDirectory(directory);
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=authority", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.DigitalSignature, true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, false));
        using X509Certificate2 authority = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(30));
        File.WriteAllText(Path.Combine(directory, "ca-cert.pem"), authority.ExportCertificatePem());
        Issue(directory, "server", "1.3.6.1.5.5.7.3.1", authority);
        Issue(directory, "client", "1.3.6.1.5.5.7.3.2", authority);
        return directory;
    }

    /// <summary>Makes a directory of another one without the client's certificate.</summary>
    public static string CopyWithoutClient(string directory, string target)
    {
        Directory.CreateDirectory(target);
        File.Copy(Path.Combine(directory, "ca-cert.pem"), Path.Combine(target, "ca-cert.pem"));
        return target;
    }

    private static void Issue(string directory, string name, string usage, X509Certificate2 authority)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest($"CN={name}", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(false, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature, true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid(usage)], false));
        var names = new SubjectAlternativeNameBuilder();
        names.AddIpAddress(IPAddress.Loopback);
        names.AddDnsName("disks.test");
        request.CertificateExtensions.Add(names.Build());
        using X509Certificate2 issued = request.Create(authority, authority.NotBefore, authority.NotAfter, RandomNumberGenerator.GetBytes(8));
        File.WriteAllText(Path.Combine(directory, $"{name}-cert.pem"), issued.ExportCertificatePem());
        File.WriteAllText(Path.Combine(directory, $"{name}-key.pem"), key.ExportPkcs8PrivateKeyPem());
    }
}
