//! The outcome of a command, and a test's assertions about it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::panic,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// This many consecutive characters of a secret are a leak: enough to shorten a search for the rest, too many for
/// chance.
const LEAK: usize = 16;

/// The outcome of a command. Its assertions return it, so that they chain; when one fails, the whole session is shown.
pub struct Outcome {
    /// `None` when it was ended by a signal, or has not ended.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
    pub(super) line: String,
    /// What happened earlier in the same home.
    pub(super) history: Arc<Mutex<String>>,
}

impl Outcome {
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        self.holds(self.code == Some(code), &format!("it should exit with {code}"))
    }

    #[track_caller]
    pub fn ends_by(&self, signal: rustix::process::Signal) -> &Self {
        self.holds(self.signal == Some(signal.as_raw()), &format!("it should end by {signal:?}"))
    }

    #[track_caller]
    pub fn stdout_has(&self, text: &str) -> &Self {
        self.holds(self.stdout.contains(text), &format!("standard output should have {text:?}"))
    }

    #[track_caller]
    pub fn stderr_has(&self, text: &str) -> &Self {
        self.holds(self.stderr.contains(text), &format!("standard error should have {text:?}"))
    }

    #[track_caller]
    pub fn stdout_lacks(&self, text: &str) -> &Self {
        self.holds(!self.stdout.contains(text), &format!("standard output should not have {text:?}"))
    }

    #[track_caller]
    pub fn stderr_lacks(&self, text: &str) -> &Self {
        self.holds(!self.stderr.contains(text), &format!("standard error should not have {text:?}"))
    }

    #[track_caller]
    pub fn prints_nothing(&self) -> &Self {
        self.holds(self.stdout.is_empty(), "standard output should be empty")
    }

    #[track_caller]
    pub fn took_at_most(&self, limit: Duration) -> &Self {
        self.holds(self.elapsed <= limit, &format!("it should take at most {limit:?}, not {:?}", self.elapsed))
    }

    #[track_caller]
    pub fn has_no_secret(&self, secrets: &[&str]) -> &Self {
        assert_no_secret("standard output", &self.stdout, secrets);
        assert_no_secret("standard error", &self.stderr, secrets);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("standard output should be JSON, but {error}\n{self}"))
    }

    #[track_caller]
    fn holds(&self, true_is_well: bool, wish: &str) -> &Self {
        assert!(true_is_well, "{wish}\n{self}");
        self
    }

    /// The command as it was typed.
    pub fn line(&self) -> &str {
        &self.line
    }

    pub(super) fn transcript(&self) -> String {
        let end = match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "still running".to_owned(),
        };
        format!("$ {}\n{}{}[{end} after {:?}]\n", self.line, self.stdout, self.stderr, self.elapsed)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, this) = (self.history.lock().unwrap_or_else(PoisonError::into_inner), self.transcript());
        formatter.write_str("---- the session\n")?;
        formatter.write_str(&before)?;
        if !before.ends_with(&this) {
            formatter.write_str(&this)?;
        }
        formatter.write_str("----")
    }
}

/// The text contains no secret, nor [`LEAK`] consecutive characters of one.
#[track_caller]
pub fn assert_no_secret(place: &str, text: &str, secrets: &[impl AsRef<str>]) {
    let pieces: HashSet<&[u8]> = text.as_bytes().windows(LEAK).collect();
    for secret in secrets.iter().map(AsRef::as_ref).filter(|secret| !secret.is_empty()) {
        let leaked = text.contains(secret) || secret.as_bytes().windows(LEAK).any(|piece| pieces.contains(piece));
        assert!(!leaked, "a secret of {} characters leaked into {place}", secret.len());
    }
}
