//! An access token or a database credential, and what its claims say. Claims are read, not trusted: the token came over TLS
//! from the workspace itself, and PostgreSQL checks the signature.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::foreign::secrets;
use crate::model::AuthMethod;

/// Longer than any token seen (2 to 4 KiB), shorter than any client's line limit (64 KiB in pgx).
pub(crate) const LONGEST_TOKEN: usize = 16 * 1024;

/// What a JWT says about itself (RFC 7519, section 4.1); only the claims that are used here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) subject: Option<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Vec<String>,
    pub(crate) issued_at: Option<Timestamp>,
    pub(crate) expires_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Payload {
    sub: Option<String>,
    iss: Option<String>,
    aud: Option<OneOrMany>,
    iat: Option<f64>,
    exp: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    /// The claims of a JWT; none for anything else, which is then opaque.
    pub(crate) fn of(token: &str) -> Option<Self> {
        let mut parts = token.split('.');
        let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?);
        let payload: Payload = serde_json::from_slice(&json).ok()?;
        // A NumericDate may have a fraction (RFC 7519, section 2); the whole second before it is the safe reading.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "floats saturate, and Timestamp refuses what is out of range"
        )]
        let instant = |seconds: f64| Timestamp::from_second(seconds.floor() as i64).ok();
        Some(Claims {
            subject: payload.sub,
            issuer: payload.iss,
            audience: match payload.aud {
                None => Vec::new(),
                Some(OneOrMany::One(one)) => vec![one],
                Some(OneOrMany::Many(many)) => many,
            },
            issued_at: payload.iat.and_then(instant),
            expires_at: payload.exp.and_then(instant),
        })
    }

    /// The origin of the workspace that issued it: scheme, host and port of `iss`.
    pub(crate) fn issuer_origin(&self) -> Option<String> {
        let issuer = url::Url::parse(self.issuer.as_deref()?).ok()?;
        issuer.origin().is_tuple().then(|| issuer.origin().ascii_serialization())
    }
}

/// An OAuth access token, or a database credential, with what is known about it. All times are the workspace's.
#[derive(Clone)]
pub(crate) struct Token {
    pub(crate) secret: SecretString,
    pub(crate) claims: Option<Claims>,
    pub(crate) expires_at: Timestamp,
    pub(crate) issued_at: Timestamp,
    /// How the identity signed in that it was issued to.
    pub(crate) method: AuthMethod,
}

impl Token {
    /// A token with the expiry that its source gave, or its own if that is earlier.
    ///
    /// None if neither gives an expiry.
    pub(crate) fn new(
        secret: SecretString,
        told: Option<Timestamp>,
        now: Timestamp,
        method: AuthMethod,
    ) -> Option<Self> {
        let claims = Claims::of(secret.expose_secret());
        let own = claims.as_ref().and_then(|claims| claims.expires_at);
        let expires_at = match (own, told) {
            (Some(own), Some(told)) => own.min(told),
            (own, told) => own.or(told)?,
        };
        let issued_at = claims.as_ref().and_then(|claims| claims.issued_at).unwrap_or(now);
        secrets::keep_until(&secret, expires_at);
        Some(Token { secret, claims, expires_at, issued_at, method })
    }

    /// The same where it is not the workspace that issued it: then what it says is in words of somebody else's.
    pub(crate) fn of_another_issuer(self) -> Self {
        Token { claims: None, ..self }
    }

    /// The identity that it was issued to, if it says so.
    pub(crate) fn subject(&self) -> Option<&str> {
        self.claims.as_ref()?.subject.as_deref()
    }
}

/// Whether every client can read this text as a password from a password file (see [`crate::pgpass::Entry::new`]).
pub(crate) fn is_publishable(token: &str) -> bool {
    !token.is_empty()
        && token != "*"
        && token.len() <= LONGEST_TOKEN
        && token.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
}

/// Whether it looks like a JSON Web Token: three parts in base64url, two of them JSON (RFC 7519, section 3).
pub(crate) fn is_signed_token(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let [header, _, signature] = parts[..] else { return false };
    let json = |part: &str| Some(Zeroizing::new(URL_SAFE_NO_PAD.decode(part).ok()?));
    let is_header = json(header).is_some_and(|json| serde_json::from_slice::<serde_json::Map<_, _>>(&json).is_ok());
    is_header && URL_SAFE_NO_PAD.decode(signature).is_ok_and(|bytes| !bytes.is_empty()) && Claims::of(text).is_some()
}

/// Identifies a token without revealing it: the first 16 hexadecimal digits of its SHA-256.
pub(crate) fn fingerprint(token: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn claims_are_read_in_every_legal_form() {
        let claims = Claims::of(&jwt(r#"{"sub":"ada","aud":["1","2"],"exp":1700003600.5,"iat":1700000000}"#)).unwrap();
        assert_eq!(claims.subject.as_deref(), Some("ada"));
        assert_eq!(claims.audience, ["1", "2"]);
        assert_eq!(claims.expires_at.unwrap().as_second(), 1_700_003_600);
        assert_eq!(Claims::of(&jwt(r#"{"aud":"7"}"#)).unwrap().audience, ["7"]);
    }

    #[test]
    fn what_is_no_jwt_is_opaque() {
        for token in ["", "abc", "a.b", "a.b.c", "a.b.c.d", &jwt("[]"), &jwt("{")] {
            assert_eq!(Claims::of(token), None, "{token}");
        }
    }

    #[test]
    fn a_signed_token_is_told_from_a_secret_by_its_looks() {
        assert!(is_signed_token(&jwt(r#"{"sub":"ada"}"#)) && is_signed_token(&jwt("{}")));
        let claims = URL_SAFE_NO_PAD.encode("{}");
        for other in [
            "",
            "dose0123456789abcdef0123456789abcdef",
            "dapi0123456789abcdef",
            "a.b.c",
            "hunter2",
            &format!("e30.{claims}"),
            &format!("e30.{claims}."),
            &format!("x.{claims}.c2ln"),
            &format!("e30.{claims}.c2ln.x"),
            &format!("e30.{claims}.c2 n"),
        ] {
            assert!(!is_signed_token(other), "{other}");
        }
    }

    #[test]
    fn the_earlier_of_two_expiries_counts() {
        let token = SecretString::from(jwt(r#"{"exp":2000}"#));
        let at = |second| Timestamp::from_second(second).unwrap();
        let expiry = |told| Token::new(token.clone(), told, at(0), AuthMethod::OauthM2m).unwrap().expires_at;
        assert_eq!(expiry(Some(at(1_900))), at(1_900));
        assert_eq!(expiry(Some(at(9_000))), at(2_000));
        assert!(Token::new(SecretString::from("opaque"), None, at(0), AuthMethod::OauthM2m).is_none());
    }
}
