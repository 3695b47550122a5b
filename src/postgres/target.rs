//! Where to log in, and as which user.

use std::path::Path;

use crate::model::{Connection, SslMode};

/// Where to log in, and as which user.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// A name or an address, without brackets.
    pub host: &'a str,
    /// Lakebase uses 5432.
    pub port: u16,
    /// The name of one database; `*` has no special meaning here.
    pub database: &'a str,
    /// The PostgreSQL role.
    pub user: &'a str,
    /// How TLS is asked for.
    pub sslmode: SslMode,
    /// libpq's `sslrootcert`: a file of authorities (PEM) instead of the platform's store.
    pub root: Option<&'a Path>,
}

impl Connection {
    /// What a login needs to know. None until host and user are known.
    pub(crate) fn login_target(&self) -> Option<Target<'_>> {
        let key = self.key.as_ref()?;
        Some(Target {
            host: key.host(),
            port: key.port(),
            database: self.login_database(),
            user: key.user(),
            // Our credential must reach only the host itself, unless the user asked for less.
            sslmode: self.sslmode.unwrap_or(SslMode::VerifyFull),
            root: self.sslrootcert.as_deref(),
        })
    }
}
