//! Whom the clients trust, and with which cryptography.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::os::files::read_text;
use crate::words;

/// Who signs in within this time of each other trusts the same authorities.
const SIDE_BY_SIDE: Duration = Duration::from_secs(1);

/// What decides whom to trust, as it was made a moment ago.
struct Made {
    at: Instant,
    authorities: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    verifier: Weak<Verifier>,
}

/// The verifiers that are in use. None is kept at rest: who signs in later reads anew what the platform trusts.
static VERIFIERS: Mutex<Vec<Made>> = Mutex::new(Vec::new());

/// Trusts the platform's authorities and these. Identities that sign in side by side share one: read once for each, the authorities of
/// a hundred would take more memory than all the rest.
fn verifier(
    authorities: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<Verifier>, rustls::Error> {
    let mut all = VERIFIERS.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|made| made.at.elapsed() < SIDE_BY_SIDE && made.verifier.strong_count() > 0);
    let same = |made: &&Made| made.authorities == authorities && Arc::ptr_eq(&made.provider, provider);
    if let Some(verifier) = all.iter().find(same).and_then(|made| made.verifier.upgrade()) {
        return Ok(verifier);
    }
    let verifier = Arc::new(Verifier::new_with_extra_roots(authorities.clone(), Arc::clone(provider))?);
    let (at, provider) = (Instant::now(), Arc::clone(provider));
    all.push(Made { at, authorities, provider, verifier: Arc::downgrade(&verifier) });
    Ok(verifier)
}

/// TLS for HTTP/1.1, that trusts the platform's authorities and these.
pub(super) fn of_platform_and(authorities: Vec<CertificateDer<'static>>) -> Result<ClientConfig, rustls::Error> {
    let provider = cryptography();
    let verifier = verifier(authorities, &provider)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(for_http(config))
}

/// The cryptography that the application has chosen for its process, else ring; that choice is never made for others.
pub(super) fn cryptography() -> Arc<CryptoProvider> {
    static OURS: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let ours = || OURS.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(CryptoProvider::get_default().unwrap_or_else(ours))
}

/// As every client here has it.
pub(super) fn for_http(mut config: ClientConfig) -> ClientConfig {
    // A client serves one sign-in, and room for 256 sessions is more than it needs otherwise.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// What TLS lacks.
pub(super) fn unusable(why: &str) -> Failure {
    Failure::permanent(Code::Configuration, format!("cannot set up TLS: {}", quoted(why)))
        .hint("install ca-certificates, or check SSL_CERT_FILE and SSL_CERT_DIR")
}

/// The authorities in a file of the configuration.
///
/// # Errors
/// Permanent: it cannot be read, or is no such file.
pub(super) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let what = format!("ca_file {}", path.display());
    let pem = read_text(path).map_err(|error| cannot_use(&what, &words::of_io(&error)))?;
    in_pem(pem.as_bytes(), &what).map(|(certificates, _)| certificates)
}

/// Certificates in PEM form, as they are and as roots; `what` they are is for messages.
///
/// # Errors
/// Permanent: there are none, or one is not well-formed.
pub(super) fn in_pem(pem: &[u8], what: &str) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), Failure> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| cannot_use(what, words::of_pem(&error)))?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        let added = roots.add(certificate.clone());
        added.map_err(|_| cannot_use(what, "a certificate in it is not well-formed"))?;
    }
    if certificates.is_empty() {
        return Err(cannot_use(what, "it holds no certificate"));
    }
    Ok((certificates, roots))
}

fn cannot_use(what: &str, why: &str) -> Failure {
    Failure::permanent(Code::Configuration, format!("cannot use {what}: {why}"))
        .hint("it must hold one or more certificates in PEM form")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_signs_in_at_the_same_moment_shares_what_is_trusted_and_nothing_is_kept() {
        let provider = || Arc::new(rustls::crypto::ring::default_provider());
        let (ours, others) = (provider(), provider());
        let authority =
            rcgen::generate_simple_self_signed(["authority.example".to_owned()]).unwrap().cert.der().clone();
        let one = verifier(Vec::new(), &ours).unwrap();
        assert!(Arc::ptr_eq(&one, &verifier(Vec::new(), &ours).unwrap()));
        assert!(!Arc::ptr_eq(&one, &verifier(vec![authority], &ours).unwrap()));
        assert!(!Arc::ptr_eq(&one, &verifier(Vec::new(), &others).unwrap()));
        let kept = Arc::downgrade(&one);
        drop(one);
        assert!(kept.upgrade().is_none());
    }
}
