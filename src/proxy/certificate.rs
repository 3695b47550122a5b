//! TLS for clients that insist on it: the certificate and the key that `proxy_tls` names.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::client;
use crate::config::{Config, remark_on_mode};
use crate::failure::{Code, Failure};
use crate::os::files::read_bytes;
use crate::words;

/// That clients can be given TLS, where that is set.
///
/// # Errors
/// Configuration: the file cannot be used.
pub(crate) fn check_certificate(config: &Config) -> Result<(), Failure> {
    acceptor(config).map(drop)
}

/// TLS for clients; none where it is not set.
///
/// # Errors
/// Configuration: the file cannot be used.
pub(super) fn acceptor(config: &Config) -> Result<Option<TlsAcceptor>, Failure> {
    let Some(path) = config.local_proxy.tls.as_deref() else { return Ok(None) };
    let fail = |why: String| {
        Failure::permanent(Code::Configuration, format!("cannot use proxy_tls {}: {why}", path.display()))
            .hint("it must hold a certificate and its private key in PEM form, and be readable by this user alone")
    };
    let pem = Zeroizing::new(read_bytes(path).map_err(|error| fail(words::of_io(&error)))?);
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| fail(words::of_pem(&error).to_owned()))?;
    if chain.is_empty() {
        return Err(fail("it holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| fail("it holds no private key".to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => fail("its private key is that of another certificate".to_owned()),
            error => fail(words::of_tls(&error)),
        })?;
    tls.alpn_protocols = vec![client::ALPN.to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(tls))))
}

/// What is to be said where others can read the private key; a group may where root owns the file, as for PostgreSQL's own
/// `ssl_key_file`.
pub(crate) fn remark_on_key(config: &Config) -> Option<String> {
    let path = config.local_proxy.tls.as_deref()?;
    let is_roots = std::fs::metadata(path).ok()?.uid() == 0;
    remark_on_mode(path, if is_roots { 0o037 } else { 0o077 }, "proxy's private key")
}
