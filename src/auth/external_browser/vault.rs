//! The tokens of one login as they are kept: JSON in an item of the keyring, or in a file of mode 0600.

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::foreign::secrets;
use crate::http::Answer;
use crate::model::AuthMethod;
use crate::model::token::{LONGEST_TOKEN, Token, is_publishable};

/// The largest that is read or kept, in bytes: two tokens and what is around them.
pub(super) const LARGEST: usize = 3 * LONGEST_TOKEN;

/// The format; any other is refused.
const VERSION: u32 = 1;

/// A refresh token does not say when it dies. It is remembered for so long after it was last read, so that those of a daemon that runs
/// for years do not add up.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// A refresh token, and the last access token that it brought.
#[derive(Clone, Default)]
pub(super) struct Tokens {
    pub(super) refresh_token: Option<SecretString>,
    access: Option<Token>,
}

#[derive(Deserialize)]
struct Given {
    refresh_token: Option<SecretString>,
}

#[derive(Serialize)]
struct Written<'t> {
    version: u32,
    refresh_token: &'t str,
    access_token: &'t str,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

/// The same as it is read.
#[derive(Deserialize)]
struct Read {
    version: u32,
    refresh_token: SecretString,
    access_token: SecretString,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

impl Tokens {
    /// Those of an answer that brought this access token.
    pub(super) fn of(answer: &Answer, token: &Token) -> Self {
        let given = serde_json::from_slice::<Given>(&answer.body).ok().and_then(|given| given.refresh_token);
        let is_token = |text: &SecretString| is_publishable(text.expose_secret());
        Tokens { refresh_token: given.filter(is_token), access: Some(token.clone()) }.known()
    }

    /// The same with the refresh token of before, where the answer brought no other (RFC 6749, section 6).
    pub(super) fn or_of(self, before: &Tokens) -> Self {
        let refresh_token = self.refresh_token.or_else(|| before.refresh_token.clone());
        Tokens { refresh_token, ..self }
    }

    /// From here on they are removed from everything that is shown.
    fn known(self) -> Self {
        let until = Timestamp::now().saturating_add(REMEMBERED).unwrap_or(Timestamp::MAX);
        self.refresh_token.iter().for_each(|token| secrets::keep_until(token, until));
        self
    }

    pub(super) fn can_be_refreshed(&self) -> bool {
        self.refresh_token.is_some()
    }

    pub(super) fn access_token(&self) -> Option<Token> {
        self.access.clone()
    }

    /// What is kept.
    pub(super) fn text(&self) -> Zeroizing<Vec<u8>> {
        let (Some(refresh), Some(access)) = (&self.refresh_token, &self.access) else { return Zeroizing::default() };
        let written = Written {
            version: VERSION,
            refresh_token: refresh.expose_secret(),
            access_token: access.secret.expose_secret(),
            issued_at: access.issued_at,
            expires_at: access.expires_at,
        };
        // As large as it can become, so that nothing is left behind in memory by growing.
        let mut text = Zeroizing::new(Vec::with_capacity(LARGEST));
        // Texts and times cannot fail to serialize.
        let _ = serde_json::to_writer(&mut *text, &written);
        text
    }

    /// Reads it again; none where it is none.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        if text.len() > LARGEST {
            return None;
        }
        let read: Read = serde_json::from_slice(text).ok().filter(|read: &Read| read.version == VERSION)?;
        let Read { refresh_token, access_token, issued_at, expires_at, .. } = read;
        if !is_publishable(refresh_token.expose_secret()) {
            return None;
        }
        let is_token = is_publishable(access_token.expose_secret());
        let access = Token::new(access_token, Some(expires_at), issued_at, AuthMethod::ExternalBrowser);
        let access = access.filter(|_| is_token);
        Some(Tokens { refresh_token: Some(refresh_token), access }.known())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let (at, secret) = (Timestamp::UNIX_EPOCH, SecretString::from("access-4711"));
        let access = Token::new(secret, Some(at + jiff::SignedDuration::from_hours(1)), at, AuthMethod::OauthM2m);
        Tokens { refresh_token: Some(SecretString::from("refresh-4711")), access }
    }

    #[test]
    fn what_is_kept_is_read_again_and_nothing_else_is_taken_for_it() {
        let read = Tokens::read(&tokens().text()).unwrap();
        assert_eq!(read.refresh_token.unwrap().expose_secret(), "refresh-4711");
        let access = read.access.unwrap();
        assert_eq!((access.secret.expose_secret(), access.expires_at.as_second()), ("access-4711", 3_600));
        assert_eq!(access.method, AuthMethod::ExternalBrowser);
        let text = String::from_utf8(tokens().text().to_vec()).unwrap();
        for other in [
            String::new(),
            "{}".to_owned(),
            text[..text.len() / 2].to_owned(),
            text.replace("\"version\":1", "\"version\":2"),
            text.replace("\"refresh-4711\"", "\"\""),
            text.replace("\"refresh-4711\"", "\"a\\nb\""),
            format!("{text}{}", " ".repeat(LARGEST)),
        ] {
            assert!(Tokens::read(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn an_answer_without_a_refresh_token_leaves_the_one_before_in_use() {
        let access = tokens().access.unwrap();
        let answer = |body: &str| Tokens::of(&Answer::of(200, body.as_bytes()), &access).or_of(&tokens());
        let refresh = |body: &str| answer(body).refresh_token.unwrap().expose_secret().to_owned();
        assert_eq!(refresh(r#"{"refresh_token":"next"}"#), "next");
        for none in ["{}", r#"{"refresh_token":null}"#, r#"{"refresh_token":""}"#, r#"{"refresh_token":"a b"}"#] {
            assert_eq!(refresh(none), "refresh-4711", "{none}");
        }
    }
}
