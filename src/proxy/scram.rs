//! The proxy's own password, asked for by SCRAM-SHA-256 (RFC 5802, RFC 7677; PostgreSQL, "SASL Authentication"). Pure, but for the
//! random numbers that it is given.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// As PostgreSQL has it (SCRAM_SHA_256_DEFAULT_ITERATIONS). The password is random, so that more would protect nothing.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);

const LENGTH: usize = digest::SHA256_OUTPUT_LEN;

/// The longest message of a client that is read, in bytes.
pub(super) const LONGEST: usize = 2_000;

/// What the server keeps of a password: with it nobody can log in elsewhere.
#[derive(Clone)]
pub(super) struct Verifier {
    salt: [u8; 16],
    stored_key: [u8; LENGTH],
    server_key: hmac::Key,
}

impl Verifier {
    pub(super) fn of(password: &SecretString, salt: [u8; 16]) -> Self {
        let mut salted = Zeroizing::new([0; LENGTH]);
        let password = password.expose_secret().as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password, salted.as_mut_slice());
        let salted = hmac::Key::new(hmac::HMAC_SHA256, salted.as_slice());
        let client_key = hmac::sign(&salted, b"Client Key");
        let mut stored_key = [0; LENGTH];
        stored_key.copy_from_slice(digest::digest(&digest::SHA256, client_key.as_ref()).as_ref());
        let server_key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&salted, b"Server Key").as_ref());
        Verifier { salt, stored_key, server_key }
    }

    /// Answers the client's first message; `nonce` is new for each exchange. None if that is not one.
    pub(super) fn begin(&self, client_first: &str, nonce: &str) -> Option<Exchange> {
        // Without channel binding: the client has none, or thinks that we have none.
        let bare = client_first.strip_prefix("n,").or_else(|| client_first.strip_prefix("y,"))?;
        let (identity, bare) = bare.split_once(',')?;
        let header = &client_first[..client_first.len() - bare.len()];
        let mut fields = bare.split(',');
        // The user's name is that of the session, as PostgreSQL has it.
        let is_usual = identity.is_empty() && fields.next()?.starts_with("n=");
        let client_nonce = fields.next()?.strip_prefix("r=").filter(|nonce| is_usual && !nonce.is_empty())?;
        let nonce = format!("{client_nonce}{nonce}");
        let server_first = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(self.salt));
        Some(Exchange { header: STANDARD.encode(header), nonce, bare: bare.to_owned(), server_first })
    }

    /// The answer to a right proof; none where it is wrong.
    pub(super) fn end(&self, exchange: &Exchange, client_final: &str) -> Option<String> {
        let (without_proof, proof) = client_final.rsplit_once(",p=")?;
        let mut fields = without_proof.split(',');
        let is_bound = fields.next()?.strip_prefix("c=")? == exchange.header;
        let is_same = fields.next()?.strip_prefix("r=")? == exchange.nonce;
        let mut proof = STANDARD.decode(proof).ok().filter(|proof| proof.len() == LENGTH && is_bound && is_same)?;
        let message = format!("{},{},{without_proof}", exchange.bare, exchange.server_first);
        let stored_key = hmac::Key::new(hmac::HMAC_SHA256, &self.stored_key);
        let signature = hmac::sign(&stored_key, message.as_bytes());
        // Now it is the client's key, if the client knows the password.
        proof.iter_mut().zip(signature.as_ref()).for_each(|(byte, other)| *byte ^= other);
        let hash = digest::digest(&digest::SHA256, &proof);
        // How long the comparison takes tells about the hash of something random.
        let is_right = hash.as_ref() == self.stored_key;
        is_right.then(|| format!("v={}", STANDARD.encode(hmac::sign(&self.server_key, message.as_bytes()))))
    }
}

/// One exchange, after the client's first message.
pub(super) struct Exchange {
    /// What the client's first message began with, in base64.
    header: String,
    nonce: String,
    bare: String,
    pub(super) server_first: String,
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    use super::*;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    fn exchanged(verifier: &Verifier, password: &str, binding: ChannelBinding) -> bool {
        let mut client = ScramSha256::new(password.as_bytes(), binding);
        let exchange = verifier.begin(text(client.message()), "server").unwrap();
        client.update(exchange.server_first.as_bytes()).unwrap();
        let Some(last) = verifier.end(&exchange, text(client.message())) else { return false };
        client.finish(last.as_bytes()).unwrap();
        true
    }

    #[test]
    fn the_right_password_opens_and_no_other_does() {
        let verifier = Verifier::of(&"sesame".into(), [7; 16]);
        assert!(exchanged(&verifier, "sesame", ChannelBinding::unsupported()));
        assert!(exchanged(&verifier, "sesame", ChannelBinding::unrequested()));
        for wrong in ["Sesame", "", "sesame "] {
            assert!(!exchanged(&verifier, wrong, ChannelBinding::unsupported()), "{wrong}");
        }
    }

    /// RFC 7677, section 3.
    #[test]
    fn it_is_the_exchange_of_the_standard() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::of(&"pencil".into(), salt.try_into().unwrap());
        let exchange = verifier.begin("n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
        assert_eq!(
            exchange.server_first,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let answer = verifier.end(&exchange, last).unwrap();
        assert_eq!(answer, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn what_is_no_message_of_it_is_refused() {
        let verifier = Verifier::of(&"sesame".into(), [7; 16]);
        for first in ["", "n,,", "n,,n=,r=", "p=tls-server-end-point,,n=,r=x", "n,a=x,n=,r=y", "n,,m=x,n=,r=y", "é"] {
            assert!(verifier.begin(first, "s").is_none(), "{first}");
        }
        let exchange = verifier.begin("n,,n=,r=c", "s").unwrap();
        let zeros = STANDARD.encode([0; LENGTH]);
        for last in ["", "c=biws,r=cs", "c=biws,r=cs,p=", "c=biws,r=cs,p=x", &format!("c=eSws,r=cs,p={zeros}")] {
            assert!(verifier.end(&exchange, last).is_none(), "{last}");
        }
    }
}
