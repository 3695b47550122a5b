//! What leads clients to the proxy: sections of libpq's service file, and entries of the password files for its ports.

use std::collections::HashSet;
use std::time::Duration;

use super::listeners::PORT;
use super::{OwnPassword, Proxy, password};
use crate::model::Connection;
use crate::outputs::service_file::Section;
use crate::pgpass::{Entry, Key, Unwanted};
use crate::rotation::Rotation;

/// So many connections count as not found where all of it is to be done again.
pub(super) const LATER: usize = usize::MAX;

impl Proxy {
    /// Puts into the files of clients what leads them here. Without it they can still be told by hand, so nobody waits while another
    /// instance holds the lock: then it is done at a later look.
    pub(super) async fn publish(&mut self) {
        self.shared.counting.listens(self.listeners.names());
        let rotation = Rotation::new(self.config().clone());
        // What is found from now on is published by another call.
        self.unlocated = self.served.rotator.unlocated();
        let directory = self.listeners.directory();
        let taken: HashSet<&str> = self.config().connections.iter().map(Connection::name).collect();
        let section = |connection: &Connection| {
            let section = section(connection, directory.as_deref()?.to_str()?)?;
            if taken.contains(section.name.as_str()) {
                let own = connection.name();
                tracing::warn!("{own} has no section that leads to the proxy: a connection is called {}", section.name);
                return None;
            }
            Some(section)
        };
        let entries = |connection: &Connection| self.entries(connection);
        // Of ports that are not the proxy's any more: another program may get them, and be offered the password.
        let password = password::of_file(&self.shared.password_path).ok();
        let in_use: Vec<u16> = self.config().connections.iter().filter_map(|one| one.proxied.port).collect();
        let unwanted = password.as_ref().map(|password| Unwanted { host: "localhost", password, in_use: &in_use });
        let published = rotation.publish_beside(Duration::ZERO, entries, unwanted.as_ref(), section).await;
        let Err(failure) = published else { return };
        if failure.is_transient() {
            self.unlocated = LATER;
            tracing::debug!("what leads clients to the proxy is not written yet: {failure}");
        } else {
            tracing::warn!("what leads clients to the proxy could not be written: {}", failure.sentence());
        }
    }

    /// The same where a host or a user has been found since.
    pub(super) async fn publish_news(&mut self) {
        if self.unlocated > 0 && self.served.rotator.unlocated() < self.unlocated {
            self.publish().await;
        }
    }

    /// The proxy's own password for the port of a connection, under the names of users that clients give by themselves.
    fn entries(&self, connection: &Connection) -> Vec<Entry> {
        let (Some(OwnPassword { password, .. }), Some(port)) = (&self.served.own_password, connection.proxied.port)
        else {
            return Vec::new();
        };
        // Whoever has it instead would be offered the password.
        if !self.listeners.ports().any(|address| address.port() == port) {
            return Vec::new();
        }
        let users = self.own_name.as_deref().into_iter().chain(connection.key().map(Key::user));
        let entry = |user: &str| {
            let key = Key::new("localhost", port, "*", user).ok()?;
            Entry::new(key, password.clone(), false).ok()
        };
        users.filter_map(entry).collect()
    }
}

/// Where libpq finds a connection by the proxy: `psql service=NAME-proxy`.
fn section(connection: &Connection, directory: &str) -> Option<Section> {
    Some(Section {
        name: format!("{}-proxy", connection.name()),
        host: directory.to_owned(),
        port: PORT,
        database: connection.name().to_owned(),
        user: connection.key()?.user().to_owned(),
        // It is a Unix socket.
        sslmode: "disable".to_owned(),
        sslrootcert: None,
        passfile: None,
    })
}
