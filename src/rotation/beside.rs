//! What the proxy adds to the files that clients read: entries for its own ports, and sections for its sockets. And what it takes out
//! of them again.

use std::path::Path;
use std::time::Duration;

use super::Rotation;
use super::snapshot::Snapshot;
use crate::failure::Failure;
use crate::model::{Connection, Listing};
use crate::outputs::service_file::{self, Section};
use crate::pgpass::{Entry, PasswordFile, Unwanted};

impl Rotation {
    /// Puts the entries of each connection into every password file, takes the unwanted ones out, and puts a section for each that has
    /// one into libpq's service file.
    ///
    /// # Errors
    /// One of the files cannot be read or replaced. Transient: another instance has held the lock for all of `limit`.
    pub(crate) async fn publish_beside(
        &self,
        limit: Duration,
        entries: impl Fn(&Connection) -> Vec<Entry>,
        unwanted: Option<&Unwanted<'_>>,
        section: impl Fn(&Connection) -> Option<Section>,
    ) -> Result<(), Failure> {
        let _lock = self.store.lock(limit, || None::<()>).await?;
        let snapshot = self.snapshot()?;
        let entries: Vec<Entry> = snapshot.connections().iter().flat_map(entries).collect();
        if !entries.is_empty() {
            for path in &self.config.password_files {
                self.beside(path).publish(&entries).map_err(|error| Failure::from(&error))?;
            }
        }
        if let Some(unwanted) = unwanted {
            self.remove(unwanted)?;
        }
        let listed = |connection: &&Connection| connection.listing != Listing::No;
        let sections: Vec<Section> = snapshot.connections().iter().filter(listed).filter_map(section).collect();
        let Some(path) = self.config.service_file.as_ref().filter(|_| !sections.is_empty()) else { return Ok(()) };
        if !service_file::is_current(path, &sections) {
            for remark in service_file::update_within(&self.allowance, path, &sections)? {
                tracing::warn!("{remark}");
            }
        }
        Ok(())
    }

    /// Takes these entries out of every password file. Returns each file that had any, and how many.
    ///
    /// # Errors
    /// As [`Rotation::publish_beside`].
    pub(crate) async fn remove_beside(
        &self,
        limit: Duration,
        unwanted: &Unwanted<'_>,
    ) -> Result<Vec<(&Path, usize)>, Failure> {
        let _lock = self.store.lock(limit, || None::<()>).await?;
        self.remove(unwanted)
    }

    /// The same under the lock.
    fn remove(&self, unwanted: &Unwanted<'_>) -> Result<Vec<(&Path, usize)>, Failure> {
        let mut removed = Vec::new();
        for path in &self.config.password_files {
            match self.beside(path).remove(unwanted).map_err(|error| Failure::from(&error))? {
                0 => {}
                count => removed.push((path.as_path(), count)),
            }
        }
        Ok(removed)
    }

    fn beside(&self, path: &Path) -> PasswordFile {
        PasswordFile::new(path).within(&self.allowance)
    }

    /// How many connections have no host or no user yet.
    pub(crate) fn unlocated(&self) -> usize {
        let open = |snapshot: Snapshot| snapshot.connections().iter().filter(|one| one.key.is_none()).count();
        // Where nothing can be read, nothing can be published either.
        self.snapshot().map_or(0, open)
    }
}
