//! What was found of connections whose host or user nobody has set, remembered in the record: so that what is published can be
//! looked at without asking anybody, and an outage of the API takes no connection away.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Rotator;
use super::obtain::sign_in_name;
use super::record::Record;
use crate::config::{Config, Connection, Place};
use crate::lakebase::Found;

/// What the API said of a place last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// None: it does not know it.
    pub(crate) found: Option<Found>,
    /// By this machine's clock.
    pub(crate) asked_at: Timestamp,
}

impl Known {
    pub(super) fn nothing() -> Self {
        Known { found: None, asked_at: Timestamp::MIN }
    }
}

impl Found {
    /// The host of one kind.
    pub(crate) fn host_for(&self, read_only: bool) -> Option<&str> {
        if read_only { self.read_only_host.as_deref() } else { self.host.as_deref() }
    }
}

impl Record {
    /// What is known of a connection's place.
    pub(crate) fn known(&self, config: &Config, connection: &Connection) -> Option<&Known> {
        self.places.get(&place_key(config, connection, connection.place.as_ref()?))
    }

    /// Remembers what the API said of a place of this connection's workspace.
    pub(super) fn remember(&mut self, config: &Config, connection: &Connection, place: &Place, known: Known) {
        self.places.insert(place_key(config, connection, place), known);
    }

    /// Remembers who signs in to this connection's workspace.
    pub(super) fn remember_user(&mut self, config: &Config, connection: &Connection, user: &str) {
        self.users.insert(sign_in_name(config.workspace_of(connection)), user.to_owned());
    }
}

fn place_key(config: &Config, connection: &Connection, place: &Place) -> String {
    format!("{} {place}", config.workspace_of(connection).host.origin())
}

impl Rotator {
    /// The same rotator with all connections located as far as the record knows.
    pub(crate) fn located(&self, record: &Record) -> Self {
        if !self.config.connections.iter().any(Connection::is_open) {
            return self.clone();
        }
        let mut config = Config::clone(&self.config);
        for connection in &mut config.connections {
            if connection.is_open() {
                let host = record
                    .known(&self.config, connection)
                    .and_then(|known| known.found.as_ref()?.host_for(connection.read_only).map(str::to_owned));
                let user = record.users.get(&sign_in_name(self.config.workspace_of(connection)));
                connection.locate(host.as_deref(), user.map(String::as_str));
            }
        }
        Rotator { config: Arc::new(config), store: self.store.clone() }
    }

    /// The same rotator with some connections as they were just located; whether that changed any.
    pub(super) fn relocated(&self, located: &[(usize, &Connection)]) -> (Self, bool) {
        let is_news =
            |(index, connection): &&(usize, &Connection)| self.config.connections[*index].key != connection.key;
        if !located.iter().any(|one| is_news(&one)) {
            return (self.clone(), false);
        }
        let mut config = Config::clone(&self.config);
        for (index, connection) in located.iter().filter(is_news) {
            config.connections[*index] = (*connection).clone();
        }
        (Rotator { config: Arc::new(config), store: self.store.clone() }, true)
    }
}
