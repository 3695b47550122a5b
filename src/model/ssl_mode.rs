//! libpq's `sslmode`, as far as a credential may be sent with it.

use std::fmt;

/// How TLS is asked for, in libpq's words (`sslmode`). There is none without: a password in the clear is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Encrypted; whose certificate it is, is not asked. With a root, as in libpq, it must come from there.
    Require,
    /// Encrypted, with a certificate for this host from an authority that is trusted.
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

    /// The mode of that word; none for any other, libpq's weaker ones among them.
    pub fn parse(word: &str) -> Option<Self> {
        [SslMode::Require, SslMode::VerifyFull].into_iter().find(|mode| mode.as_str() == word)
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
