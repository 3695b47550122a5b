//! TLS as PostgreSQL does it: requested in plain text on the ordinary port.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::bounded::Bounded;
use super::fault::Fault;
use super::requests::SSL_REQUEST;
use super::{SslMode, Target};
use crate::failure::{Code, Failure};
use crate::os::files::read_text;
use crate::words;

/// What is needed to encrypt a connection to one target.
pub(super) struct Tls {
    connector: TlsConnector,
    /// A name is sent to the server, an address is not (RFC 6066, section 3).
    name: ServerName<'static>,
}

impl Tls {
    /// # Errors
    /// Configuration: the host is neither name nor address, or the certificate authorities are unusable or missing.
    pub(super) fn new(target: &Target<'_>) -> Result<Self, Failure> {
        let name = ServerName::try_from(target.host.to_owned()).map_err(|_| {
            Failure::permanent(Code::Configuration, "the host is neither a name nor an address")
                .hint("check the host's spelling; it stands alone, without port, brackets or scheme")
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = verifier(target, &provider)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Requests TLS and completes the handshake. Only one byte is read in plain text, so that nothing sent before TLS
    /// is taken for something sent inside it (CVE-2021-23222).
    pub(super) async fn over(&self, stream: TcpStream) -> Result<TlsStream<Bounded<TcpStream>>, Fault> {
        let mut stream = Bounded::over(stream);
        stream.write_all(&[8_u32.to_be_bytes(), SSL_REQUEST.to_be_bytes()].concat()).await.map_err(Fault::Lost)?;
        match stream.read_u8().await.map_err(Fault::Lost)? {
            b'S' => self.connector.connect(self.name.clone(), stream).await.map_err(Fault::of_io),
            b'N' => Err(Fault::NoTls),
            // The text of the error comes from nobody we can trust (CVE-2024-10977).
            b'E' => Err(Fault::Strange("it answered the request for TLS with an error".to_owned())),
            _ => Err(Fault::Strange("what answers there is no PostgreSQL".to_owned())),
        }
    }
}

fn verifier(target: &Target<'_>, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, Failure> {
    Ok(match (target.sslmode, target.root) {
        (SslMode::Require, None) => Arc::new(Unasked(Arc::clone(provider))),
        (SslMode::Require, Some(root)) => Arc::new(AnyName(from_file(root, provider)?)),
        (SslMode::VerifyFull, Some(root)) => from_file(root, provider)?,
        (SslMode::VerifyFull, None) => Arc::new(Verifier::new(Arc::clone(provider)).map_err(|error| unusable(&error))?),
    })
}

fn from_file(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Failure> {
    let fail = |why: String| {
        Failure::permanent(Code::Configuration, format!("cannot use sslrootcert {}: {why}", path.display()))
            .hint("it must hold one or more certificates in PEM form")
    };
    let pem = read_text(path).map_err(|error| fail(words::of_io(&error)))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| fail(words::of_pem(&error).to_owned()))?;
        roots.add(certificate).map_err(|_| fail("a certificate in it is not well-formed".to_owned()))?;
    }
    if roots.is_empty() {
        return Err(fail("it holds no certificate".to_owned()));
    }
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    builder.build().map_err(|_| fail("no server can be verified with it".to_owned()))
}

fn unusable(error: &Error) -> Failure {
    Failure::permanent(Code::Configuration, format!("cannot set up TLS: {}", words::of_tls(error)))
        .hint("install ca-certificates, check SSL_CERT_FILE and SSL_CERT_DIR, or give sslrootcert")
}

/// `require` without a root: any certificate will do, as in libpq, but the server must have its key.
#[derive(Debug)]
struct Unasked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unasked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `require` with a root: from one of these authorities, for any name (PostgreSQL, "libpq: SSL Support").
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(certificate, between, name, ocsp, now) {
            // The name is checked last, after everything else.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::server::Acceptor;
    use tokio::net::TcpListener;
    use tokio_rustls::LazyConfigAcceptor;

    use super::*;

    fn target(host: &str) -> Target<'_> {
        Target { host, port: 5432, database: "db", user: "ada", sslmode: SslMode::Require, root: None }
    }

    #[tokio::test]
    async fn the_server_is_told_a_hosts_name_and_never_its_address() {
        for (host, told) in [("db.example", Some("db.example")), ("127.0.0.1", None), ("::1", None)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let tls = Tls::new(&target(host)).unwrap();
            let client = async {
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                tls.over(stream).await.map(drop)
            };
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 8];
                stream.read_exact(&mut request).await.unwrap();
                stream.write_all(b"S").await.unwrap();
                let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await.unwrap();
                hello.client_hello().server_name().map(str::to_owned)
            };
            let (ended, name) = tokio::join!(client, server);
            assert_eq!(name.as_deref(), told, "{host}");
            assert!(ended.unwrap_err().may_pass(), "a server that hangs up may be starting");
        }
    }

    #[tokio::test]
    async fn what_answers_the_request_for_tls_with_anything_else_is_not_listened_to() {
        for (answer, words) in [(&b"HTTP/1.1 400"[..], "no PostgreSQL"), (b"E\0\0\0\x0eSFATAL\0Mboo\0\0", "an error")] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let tls = Tls::new(&target("127.0.0.1")).unwrap();
            let client = async {
                let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                tls.over(stream).await.map(drop)
            };
            let server = async { listener.accept().await.unwrap().0.write_all(answer).await.unwrap() };
            let Err(Fault::Strange(what)) = tokio::join!(client, server).0 else { panic!("{answer:?}") };
            assert!(what.contains(words) && !what.contains("boo"), "{what}");
        }
    }

    #[test]
    fn a_host_that_is_neither_name_nor_address_is_a_wrong_setting() {
        for host in ["", "db example", "fe80::1%eth0", "[::1]"] {
            let failure = Tls::new(&target(host)).err().unwrap();
            assert_eq!(failure.code, Code::Configuration, "{failure}");
        }
    }
}
