//! The token of another issuer that is exchanged for the workspace's: what it says of itself, and why it can be none.
//!
//! Invariant: no message holds any part of it but issuer, subject, audience and expiry.

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};

use crate::failure::{Code, Failure};
use crate::foreign::{quoted, secrets};
use crate::model::is_around;
use crate::model::token::{Claims, LONGEST_TOKEN};
use crate::os::files::as_text;

/// It is remembered as a secret for so long where it does not say when it expires.
const LONGEST_LIFE: SignedDuration = SignedDuration::from_hours(24);

/// A token that could be one.
pub(super) struct Subject {
    pub(super) token: SecretString,
    pub(super) claims: Claims,
}

/// Reads what a file or a server has; `what` is where it is, for messages.
///
/// # Errors
/// Permanent: it is empty, too long, or no signed token.
pub(super) fn of_bytes(bytes: &[u8], what: &str) -> Result<Subject, Failure> {
    if bytes.len() > LONGEST_TOKEN {
        return Err(unusable(what, &format!("it is larger than {} KiB", LONGEST_TOKEN / 1024)));
    }
    match as_text(bytes) {
        Ok(text) => of_text(text, what),
        Err(why) => Err(unusable(what, why)),
    }
}

/// The same of a text.
///
/// # Errors
/// As [`of_bytes`].
pub(super) fn of_text(text: &str, what: &str) -> Result<Subject, Failure> {
    let text = text.trim_matches(is_around);
    if text.is_empty() {
        return Err(unusable(what, "it is empty"));
    }
    if text.len() > LONGEST_TOKEN {
        return Err(unusable(what, &format!("it is larger than {} KiB", LONGEST_TOKEN / 1024)));
    }
    if text.lines().nth(1).is_some() {
        return Err(unusable(what, "it holds more than one line"));
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'=');
    let claims = Claims::of(text).filter(|_| text.bytes().all(is_plain));
    let claims = claims.ok_or_else(|| unusable(what, "it is no signed token (JWT)"))?;
    let token = SecretString::from(text);
    let end = Timestamp::now().checked_add(LONGEST_LIFE).unwrap_or(Timestamp::MAX);
    secrets::keep_until(&token, claims.expires_at.unwrap_or(end));
    Ok(Subject { token, claims })
}

/// The same of what a server has answered.
///
/// # Errors
/// As [`of_bytes`]; and where there is none.
pub(super) fn of_answer(token: Option<&SecretString>, what: &str) -> Result<Subject, Failure> {
    match token {
        Some(token) => of_text(token.expose_secret(), what),
        None => Err(Failure::transient(Code::Unavailable, format!("{what} holds no token"))),
    }
}

fn unusable(what: &str, why: &str) -> Failure {
    Failure::permanent(Code::Configuration, format!("cannot use {what} as the token to sign in with: {why}"))
        .hint("it must be one line with the token that the issuer of the federation policy signs, and nothing else")
}

impl Subject {
    /// What a federation policy of the workspace's account must have for it.
    pub(super) fn needs_of_policy(&self, client_id: Option<&str>) -> String {
        let Claims { subject, issuer, audience, .. } = &self.claims;
        let said = |text: &Option<String>| text.as_deref().map_or_else(|| "(none)".to_owned(), quoted);
        let audiences: Vec<String> = audience.iter().map(|one| quoted(one)).collect();
        let audiences = if audiences.is_empty() { "(none)".to_owned() } else { audiences.join(" or ") };
        let whose = match client_id {
            Some(client) => format!("the federation policy of service principal {client}"),
            None => "the account's federation policy (no client_id is set)".to_owned(),
        };
        format!(
            "{whose} must have the issuer {}, the subject {} and the audience {audiences}",
            said(issuer),
            said(subject)
        )
    }

    /// Fails where it has expired by this time.
    ///
    /// # Errors
    /// Permanent: whoever makes it must make a new one.
    pub(super) fn check_at(&self, now: Timestamp, what: &str, hint: &str) -> Result<(), Failure> {
        match self.claims.expires_at.filter(|end| *end <= now) {
            None => Ok(()),
            Some(end) => {
                let minutes = now.duration_since(end).as_mins();
                let message = format!("the token in {what} expired {minutes} min ago ({end:.0})");
                Err(Failure::permanent(Code::SignInRefused, message).hint(hint))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn what_can_be_no_token_is_named_and_not_shown() {
        let good = jwt(r#"{"iss":"https://i.example","sub":"system:x","aud":["a","b"],"exp":2000}"#);
        for (bytes, why) in [
            (b"".to_vec(), "is empty"),
            (b" \r\n".to_vec(), "is empty"),
            (format!("{good}\n{good}\n").into_bytes(), "more than one line"),
            (b"hunter2-0000".to_vec(), "no signed token"),
            (format!("{good} x").into_bytes(), "no signed token"),
            (format!("Bearer {good}").into_bytes(), "no signed token"),
            (b"\x89PNG\r\n\x1a\n\0\0".to_vec(), "no text"),
            (b"\xff\xfea\0".to_vec(), "UTF-16"),
            (vec![0xe9; 30], "not UTF-8"),
            (vec![b'a'; LONGEST_TOKEN + 1], "larger than 16 KiB"),
        ] {
            let failure = of_bytes(&bytes, "/run/token").err().unwrap();
            assert!(failure.message.contains(why) && failure.message.contains("/run/token"), "{failure}");
            assert!(!failure.message.contains("hunter2") && !failure.is_transient(), "{failure}");
        }
        for around in ["", "\n", "\r\n", "\u{feff}"] {
            let subject = of_bytes(format!("{around}{good}{around}").as_bytes(), "x").ok().unwrap();
            assert_eq!(subject.token.expose_secret(), good);
        }
    }

    #[test]
    fn what_the_policy_must_have_is_said_and_an_end_is_seen() {
        let subject =
            of_text(&jwt(r#"{"iss":"https://i.example","sub":"s","aud":["a","b"],"exp":2000}"#), "x").ok().unwrap();
        let policy = subject.needs_of_policy(Some("id"));
        assert_eq!(
            policy,
            "the federation policy of service principal id must have the issuer https://i.example, the subject s and the audience a or b"
        );
        assert!(subject.needs_of_policy(None).starts_with("the account's federation policy"));
        let at = |second| subject.check_at(Timestamp::from_second(second).unwrap(), "f", "write it anew");
        assert!(at(1999).is_ok());
        let late = at(2120).unwrap_err();
        assert!(late.message.contains("expired 2 min ago") && late.code == Code::SignInRefused, "{late}");
        assert!(of_text(&jwt("{}"), "x").ok().unwrap().needs_of_policy(None).contains("(none)"));
    }
}
