//! What a section should say, and whether a service file can say it.

use super::super::nameable;
use super::reader::{LONGEST_LINE, is_space};
#[cfg(feature = "cli")]
use crate::typed::conninfo_setting;

/// One section: where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The name, as in `service=NAME`.
    pub name: String,
    /// `host`.
    pub host: String,
    /// `port`.
    pub port: u16,
    /// `dbname`; for `*` (every database) the one that each Lakebase instance has: `databricks_postgres`.
    pub database: String,
    /// `user`.
    pub user: String,
    /// `sslmode`.
    pub sslmode: String,
    /// `sslrootcert`: a file, or `system` (libpq 16 and later).
    pub sslrootcert: Option<String>,
    /// `passfile`, absolute: only if the password file is not libpq's default. libpq before version 10 refuses the section
    /// because of it.
    pub passfile: Option<String>,
}

impl Section {
    /// Its settings, in writing order; or a sentence about a value that a service file cannot carry, since it has neither
    /// quotes nor escapes.
    pub(super) fn settings(&self) -> Result<Vec<(&'static str, String)>, String> {
        let no_name = |what: &str| Err(format!("the connection {:?} has no section: its name {what}", self.name));
        match fault(&self.name, "[]".len()) {
            Some(what) => return no_name(what),
            None if self.name.contains(']') => return no_name("holds ']', where libpq would take it to end"),
            None => {}
        }
        let settings = self.pairs();
        for (key, value) in &settings {
            if let Some(what) = fault(value, key.len() + "=".len()) {
                return Err(format!("the connection {:?} has no section: its {key} {what}", self.name));
            }
        }
        // A client would look for it in its current directory.
        if self.passfile.as_deref().is_some_and(|file| !file.starts_with('/')) {
            return Err(format!("the connection {:?} has no section: its passfile is not an absolute path", self.name));
        }
        Ok(settings)
    }

    /// The same for a command line: it can carry every value.
    #[cfg(feature = "cli")]
    pub(crate) fn conninfo(&self) -> String {
        let settings = self.pairs().into_iter().map(|(key, value)| conninfo_setting(key, &value));
        settings.collect::<Vec<_>>().join(" ")
    }

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![
            ("host", self.host.clone()),
            ("port", self.port.to_string()),
            ("dbname", nameable(&self.database).to_owned()),
            ("user", self.user.clone()),
            ("sslmode", self.sslmode.clone()),
        ];
        pairs.extend(self.sslrootcert.clone().map(|file| ("sslrootcert", file)));
        pairs.extend(self.passfile.clone().map(|file| ("passfile", file)));
        pairs
    }
}

/// What is wrong with a value whose line has this many other bytes.
fn fault(value: &str, beside: usize) -> Option<&'static str> {
    let blank = |byte: Option<&u8>| byte.is_some_and(|byte| is_space(*byte));
    if value.is_empty() {
        Some("is empty")
    } else if value.chars().any(char::is_control) {
        Some("holds a line break or another control character")
    } else if blank(value.as_bytes().first()) || blank(value.as_bytes().last()) {
        Some("begins or ends with a blank, which clients drop")
    } else if value.len() + beside > LONGEST_LINE {
        Some("is longer than a line of a service file may be (1,020 bytes)")
    } else {
        None
    }
}
