//! What the proxy adds to the files that clients read: entries for its own ports, and sections for its sockets.

use super::{LOCK_LIMIT, Rotation};
use crate::failure::Failure;
use crate::model::{Connection, Listing};
use crate::outputs::service_file::{self, Section};
use crate::pgpass::{Entry, PasswordFile};

impl Rotation {
    /// Puts these entries into every password file, and a section for each connection that has one into libpq's service file.
    ///
    /// # Errors
    /// One of the files cannot be read or replaced, or another instance holds the lock.
    pub(crate) async fn publish_beside(
        &self,
        entries: &[Entry],
        section: impl Fn(&Connection) -> Option<Section>,
    ) -> Result<(), Failure> {
        let _lock = self.store.lock(LOCK_LIMIT, || None::<()>).await?;
        if !entries.is_empty() {
            for path in &self.config.password_files {
                let file = PasswordFile::new(path).within(&self.allowance);
                file.publish(entries).map_err(|error| Failure::from(&error))?;
            }
        }
        let listed = |connection: &&Connection| connection.listing != Listing::No;
        let snapshot = self.snapshot()?;
        let sections: Vec<Section> = snapshot.connections().iter().filter(listed).filter_map(section).collect();
        let Some(path) = self.config.service_file.as_ref().filter(|_| !sections.is_empty()) else { return Ok(()) };
        if !service_file::is_current(path, &sections) {
            for remark in service_file::update_within(&self.allowance, path, &sections)? {
                tracing::warn!("{remark}");
            }
        }
        Ok(())
    }
}
