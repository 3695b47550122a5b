//! Keeps the password files of one configuration in step: what is published is written into each, and what one lacks again.

use std::collections::BTreeMap;

use super::password_files::Lack;
use super::snapshot::Snapshot;
use super::status::ConnectionStatus;
use crate::failure::Failure;
use crate::logging::announce;
use crate::pgpass::Entry;

impl Snapshot {
    /// The files that are behind for these connections, as connection and file.
    pub(super) fn behind_for(&self, connections: &[usize]) -> impl Iterator<Item = (usize, usize)> {
        // Usually there are none.
        let connections = if self.behind.is_empty() { &[] } else { connections };
        connections.iter().flat_map(|connection| self.lacks_of(*connection).map(|(file, _)| (*connection, file)))
    }

    fn lacks_of(&self, connection: usize) -> impl Iterator<Item = (usize, &Lack)> {
        self.behind.range((connection, 0)..=(connection, usize::MAX)).map(|((_, file), lack)| (*file, lack))
    }

    /// What the files that are behind lack of a connection, a sentence each.
    pub(crate) fn what_files_lack(&self, connection: usize) -> Vec<String> {
        let sentence = |(file, lack): (usize, &Lack)| {
            let path = self.config.password_files[file].display();
            let why = lack.status.reason.as_deref().unwrap_or("its entry holds another credential");
            format!("{path} lacks its credential: {why}")
        };
        self.lacks_of(connection).map(sentence).collect()
    }

    /// How a connection stands for the clients of the password file at this place.
    pub(crate) fn status_in(&self, file: usize, connection: usize) -> &ConnectionStatus {
        self.behind.get(&(connection, file)).map_or(&self.statuses[connection], |lack| &lack.status)
    }

    /// How a connection stands for the clients of the file that has the least of it.
    pub(crate) fn worst_status(&self, connection: usize) -> ConnectionStatus {
        let best = &self.statuses[connection];
        let worst =
            self.lacks_of(connection).map(|(_, lack)| &lack.status).min_by_key(|status| status.left_to_clients());
        match worst.filter(|worst| worst.left_to_clients() < best.left_to_clients()) {
            Some(worst) => ConnectionStatus {
                state: worst.state,
                reason: best.reason.clone(),
                token: worst.token.clone(),
                now: best.now,
            },
            None => best.clone(),
        }
    }

    /// Publishes these entries, which are those of `connections`, in all files; returns whether that changed anything for anybody.
    ///
    /// # Errors
    /// None of the files takes them: what is wrong with the first. Those that do not while others do are behind then.
    pub(super) fn publish(&mut self, entries: &[Entry], connections: &[usize]) -> Result<bool, Failure> {
        let all = 0..self.config.password_files.len();
        let (mut changed, mut failures) = (false, Vec::new());
        for file in all.clone() {
            match self.publish_in(file, entries, connections) {
                Ok(published) => changed |= published,
                Err(failure) => failures.push((file, failure)),
            }
        }
        if let Some((_, failure)) = failures.first().filter(|_| failures.len() == all.len()) {
            return Err(failure.clone());
        }
        for (file, failure) in &failures {
            connections.iter().for_each(|connection| self.falls_behind(*file, *connection, failure));
        }
        Ok(changed)
    }

    fn publish_in(&mut self, file: usize, entries: &[Entry], connections: &[usize]) -> Result<bool, Failure> {
        let path = &self.config.password_files[file];
        let published = self.password_file(path).publish(entries).map_err(|error| Failure::from(&error))?;
        announce::published(path, &published);
        if file == 0 {
            self.record.fixed_mode = published.fixed_mode;
        }
        for connection in connections {
            self.behind.remove(&(*connection, file));
        }
        Ok(published.changed)
    }

    fn falls_behind(&mut self, file: usize, connection: usize, failure: &Failure) {
        // Until now it had what the others had.
        let status = || self.statuses[connection].clone();
        let lack = self.behind.entry((connection, file)).or_insert_with(|| Lack { status: status(), failure: None });
        lack.failure = Some(failure.clone());
    }

    /// Writes the credentials of these connections into the files that are behind; returns what cannot be written.
    pub(super) fn catch_up(&mut self, connections: &[usize]) -> Vec<(usize, Failure)> {
        let mut open: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let behind =
            self.behind_for(connections).filter(|key| self.behind.get(key).is_some_and(|one| one.failure.is_none()));
        for (connection, file) in behind {
            open.entry(file).or_default().push(connection);
        }
        for (file, lacking) in open {
            let entries: Vec<Entry> = lacking.iter().filter_map(|connection| self.entry(*connection)).collect();
            match self.publish_in(file, &entries, &lacking) {
                Ok(_) => tracing::info!("What was missing in the password file was written again"),
                Err(failure) => lacking.iter().for_each(|one| self.falls_behind(file, *one, &failure)),
            }
        }
        let failed = |key: (usize, usize)| Some((key.0, self.behind.get(&key)?.failure.clone()?));
        self.behind_for(connections).filter_map(failed).collect()
    }

    /// The entry that is published of a connection.
    fn entry(&self, connection: usize) -> Option<Entry> {
        let password = self.statuses[connection].token.as_ref()?.password.clone();
        let connection = &self.connections()[connection];
        Entry::new(connection.key.clone()?, password, connection.last_copy).ok()
    }
}
