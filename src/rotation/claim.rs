//! Whether a connection may have the entry that a workspace's API has named for it.
//!
//! What the configuration names is for its owner to decide. The word of a workspace must cost no other connection its entry, and
//! nobody a password that they keep for another server.

use std::cell::OnceCell;
use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::failure::{Code, Failure};
use crate::model::token::Claims;
use crate::model::{Connection, is_database};
use crate::pgpass::{Contents, Key, Reading, Target};

/// What the password files hold, for as long as nothing is written; parsed once, when a connection first needs it.
pub(super) struct PresentPasswords<'f> {
    files: &'f [Arc<Contents>],
    readings: OnceCell<Vec<Reading<'f>>>,
}

impl<'f> PresentPasswords<'f> {
    pub(super) fn in_files(files: &'f [Arc<Contents>]) -> Self {
        PresentPasswords { files, readings: OnceCell::new() }
    }

    /// Whether clients get a password there that came from no workspace, as far as it and `is_known` tell: from a line for this host, and
    /// not for all.
    fn another_password(&self, connection: &Connection, key: &Key, is_known: impl Fn(&str) -> bool) -> bool {
        let port = key.port().to_string();
        let read = |reading: &Reading<'_>, host: &[u8]| {
            let database = connection.login_database().as_bytes();
            reading.lookup(&Target::new(host, port.as_bytes(), database, key.user().as_bytes()))
        };
        let parsed = || self.files.iter().map(|file| Reading::new(&file.bytes)).collect();
        self.readings.get_or_init(parsed).iter().any(|reading| {
            let Some(found) = read(reading, key.host().as_bytes()) else { return false };
            // No line names this host.
            let is_for_all = read(reading, b"\0").is_some_and(|other| other.line == found.line);
            let password = std::str::from_utf8(&found.password).ok();
            let is_ours = password.is_some_and(|text| text.is_empty() || Claims::of(text).is_some() || is_known(text));
            !is_for_all && !is_ours
        })
    }
}

/// That this connection may have the entry that it is to get.
///
/// # Errors
/// Permanent: an API named the entry, and it belongs to a connection of another workspace, or has somebody's own password.
pub(super) fn may_have(snapshot: &Snapshot, index: usize, present: &PresentPasswords<'_>) -> Result<(), Failure> {
    let (config, connections) = (&snapshot.config, snapshot.connections());
    let is_configured = |place: usize| config.connections[place].key.is_some();
    let connection = &connections[index];
    let Some(key) = connection.key.as_ref().filter(|_| !is_configured(index)) else { return Ok(()) };
    let origin = |connection: &Connection| config.workspace_of(connection).host.origin();
    let refuse = |message: String, hint: &str| Err(Failure::permanent(Code::Configuration, message).hint(hint));
    // Of two that were named so, the first has it.
    let comes_first = |(place, other): &(usize, &Connection)| {
        other.workspace != connection.workspace
            && other.key.as_ref() == Some(key)
            && (*place < index || is_configured(*place))
            && origin(other) != origin(connection)
    };
    if let Some((_, other)) = connections.iter().enumerate().find(comes_first) {
        let message = format!(
            "{} says that the entry of connection {} is {key}, and that is the entry of connection {} of {}",
            origin(connection),
            connection.name,
            other.name,
            origin(other)
        );
        return refuse(message, "leave one of the two connections out: two workspaces cannot share an entry");
    }
    let is_known = |password: &str| {
        (0..connections.len()).any(|place| snapshot.past(place).is_some_and(|past| past.knows(password)))
    };
    // The vendor gives nobody else a host there, so what stands there is for a database of the vendor's, too.
    if !is_database(key.host()) && present.another_password(connection, key, is_known) {
        let message = format!(
            "{} says that the entry of connection {} is {key}, and there the password file has a password that is no token",
            origin(connection),
            connection.name
        );
        return refuse(message, "if that password may be replaced, remove its line from the password file");
    }
    Ok(())
}
