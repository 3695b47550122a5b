//! Which connection is meant on the command line. One that does not exist is an error of usage, with the names that do.

use crate::config::ConfigError;
use crate::model::{Connection, Pasted, same_identity};
use crate::rotation::{Rotation, Snapshot};
use crate::spelling::nearest;
use crate::typed::shell_word;

/// At most this many names fit into a message.
const MOST_NAMES: usize = 20;

/// The one of this name, or the only one that there is; by its place in the configuration.
///
/// # Errors
/// There is none of that name, or there are several and none was named.
pub(super) fn one(rotation: &Rotation, name: Option<&str>) -> Result<usize, ConfigError> {
    let all = rotation.config().connections();
    match (name, all) {
        (Some(name), _) => by_name(rotation, name),
        (None, [_]) => Ok(0),
        (None, _) => {
            let error = ConfigError::usage(format!("which of the {} connections?", all.len()));
            Err(error.hint(format!("name one: {}", names(all))))
        }
    }
}

/// The one of this name.
///
/// # Errors
/// There is none.
pub(super) fn by_name(rotation: &Rotation, name: &str) -> Result<usize, ConfigError> {
    let all = rotation.config().connections();
    all.iter().position(|connection| connection.name() == name).ok_or_else(|| {
        if let Some(pasted) = Pasted::of(name) {
            // It is not quoted: it may hold a password.
            let error = ConfigError::usage(format!("a connection is named, and that is {}", pasted.what));
            let address = pasted.host.zip(pasted.user);
            let by_address = address.map(|(host, user)| {
                format!("; `token` also takes --host {} --user {}", shell_word(&host), shell_word(&user))
            });
            return error.hint(format!("the connections there are: {}{}", names(all), by_address.unwrap_or_default()));
        }
        let error = ConfigError::usage(format!("there is no connection named {name}"));
        let near = nearest(name, all.iter().map(Connection::name));
        let near = near.map(|near| format!("did you mean {near}? ")).unwrap_or_default();
        error.hint(format!("{near}the connections there are: {}", names(all)))
    })
}

/// An address as a client knows it.
#[derive(Clone, Copy)]
pub(super) struct ClientAddress<'a> {
    pub(super) host: &'a str,
    pub(super) user: &'a str,
    pub(super) port: Option<u16>,
}

impl ClientAddress<'_> {
    /// The first connection that goes there. Clients may spell a host or an identity with other capitals than the configuration.
    pub(super) fn find(&self, snapshot: &Snapshot) -> Option<usize> {
        snapshot.connections().iter().position(|connection| {
            connection.key().is_some_and(|key| {
                key.host().eq_ignore_ascii_case(self.host)
                    && same_identity(key.user(), self.user)
                    && self.port.is_none_or(|port| port == key.port())
            })
        })
    }

    /// What is said where no connection goes there.
    pub(super) fn unknown(&self, snapshot: &Snapshot) -> ConfigError {
        let port = self.port.map(|port| format!(", port {port}")).unwrap_or_default();
        let error = ConfigError::usage(format!("no connection has host {}{port} and user {}", self.host, self.user));
        let known = snapshot.connections().iter().filter_map(Connection::key).take(MOST_NAMES);
        let known: Vec<String> = known.map(|key| format!("{}:{} {}", key.host(), key.port(), key.user())).collect();
        if known.is_empty() {
            return error.hint("no host is known yet; run `dbx-rotator rotate` to find them");
        }
        error.hint(format!("the hosts and users there are: {}", known.join(", ")))
    }
}

/// As many of these names as fit into a message, and how many more there are.
pub(super) fn few(names: &[&str]) -> String {
    let shown = names[..names.len().min(MOST_NAMES)].join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown}, and {more} more"),
    }
}

fn names(all: &[Connection]) -> String {
    few(&all.iter().map(Connection::name).collect::<Vec<_>>())
}
