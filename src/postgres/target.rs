//! Where to log in, and as whom.

use std::path::Path;

use crate::model::{Connection, SslMode};

/// Where to log in, and as whom.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// A name or an address, without brackets.
    pub host: &'a str,
    /// 5432 for Lakebase.
    pub port: u16,
    /// The name of one database; `*` means nothing here.
    pub database: &'a str,
    /// The role.
    pub user: &'a str,
    /// How TLS is asked for.
    pub sslmode: SslMode,
    /// libpq's `sslrootcert`: a file of authorities (PEM) instead of the platform's store.
    pub root: Option<&'a Path>,
}

impl Connection {
    /// What a login needs to know; none before host and user have been found.
    pub(crate) fn login_target(&self) -> Option<Target<'_>> {
        let key = self.key.as_ref()?;
        Some(Target {
            host: key.host(),
            port: key.port(),
            database: self.login_database(),
            user: key.user(),
            // A credential of ours goes to the host itself, unless somebody asked for less.
            sslmode: self.sslmode.unwrap_or(SslMode::VerifyFull),
            root: self.sslrootcert.as_deref(),
        })
    }
}
