//! Those of libpq's `sslmode`s with which a credential may be sent.

use std::fmt;

/// How TLS is asked for, in libpq's words (`sslmode`). None of them goes without TLS: a password must not be sent in
/// plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SslMode {
    /// Encrypted, with any certificate. With a root, as in libpq, the certificate must come from there.
    Require,
    /// Encrypted, with a certificate for this host from a trusted authority.
    VerifyFull,
}

impl SslMode {
    /// libpq's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            SslMode::Require => "require",
            SslMode::VerifyFull => "verify-full",
        }
    }

    /// The mode for this word; none for any other, including libpq's weaker modes.
    pub fn parse(word: &str) -> Option<Self> {
        [SslMode::Require, SslMode::VerifyFull].into_iter().find(|mode| mode.as_str() == word)
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
