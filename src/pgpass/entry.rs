//! One entry: the connections that it is for, and the one line that every client reads the same.
//!
//! A password file has no standard, only readers, and they disagree about blanks, escapes, wildcards and bytes outside
//! ASCII. Measurements show that they all agree on
//!
//! ```text
//! host:port:database:user:password LF
//! ```
//!
//! with literal fields of printable ASCII. So the types here hold nothing else: a [`Key`] or an [`Entry`] that exists
//! can be written. The two bytes that need an escape (`:` in an IPv6 address, `\` in `DOMAIN\user`) get one, and
//! [`Key::portability`] names the clients that cannot read it.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
#[cfg(feature = "cli")]
use zeroize::Zeroizing;

/// The database field that serves every database.
pub(crate) const EVERY: &str = "*";

/// Longest line that is written, in bytes: pgx ignores a file with a line of 65,536 bytes or more, so stay well below.
const LINE_LIMIT: usize = 60_000;

/// The connections that an entry is for: the four key fields, as configured and unescaped.
///
/// Host and user are literal; the database is literal or `*`, which serves every database of that host, port and user
/// (and replication connections). [`fmt::Display`] gives `host:port:database:user`, which holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    host: String,
    port: u16,
    database: String,
    user: String,
}

/// Why four values cannot be the key fields of an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// An empty field matches nothing in any client.
    #[error("the {field} is empty")]
    Empty {
        /// `host`, `database` or `user`.
        field: &'static str,
    },
    /// No server listens on port 0.
    #[error("the port is 0")]
    PortZero,
    /// `*` in the host or user field would serve connections that nobody configured.
    #[error("the {field} is \"*\": only the database may be left open")]
    Wildcard {
        /// `host` or `user`.
        field: &'static str,
    },
    /// A line that starts with `#` is a comment.
    #[error("the host starts with '#', which makes its line in the password file a comment")]
    Comment,
    /// Clients disagree on blanks at the ends of a field, and no host name has one inside.
    #[error("the {field} {value:?} has a blank {place}")]
    Blank {
        /// `host`, `database` or `user`.
        field: &'static str,
        /// The value as given.
        value: String,
        /// `at its start or end`, or `inside`.
        place: &'static str,
    },
    /// Control characters end lines or glue them together; bytes outside ASCII make some clients refuse the whole file.
    #[error("the {field} {value:?} holds {character:?}: a password file can carry printable ASCII only")]
    Character {
        /// `host`, `database` or `user`.
        field: &'static str,
        /// The value as given.
        value: String,
        /// The first character that cannot be written.
        character: char,
    },
    /// The line would be longer than some clients can read.
    #[error("the {field} is {length} bytes long: at most {limit} fit", limit = Key::FIELD_LIMIT)]
    TooLong {
        /// `host`, `database` or `user`.
        field: &'static str,
        /// Its length in bytes.
        length: usize,
    },
}

impl KeyError {
    /// Which field is at fault: `host`, `port`, `database` or `user`.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::PortZero => "port",
            Self::Comment => "host",
            Self::Empty { field }
            | Self::Wildcard { field }
            | Self::Blank { field, .. }
            | Self::Character { field, .. }
            | Self::TooLong { field, .. } => field,
        }
    }
}

impl Key {
    /// The longest host, database or user, in bytes. A host name has at most 253, a PostgreSQL name 63; more is allowed
    /// to be lenient.
    pub const FIELD_LIMIT: usize = 1024;

    /// Checks four values and makes them a key. `database` may be `*`.
    ///
    /// # Errors
    /// A [`KeyError`] that names the field, if some client would read a value differently or not at all.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        database: impl Into<String>,
        user: impl Into<String>,
    ) -> Result<Self, KeyError> {
        let key = Self { host: host.into(), port, database: database.into(), user: user.into() };
        for (field, value) in [("host", &key.host), ("database", &key.database), ("user", &key.user)] {
            check_field(field, value)?;
            if value == EVERY && field != "database" {
                return Err(KeyError::Wildcard { field });
            }
        }
        if key.host.starts_with('#') {
            return Err(KeyError::Comment);
        }
        if key.host.contains(' ') {
            return Err(KeyError::Blank { field: "host", value: key.host, place: "inside" });
        }
        if key.port == 0 {
            return Err(KeyError::PortZero);
        }
        Ok(key)
    }

    /// The host exactly as clients give it; clients compare it byte for byte.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port, 1 to 65535.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The database, or `*` for every database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The PostgreSQL user (role).
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Does this key serve every database?
    #[must_use]
    pub fn every_database(&self) -> bool {
        self.database == EVERY
    }

    /// Which clients cannot read an entry with this key, a sentence each; empty for a key that all of them read.
    ///
    /// Measured with libpq 10 to 18, pgjdbc, pgx, lib/pq, node-postgres, Npgsql, asyncpg, sqlx and DBeaver.
    #[must_use]
    pub fn portability(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        for (field, value) in [("host", &self.host), ("database", &self.database), ("user", &self.user)] {
            if value.contains([':', '\\']) {
                sentences.push(format!(
                    "The {field} {value} holds ':' or '\\', which must be escaped: asyncpg cannot read such an entry."
                ));
            }
            if value.ends_with('\\') {
                sentences.push(format!("The {field} {value} ends in '\\': node-postgres cannot read such an entry."));
            }
            if value.contains(' ') {
                sentences.push(format!(
                    "The {field} {value:?} holds a blank: libpq reads it, other clients were not measured."
                ));
            }
        }
        if self.host.starts_with(['/', '@']) {
            sentences.push(format!(
                "The host {} is a socket: pgx, lib/pq and asyncpg look for localhost instead, and so does libpq when it \
                 is its default socket directory.",
                self.host
            ));
        } else if self.host.bytes().any(|byte| byte.is_ascii_uppercase()) || self.host.ends_with('.') {
            sentences.push(format!(
                "The host {} has a capital letter or a dot at its end: clients compare it byte for byte, so they must \
                 spell it just so.",
                self.host
            ));
        }
        sentences
    }

    /// Appends the four key fields as the file has them, each with its colon.
    fn write(&self, out: &mut Vec<u8>) {
        write_escaped(&self.host, out);
        out.push(b':');
        out.extend_from_slice(self.port.to_string().as_bytes());
        out.push(b':');
        write_escaped(&self.database, out);
        out.push(b':');
        write_escaped(&self.user, out);
        out.push(b':');
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.host, self.port, self.database, self.user)
    }
}

fn check_field(field: &'static str, value: &str) -> Result<(), KeyError> {
    if value.is_empty() {
        return Err(KeyError::Empty { field });
    }
    if let Some(character) = value.chars().find(|&c| c != ' ' && !c.is_ascii_graphic()) {
        return Err(KeyError::Character { field, value: value.to_owned(), character });
    }
    if value.starts_with(' ') || value.ends_with(' ') {
        return Err(KeyError::Blank { field, value: value.to_owned(), place: "at its start or end" });
    }
    if value.len() > Key::FIELD_LIMIT {
        return Err(KeyError::TooLong { field, length: value.len() });
    }
    Ok(())
}

/// Only `:` and `\` are escaped: every other escape is read differently by some client.
fn write_escaped(value: &str, out: &mut Vec<u8>) {
    for &byte in value.as_bytes() {
        if matches!(byte, b':' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// A password as a password file has it.
#[cfg(feature = "cli")]
pub(super) fn escaped(password: &SecretString) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(2 * password.expose_secret().len()));
    write_escaped(password.expose_secret(), &mut out);
    out
}

/// An entry to publish: a key and its password.
#[derive(Clone, Debug)]
pub struct Entry {
    key: Key,
    password: SecretString,
    last_copy: bool,
}

/// Why a password cannot be published. The password itself is never part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// libpq takes an empty password for none at all.
    #[error("the password is empty")]
    Empty,
    /// Npgsql takes it for a wildcard.
    #[error("the password is \"*\", which some clients take for a wildcard")]
    Wildcard,
    /// Blanks are trimmed by some clients, line ends and NUL break the file, bytes outside ASCII are refused by some.
    #[error("byte {position} of the password is not printable ASCII, so a password file cannot carry it")]
    Character {
        /// Position of the first such byte, from 1.
        position: usize,
    },
    /// Some clients ignore a file with such a line.
    #[error("the entry would be {length} bytes long: clients read at most {LINE_LIMIT} safely")]
    TooLong {
        /// Length of the whole line in bytes.
        length: usize,
    },
}

impl Entry {
    /// Checks that every client can read this password for this key.
    ///
    /// `last_copy` asks for one more copy as the last line if another line would win in node-postgres, which reads the
    /// last match instead of the first. A `:` or `\` in the password is escaped, which asyncpg and sqlx 0.8 do not
    /// undo; tokens never contain either.
    ///
    /// # Errors
    /// A [`PasswordError`], never with the password in it.
    pub fn new(key: Key, password: SecretString, last_copy: bool) -> Result<Self, PasswordError> {
        let entry = Self { key, password, last_copy };
        let password = entry.password.expose_secret();
        if password.is_empty() {
            return Err(PasswordError::Empty);
        }
        if password == "*" {
            return Err(PasswordError::Wildcard);
        }
        if let Some(at) = password.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(PasswordError::Character { position: at + 1 });
        }
        let length = entry.longest_line();
        if length > LINE_LIMIT {
            return Err(PasswordError::TooLong { length });
        }
        Ok(entry)
    }

    /// The connections that it is for.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The password to publish.
    #[must_use]
    pub fn password(&self) -> &SecretString {
        &self.password
    }

    /// Whether one more copy is wanted as the last line, for node-postgres.
    #[must_use]
    pub fn last_copy(&self) -> bool {
        self.last_copy
    }

    /// Appends the line without its line end.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        self.key.write(out);
        write_escaped(self.password.expose_secret(), out);
    }

    /// An upper bound of the line's length in bytes, line end included. Reserving it keeps a buffer from growing and
    /// leaving a copy of the password behind.
    pub(crate) fn longest_line(&self) -> usize {
        let escapes = |text: &str| text.len() + text.bytes().filter(|byte| matches!(byte, b':' | b'\\')).count();
        let Key { host, database, user, .. } = &self.key;
        escapes(host)
            + escapes(database)
            + escapes(user)
            + escapes(self.password.expose_secret())
            + "65535::::\r\n".len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
mod tests {
    use super::*;

    fn written(key: Key, password: &str) -> String {
        let mut out = Vec::new();
        Entry::new(key, password.into(), false).unwrap().write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_entry_is_written_with_colons_and_backslashes_escaped_and_nothing_else() {
        let plain = Key::new("db.example.com", 5432, "*", "first.last+x@example.com").unwrap();
        assert_eq!(written(plain, "a.b-c_d"), "db.example.com:5432:*:first.last+x@example.com:a.b-c_d");
        let odd = Key::new("::1", 6432, "a*b", "CORP\\alice").unwrap();
        assert_eq!(written(odd, "x:y\\z"), "\\:\\:1:6432:a*b:CORP\\\\alice:x\\:y\\\\z");
    }

    #[test]
    fn keys_that_some_client_would_read_differently_are_refused_with_the_field_named() {
        for (host, port, database, user, field) in [
            ("", 1, "d", "u", "host"),
            ("#h", 1, "d", "u", "host"),
            (" h", 1, "d", "u", "host"),
            ("h h", 1, "d", "u", "host"),
            ("*", 1, "d", "u", "host"),
            ("hö", 1, "d", "u", "host"),
            ("h", 0, "d", "u", "port"),
            ("h", 1, "", "u", "database"),
            ("h", 1, "d\0", "u", "database"),
            ("h", 1, "d", "*", "user"),
            ("h", 1, "d", "u\r", "user"),
            ("h", 1, "d", "u\n", "user"),
            ("h", 1, "d", "u\t", "user"),
            ("h", 1, "d", "u ", "user"),
        ] {
            let error = Key::new(host, port, database, user).unwrap_err();
            assert!(error.to_string().contains(&format!("the {field}")), "{host:?} {database:?} {user:?}: {error}");
        }
        let long = "u".repeat(Key::FIELD_LIMIT + 1);
        assert!(matches!(Key::new("h", 1, "d", long), Err(KeyError::TooLong { field: "user", .. })));
        assert!(Key::new("h", 1, "my db", "All Users of Sales").is_ok(), "a group name may hold blanks");
    }

    #[test]
    fn passwords_that_would_be_lost_on_the_way_are_refused_without_being_shown() {
        let key = || Key::new("h", 1, "d", "u").unwrap();
        for (password, expected) in [
            ("", PasswordError::Empty),
            ("*", PasswordError::Wildcard),
            ("hush hush", PasswordError::Character { position: 5 }),
            ("hush\n", PasswordError::Character { position: 5 }),
            ("hush\0", PasswordError::Character { position: 5 }),
            ("hüsh", PasswordError::Character { position: 2 }),
        ] {
            let error = Entry::new(key(), password.into(), false).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains("hush"));
        }
        let huge = "x".repeat(LINE_LIMIT).into();
        assert!(matches!(Entry::new(key(), huge, false), Err(PasswordError::TooLong { .. })));
    }

    #[test]
    fn portability_names_the_clients() {
        let said = |key: Key| key.portability().join("\n");
        assert_eq!(said(Key::new("db.example.com", 5432, "*", "a@example.com").unwrap()), "");
        assert!(said(Key::new("::1", 5432, "*", "a").unwrap()).contains("asyncpg"));
        assert!(said(Key::new("h", 5432, "*", "a\\").unwrap()).contains("node-postgres"));
        assert!(said(Key::new("h", 5432, "*", "All Users").unwrap()).contains("blank"));
        assert!(said(Key::new("DB.example.com", 5432, "*", "a").unwrap()).contains("capital"));
        assert!(said(Key::new("/run/postgresql", 5432, "*", "a").unwrap()).contains("localhost"));
    }
}
