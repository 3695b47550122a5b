//! One PostgreSQL target, and what to do with its credential.

use std::path::PathBuf;

use super::cluster::KubernetesSecret;
use super::database::{CredentialKind, DatabaseRef, Listing, Verify};
use super::local_proxy::Proxied;
use super::server;
use super::ssl_mode::SslMode;
use crate::pgpass;

/// The database that every Lakebase instance has.
pub(crate) const DEFAULT_DATABASE: &str = "databricks_postgres";

/// What one connection wants besides its entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outputs {
    /// A file with only the credential. Not even a line end: programs that read a whole file as the password would send it
    /// (Go's `os.ReadFile`, Rust's `read_to_string`, Python's `read`), and `$(cat FILE)` works without.
    pub(crate) token_file: Option<PathBuf>,
    /// A file with the one line `PGPASSWORD=...`, which systemd's EnvironmentFile= and a shell's `.` read alike.
    pub(crate) env_file: Option<PathBuf>,
    /// Files that are made from templates of the user's.
    pub(crate) files: Vec<TemplateFile>,
    /// A program (absolute, below `~/`, or a name to find on PATH) and its arguments, run without a shell.
    pub(crate) on_rotate: Option<Vec<String>>,
    /// A Secret of a Kubernetes cluster.
    pub(crate) kubernetes_secret: Option<KubernetesSecret>,
}

/// A file that is made from a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemplateFile {
    /// Read anew each time, so that a change of it needs no restart.
    pub(crate) template: PathBuf,
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    /// By name or number. None where it is left to the directory, or to the file that is there.
    pub(crate) group: Option<String>,
}

/// Host, port, database and user of a connection, as far as they are set: the API and the sign-in supply the rest.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) user: Option<String>,
}

/// One PostgreSQL target: host, port, database, user, and where its credential comes from.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(crate) name: String,
    pub(crate) workspace: usize,
    pub(crate) address: Address,
    /// The key of its entry, once host and user are known.
    pub(crate) key: Option<pgpass::Key>,
    /// How the API identifies its database, if the API is needed.
    pub(crate) database_ref: Option<DatabaseRef>,
    /// Use the read-only host of that database instead of the read-write one.
    pub(crate) read_only: bool,
    pub(crate) credential: CredentialKind,
    /// How many seconds it shall live, where it is minted; none: as long as it may.
    pub(crate) ttl: Option<u32>,
    /// A database credential only if the API knows its host; else the workspace's token.
    pub(crate) only_if_found: bool,
    pub(crate) verify: Verify,
    /// The mode that was asked for, if any.
    pub(crate) sslmode: Option<SslMode>,
    /// The authorities that the server's certificate is checked against, if not the platform's.
    pub(crate) sslrootcert: Option<PathBuf>,
    pub(crate) outputs: Outputs,
    pub(crate) proxied: Proxied,
    pub(crate) listing: Listing,
    pub(crate) last_copy: bool,
    pub(crate) any_identity: bool,
    /// The client that was set together with a different user: its credentials are published all the same, and no
    /// others.
    pub(crate) chosen_client: Option<String>,
}

impl Connection {
    /// Its name for people, commands and the record.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The four key fields of its entry; none until its host and its user are known.
    pub fn key(&self) -> Option<&pgpass::Key> {
        self.key.as_ref()
    }

    /// Whether its host or its user is not set and must be looked up.
    pub(crate) fn is_open(&self) -> bool {
        self.address.host.is_none() || self.address.user.is_none()
    }

    /// Fills in what is not set. It gets no key if the host is unusable or a socket directory of this machine, or a password file cannot
    /// carry host or user.
    pub(crate) fn locate(&mut self, host: Option<&str>, user: Option<&str>) {
        let host = host.filter(|host| server::host_misfit(host).is_none() && !server::is_socket_directory(host));
        let Address { host: set_host, port, database, user: set_user } = &self.address;
        let (host, user) = (set_host.as_deref().or(host), set_user.as_deref().or(user));
        self.key = host.zip(user).and_then(|(host, user)| pgpass::Key::new(host, *port, database, user).ok());
    }

    /// The warning about a client that was set together with a user of another name: PostgreSQL refuses such a login unless
    /// the role accepts this identity.
    pub(crate) fn remark_on_client(&self) -> Option<String> {
        let (client, user) = (self.chosen_client.as_ref()?, self.address.user.as_ref()?);
        if self.any_identity || same_identity(client, user) || !names_an_identity(user) {
            return None;
        }
        Some(format!(
            "connection {}: the user {user} and the client {client} were both set, so this client's token is the password for that \
             user; PostgreSQL refuses the login unless the role accepts this client. If it does, say so with any_identity = true or \
             --any-identity; if not, leave out the user: it is then the client id",
            self.name
        ))
    }

    /// The database to log in to; if the entry is for every database, the one that every instance has.
    pub(crate) fn login_database(&self) -> &str {
        if self.address.database == "*" { DEFAULT_DATABASE } else { &self.address.database }
    }

    /// libpq's `sslrootcert`: by itself it looks for a file of the user's, and not at the platform's store. `bundle` is that store
    /// as a file, which every client reads. `system` is known to libpq 16 and later only: older ones, pgjdbc, asyncpg and pgx take it
    /// for the name of a file.
    pub(crate) fn root_for_libpq(&self, bundle: impl FnOnce() -> Option<PathBuf>) -> Option<String> {
        if let Some(file) = &self.sslrootcert {
            return Some(file.display().to_string());
        }
        let platform = || bundle().map_or_else(|| "system".to_owned(), |file| file.display().to_string());
        (self.sslmode == Some(SslMode::VerifyFull)).then(platform)
    }

    /// libpq's `sslmode` for who uses the service file. Where it is not set, `require` works with every client and every certificate
    /// store, so `verify-full` is written only where it was asked for.
    pub(crate) fn sslmode_for_libpq(&self) -> SslMode {
        self.sslmode.unwrap_or(SslMode::Require)
    }
}

/// E-mail addresses and application ids may differ in case between tokens and roles, and still name the same identity.
pub(crate) fn same_identity(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// An e-mail address or an application id names one identity; anything else is a group, whose members log in with their own
/// tokens.
pub(crate) fn names_an_identity(user: &str) -> bool {
    let groups = [8, 4, 4, 4, 12];
    let parts: Vec<&str> = user.split('-').collect();
    let is_uuid = parts.len() == groups.len()
        && parts
            .iter()
            .zip(groups)
            .all(|(part, length)| part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit()));
    is_uuid || user.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mails_and_application_ids_name_an_identity_and_groups_do_not() {
        assert!(names_an_identity("ada@example.com"));
        assert!(names_an_identity("0b1c2d3e-0000-4000-8000-00000000cafe"));
        for group in ["data readers", "0b1c2d3e", "0b1c2d3e-0000-4000-8000-00000000caf", "team-a-b-c-d"] {
            assert!(!names_an_identity(group), "{group}");
        }
    }
}
