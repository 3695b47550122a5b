//! What a section is to say, and whether a service file can say it.

use super::super::nameable;
use super::reader::{LONGEST_LINE, is_space};

/// One section: where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The name, as in `service=NAME`.
    pub name: String,
    /// `host`.
    pub host: String,
    /// `port`.
    pub port: u16,
    /// `dbname`; for `*` (every database) the one that each Lakebase instance has, `databricks_postgres`.
    pub database: String,
    /// `user`.
    pub user: String,
    /// `sslmode`.
    pub sslmode: String,
    /// `sslrootcert`: a file, or `system` (libpq 16 and later).
    pub sslrootcert: Option<String>,
    /// `passfile`, absolute: where the password file is not the one that libpq looks for by itself. Any that is older than 10
    /// refuses the section for it.
    pub passfile: Option<String>,
}

impl Section {
    /// Its settings, in the order in which they are written; or a sentence on what cannot stand in a service file: it knows no
    /// quotes and no escapes.
    pub(super) fn settings(&self) -> Result<Vec<(&'static str, String)>, String> {
        let no_name = |what: &str| Err(format!("the connection {:?} has no section: its name {what}", self.name));
        match fault(&self.name, "[]".len()) {
            Some(what) => return no_name(what),
            None if self.name.contains(']') => return no_name("holds ']', where libpq would take it to end"),
            None => {}
        }
        let database = nameable(&self.database).to_owned();
        let mut settings = vec![
            ("host", self.host.clone()),
            ("port", self.port.to_string()),
            ("dbname", database),
            ("user", self.user.clone()),
            ("sslmode", self.sslmode.clone()),
        ];
        settings.extend(self.sslrootcert.clone().map(|file| ("sslrootcert", file)));
        settings.extend(self.passfile.clone().map(|file| ("passfile", file)));
        for (key, value) in &settings {
            if let Some(what) = fault(value, key.len() + "=".len()) {
                return Err(format!("the connection {:?} has no section: its {key} {what}", self.name));
            }
        }
        // A client would look for it from where it happens to be.
        if self.passfile.as_deref().is_some_and(|file| !file.starts_with('/')) {
            return Err(format!("the connection {:?} has no section: its passfile is not an absolute path", self.name));
        }
        Ok(settings)
    }
}

/// What is wrong with a value that shares its line with so many bytes.
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
