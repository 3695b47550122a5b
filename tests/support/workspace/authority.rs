//! Our own certificate authority, made at start, so that TLS is really checked and nothing remains to be trusted.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Certificates live a month: Apple's verifier refuses leaves of more than 825 days, and no test runs longer.
const LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Valid since yesterday, for clients whose clock is behind.
const HEAD_START: Duration = Duration::from_secs(86_400);

pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A server's certificate chain and key, both PEM.
pub struct ServerCertificate {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = lasting_a_month(CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = params.self_signed(&key).expect("a self-signed certificate");
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// For host names and addresses.
    pub fn certify(&self, names: &[&str]) -> ServerCertificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let common_name = names.first().expect("a name to certify").clone();
        let mut params = lasting_a_month(CertificateParams::new(names).expect("names a certificate can hold"));
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Required by OpenSSL's strict mode (Python 3.13 and later).
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a P-256 key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a signed certificate");
        ServerCertificate { chain: certificate.pem(), key: key.serialize_pem() }
    }
}

impl ServerCertificate {
    /// For a server that speaks this protocol (ALPN).
    pub fn server_config(&self, protocol: &[u8]) -> Arc<ServerConfig> {
        let chain = vec![CertificateDer::from_pem_slice(self.chain.as_bytes()).expect("our own PEM")];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("our own PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring's protocol versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a key that fits its certificate");
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }
}

fn lasting_a_month(mut params: CertificateParams) -> CertificateParams {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970");
    let now = rcgen::date_time_ymd(1970, 1, 1) + since_1970;
    params.not_before = now - HEAD_START;
    params.not_after = now + LIFE;
    params
}
