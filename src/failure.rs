//! Failures: in types for code that decides, and in a sentence for a person.
//!
//! Every failure of a rotation is a [`Failure`]: its [`Kind`] says whether another try can help, its [`Code`] determines
//! the exit code and the word in JSON. Invariant: no text in it ever holds a secret.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::foreign;

/// Whether another try can help although no person has changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A lost network, a 429, a 5xx: retried with backoff.
    Transient,
    /// A refused secret, an expired login, a wrong setting: a person is needed.
    Permanent,
}

impl Kind {
    /// The word for it in JSON and in the journal.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Transient => "transient",
            Kind::Permanent => "permanent",
        }
    }
}

/// The class of a failure; determines the exit code (sysexits.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The configuration cannot work as it is (EX_CONFIG, 78).
    Configuration,
    /// The workspace refused the identity or its secret (EX_NOPERM, 77).
    SignInRefused,
    /// The vendor's CLI has no live login (EX_NOPERM, 77).
    LoginNeeded,
    /// The token belongs to another identity than the connection's user (EX_NOPERM, 77).
    IdentityMismatch,
    /// The password file could not be read or replaced (EX_CANTCREAT, 73).
    CannotWrite,
    /// Network, TLS, or a server that fails or gives useless answers (EX_UNAVAILABLE, 69).
    Unavailable,
    /// The other side asked for a longer wait than this run may take (EX_TEMPFAIL, 75).
    TryAgain,
}

impl Code {
    /// All codes, in the order in which one is chosen for several failures: those that need a person come before those that may pass.
    const BY_PRECEDENCE: [Code; 7] = [
        Code::Configuration,
        Code::SignInRefused,
        Code::LoginNeeded,
        Code::IdentityMismatch,
        Code::CannotWrite,
        Code::Unavailable,
        Code::TryAgain,
    ];

    /// The word for it in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Code::Configuration => "configuration",
            Code::SignInRefused => "sign-in-refused",
            Code::LoginNeeded => "login-needed",
            Code::IdentityMismatch => "identity-mismatch",
            Code::CannotWrite => "cannot-write",
            Code::Unavailable => "unavailable",
            Code::TryAgain => "try-again",
        }
    }

    /// The exit code of the process, as in sysexits.h.
    pub fn exit_code(self) -> u8 {
        match self {
            Code::Configuration => 78,
            Code::SignInRefused | Code::LoginNeeded | Code::IdentityMismatch => 77,
            Code::CannotWrite => 73,
            Code::Unavailable => 69,
            Code::TryAgain => 75,
        }
    }

    /// The first code with this exit code; none if it is not one of ours.
    pub(crate) fn of_exit_code(exit: i32) -> Option<Self> {
        Self::BY_PRECEDENCE.into_iter().find(|code| i32::from(code.exit_code()) == exit)
    }

    /// The exit code for several failures: the first of 78, 77, 73, 69, 75 that occurred; 0 for none.
    pub fn exit_code_of(codes: impl IntoIterator<Item = Code> + Clone) -> u8 {
        Self::BY_PRECEDENCE
            .into_iter()
            .find(|code| codes.clone().into_iter().any(|other| other == *code))
            .map_or(0, Code::exit_code)
    }
}

/// One failure: what failed, on what, why, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whether trying again can help.
    pub kind: Kind,
    /// What class of thing failed.
    pub code: Code,
    /// One sentence: what failed, on what, why.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// How long the other side asked us to wait (RFC 9110, section 10.2.3).
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that may pass without help.
    pub fn transient(code: Code, message: impl Into<String>) -> Self {
        Self::new(Kind::Transient, code, message.into())
    }

    /// A failure that needs a person.
    pub fn permanent(code: Code, message: impl Into<String>) -> Self {
        Self::new(Kind::Permanent, code, message.into())
    }

    /// Stands for what work of this process would have come to that has panicked.
    pub(crate) fn broken_off(work: &str) -> Self {
        Self::transient(Code::Unavailable, format!("{work} ended unexpectedly, by a fault of dbx-rotator"))
            .hint("report it, with what the log says before this")
    }

    fn new(kind: Kind, code: Code, message: String) -> Self {
        Failure { kind, code, message: foreign::line(&message).into_owned(), hint: None, retry_after: None }
    }

    /// The same failure with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(foreign::line(&hint.into()).into_owned());
        self
    }

    /// The same failure with the wait that the other side asked for.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// What is wrong and what to do next, on one line for a log.
    pub(crate) fn sentence(&self) -> String {
        let hint = self.hint.as_deref().map(|hint| format!(" - {hint}")).unwrap_or_default();
        format!("{}{hint}", self.message)
    }

    /// Whether trying again can help.
    pub fn is_transient(&self) -> bool {
        self.kind == Kind::Transient
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_one_word_everywhere() {
        for code in Code::BY_PRECEDENCE {
            assert_eq!(serde_json::to_value(code).unwrap(), code.word());
        }
        for kind in [Kind::Transient, Kind::Permanent] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
    }

    #[test]
    fn the_exit_code_of_several_failures_is_the_first_of_78_77_73_69_75() {
        assert_eq!(Code::exit_code_of([]), 0);
        assert_eq!(Code::exit_code_of([Code::TryAgain, Code::Unavailable]), 69);
        assert_eq!(Code::exit_code_of([Code::Unavailable, Code::CannotWrite, Code::LoginNeeded]), 77);
        assert_eq!(Code::exit_code_of([Code::LoginNeeded, Code::Configuration]), 78);
    }
}
