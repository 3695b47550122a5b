//! Answers of servers and other programs: they are read, judged and described.

use secrecy::{ExposeSecret, SecretString};

use super::{check_message, split};
use crate::failure::Failure;
use crate::foreign::{could_be_secret, quoted};
use crate::http::Answer;
use crate::model::token::{Claims, Token, is_publishable};
use crate::{auth, kubernetes, lakebase};

/// Statuses that some code tells apart.
const STATUSES: [u16; 12] = [200, 201, 302, 400, 401, 403, 404, 408, 429, 503, 409, 422];

fn answer(choice: u8, body: &[u8]) -> Answer {
    Answer::of(STATUSES[usize::from(choice) % STATUSES.len()], body)
}

fn check(failure: &Failure) {
    check_message(&failure.message);
    failure.hint.iter().for_each(|hint| check_message(hint));
}

fn check_token(token: Result<Token, Failure>) {
    match token {
        Ok(token) => {
            assert!(is_publishable(token.secret.expose_secret()), "a token that a password file cannot carry");
            let own = token.claims.as_ref().and_then(|claims| claims.expires_at);
            assert!(own.is_none_or(|own| token.expires_at <= own), "it is said to live longer than it does");
        }
        Err(failure) => check(&failure),
    }
}

pub fn token_answer(data: &[u8]) {
    let Some(([choice], body)) = split::<1>(data) else { return };
    check_token(auth::fuzz::token_answer(&answer(choice, body)));
    if let Ok(text) = std::str::from_utf8(body) {
        let token = SecretString::from(text);
        // Reading the claims is deterministic.
        assert_eq!(Claims::of(token.expose_secret()), Claims::of(text));
    }
    match auth::fuzz::subject_token(body) {
        Ok(policy) => check_message(&policy),
        Err(failure) => check(&failure),
    }
}

pub fn error_body(data: &[u8]) {
    let Some(([choice], body)) = split::<1>(data) else { return };
    check(&lakebase::fuzz::api_error(&answer(choice, body)));
}

pub fn kubernetes_answer(data: &[u8]) {
    let Some(([choice], body)) = split::<1>(data) else { return };
    let answer = answer(choice, body);
    kubernetes::fuzz::secret_failures(&answer).iter().for_each(check);
    if let Err(failure) = kubernetes::fuzz::lease_failure(&answer) {
        check(&failure);
    }
}

/// The first byte is the exit code. What comes before the first NUL is stdout, the rest stderr.
pub fn cli_output(data: &[u8]) {
    let Some(([code], output)) = split::<1>(data) else { return };
    let mut parts = output.splitn(2, |byte| *byte == 0);
    let (stdout, stderr) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    check_token(auth::fuzz::cli_output(code, stdout, stderr));
}

pub fn foreign_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let line = quoted(&text);
    check_message(&line);
    assert!(line.chars().count() <= 303, "{}", line.chars().count());
    assert!(line.ends_with("...") || !could_be_secret(&line), "it holds what could be a token: {line}");
}
