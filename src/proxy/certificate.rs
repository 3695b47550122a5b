//! TLS for clients that insist on it: the certificate and the key that `proxy_tls` names.

use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, Error, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::client;
use crate::config::{Config, remark_on_mode};
use crate::failure::{Code, Failure};
use crate::os::files::read_bytes;
use crate::words;

/// How long before its end a certificate is told of.
const SOON: Duration = Duration::from_secs(14 * 86_400);

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
    let chain = chain(&pem).map_err(|why| fail(why.to_owned()))?;
    if chain.is_empty() {
        return Err(fail("it holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| fail("it holds no private key".to_owned()))?;
    let mut tls = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => fail("its private key is that of another certificate".to_owned()),
            error => fail(words::of_tls(&error)),
        })?;
    tls.alpn_protocols = vec![client::ALPN.to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(tls))))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| words::of_pem(&error))
}

/// What is to be said of a file that can be used.
pub(crate) fn remarks(config: &Config) -> Vec<String> {
    let Some(path) = config.local_proxy.tls.as_deref() else { return Vec::new() };
    remark_on_key(path).into_iter().chain(remark_on_dates(path)).collect()
}

/// Where others can read the private key; a group may where root owns the file, as for PostgreSQL's own `ssl_key_file`.
fn remark_on_key(path: &Path) -> Option<String> {
    let is_roots = std::fs::metadata(path).ok()?.uid() == 0;
    remark_on_mode(path, if is_roots { 0o037 } else { 0o077 }, "proxy's private key")
}

/// Where clients that look at the certificate's dates refuse it, or soon will.
fn remark_on_dates(path: &Path) -> Option<String> {
    let chain = chain(&Zeroizing::new(read_bytes(path).ok()?)).ok()?;
    let now = UnixTime::now();
    let soon = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + SOON);
    let what = match (fault_of_dates(&chain, now), fault_of_dates(&chain, soon)) {
        (Some(Dates::Over), _) => "has expired: clients that check it refuse the proxy".to_owned(),
        (Some(Dates::ToCome), _) => "is not valid yet: clients that check it refuse the proxy".to_owned(),
        (None, Some(Dates::Over)) => format!("expires within {} days", SOON.as_secs() / 86_400),
        (None, _) => return None,
    };
    let path = path.display();
    Some(format!(
        "the certificate in proxy_tls {path} {what}. Replace it, then reload the proxy (by a signal HUP, or `systemctl --user reload dbx-rotator-proxy`)"
    ))
}

/// Why a certificate cannot be used at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dates {
    Over,
    ToCome,
}

/// What the dates of one of these certificates say at this time. Whatever else may be wrong with them is for its clients to judge: they
/// know whom they trust.
fn fault_of_dates(chain: &[CertificateDer<'static>], at: UnixTime) -> Option<Dates> {
    chain.iter().find_map(|certificate| {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).ok()?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider()).build().ok()?;
        // The dates are what is looked at first, so that the name does not matter.
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        match verifier.verify_server_cert(certificate, &[], &name, &[], at).err()? {
            Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                Some(Dates::Over)
            }
            Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
                Some(Dates::ToCome)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_whose_time_is_over_or_has_not_begun_is_told_from_one_that_is_only_unknown() {
        let of_years = |from, to| {
            let mut parameters = rcgen::CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
            let day = |year| rcgen::date_time_ymd(year, 1, 1);
            (parameters.not_before, parameters.not_after) = (day(from), day(to));
            parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        let (old, new, long) = (of_years(2020, 2021), of_years(2030, 2031), of_years(2020, 2031));
        let in_2025 = UnixTime::since_unix_epoch(Duration::from_secs(1_750_000_000));
        let fault = |chain: &[&CertificateDer<'static>]| {
            fault_of_dates(&chain.iter().copied().cloned().collect::<Vec<_>>(), in_2025)
        };
        assert_eq!(fault(&[&long]), None);
        assert_eq!(fault(&[&old]), Some(Dates::Over));
        assert_eq!(fault(&[&new]), Some(Dates::ToCome));
        // The one that has signed it counts as well.
        assert_eq!(fault(&[&long, &old]), Some(Dates::Over));
    }

    #[test]
    fn who_looks_at_it_is_told_in_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let told_of = |not_after| {
            let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            parameters.not_after = not_after;
            let certificate = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            std::fs::write(file.path(), certificate.pem()).unwrap();
            remark_on_dates(file.path()).unwrap_or_default()
        };
        let now = std::time::SystemTime::now();
        assert!(told_of((now + SOON / 2).into()).contains("expires within 14 days"));
        assert_eq!(told_of((now + SOON * 2).into()), "");
        assert!(told_of((now - SOON).into()).contains("has expired: clients that check it refuse the proxy"));
    }
}
