//! Tokens like a workspace's: `at+jwt`, signed, with the claims of a real one.
//!
//! ES256 instead of the real RS256, since ring cannot make RSA keys; a padding claim makes up for the shorter
//! signature, so that the lengths are right.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use serde_json::{Value, json};

pub struct Signer {
    key: EcdsaKeyPair,
    header: String,
    random: SystemRandom,
}

/// The claims of a token, except those that the workspace always adds.
pub struct Claims {
    pub subject: String,
    pub client_id: String,
    pub scope: &'static str,
    pub issued_at: i64,
    pub expires_at: i64,
}

impl Claims {
    /// A service principal is its own client; a person signs in with the CLI.
    pub fn of(subject: &str) -> Self {
        let (client_id, scope) = if subject.contains('@') {
            ("databricks-cli".to_owned(), "offline_access all-apis")
        } else {
            (subject.to_owned(), "all-apis")
        };
        Self { subject: subject.to_owned(), client_id, scope, issued_at: 0, expires_at: 0 }
    }

    pub fn from(mut self, issued_at: i64) -> Self {
        self.issued_at = issued_at;
        self
    }

    pub fn until(mut self, expires_at: i64) -> Self {
        self.expires_at = expires_at;
        self
    }
}

impl Signer {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a P-256 key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
            .expect("the key just made");
        let kid = hex(digest(&SHA256, key.public_key().as_ref()).as_ref());
        let header = BASE64.encode(json!({"kid": kid, "typ": "at+jwt", "alg": "ES256"}).to_string());
        Self { key, header, random }
    }

    /// Signs the claims, padded until the whole token has `length` characters.
    pub fn sign(&self, mut claims: Value, length: usize) -> String {
        const DOTS_AND_SIGNATURE: usize = 2 + 86;
        let payload_length = length.saturating_sub(self.header.len() + DOTS_AND_SIGNATURE) * 3 / 4;
        claims["padding"] = json!("");
        let missing = payload_length.saturating_sub(claims.to_string().len());
        claims["padding"] = json!(&random_hex(missing.div_ceil(2))[..missing]);

        let message = format!("{}.{}", self.header, BASE64.encode(claims.to_string()));
        let signature = self.key.sign(&self.random, message.as_bytes()).expect("a signature");
        format!("{message}.{}", BASE64.encode(signature.as_ref()))
    }

    /// The claims of a token that this signer signed, or what is wrong with it.
    pub fn open(&self, token: &str) -> Result<Value, &'static str> {
        let json = |part: &str| -> Option<Value> { serde_json::from_slice(&BASE64.decode(part).ok()?).ok() };
        let parts = token.rsplit_once('.').and_then(|(message, signature)| {
            let (header, claims) = message.split_once('.')?;
            Some((message, json(header)?, json(claims)?, signature))
        });
        let (message, header, claims, signature) = parts.ok_or("not a JWT")?;
        if header["alg"] != "ES256" {
            return Err("not ES256");
        }
        let signature = BASE64.decode(signature).unwrap_or_default();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(message.as_bytes(), &signature)
            .map_err(|_| "forged")?;
        Ok(claims)
    }
}

pub fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    SystemRandom::new().fill(&mut random).expect("randomness");
    hex(&random)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
