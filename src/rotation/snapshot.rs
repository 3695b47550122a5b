//! Everything that a round looks at, read once: the record, the password file, the clocks. The state of each connection
//! follows from it without any request.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::password_files::{self, Behind, ReadFile};
use super::record::{ConnectionRecord, Record};
use super::schedule::Spread;
use super::status::{ConnectionStatus, survey};
use crate::config::Config;
use crate::failure::Failure;
use crate::model::Connection;
use crate::os::clock::Reading;
use crate::os::replace::Allowance;
use crate::pgpass::{Contents, PasswordFile};

/// What was found at one moment. Connections are referred to by their place in the configuration.
pub(crate) struct Snapshot {
    pub(crate) config: Arc<Config>,
    /// The connections with hosts and users that were looked up, if some are not set.
    located: Option<Vec<Connection>>,
    pub(crate) record: Record,
    /// By the password file that has the best of each.
    pub(crate) statuses: Vec<ConnectionStatus>,
    /// The password files, in the order of the configuration.
    pub(super) files: Vec<ReadFile>,
    /// Which of them lack what another has.
    pub(super) behind: Behind,
    clock: Reading,
    pub(super) spread: Spread,
    /// What others who write to the same files may still cost.
    pub(super) allowance: Allowance,
}

impl Snapshot {
    /// Reads the password files; `record` is what was kept of earlier rotations.
    ///
    /// # Errors
    /// The password files are there, and none of them can be read.
    pub(super) fn take(
        config: &Arc<Config>,
        record: Record,
        spread: Spread,
        allowance: &Allowance,
    ) -> Result<Self, Failure> {
        let files = password_files::read(config, allowance)?;
        let mut snapshot = Snapshot {
            config: Arc::clone(config),
            located: located(config, &record),
            record,
            statuses: Vec::new(),
            files,
            behind: Behind::new(),
            clock: Reading::now(),
            spread,
            allowance: allowance.clone(),
        };
        snapshot.judge();
        Ok(snapshot)
    }

    fn judge(&mut self) {
        let of_one =
            |file: &Contents| survey(&self.config, self.connections(), &self.record, file, &self.clock, self.spread);
        let (statuses, behind) = password_files::judge(&self.files, self.connections().len(), of_one);
        (self.statuses, self.behind) = (statuses, behind);
    }

    /// All connections, with host and user as far as they are known.
    pub(crate) fn connections(&self) -> &[Connection] {
        self.located.as_deref().unwrap_or(&self.config.connections)
    }

    /// What happened to a connection before.
    pub(crate) fn past(&self, index: usize) -> Option<&ConnectionRecord> {
        self.record.connection(&self.config, self.connections().get(index)?)
    }

    /// The same, to be changed.
    pub(super) fn past_mut(&mut self, index: usize) -> &mut ConnectionRecord {
        let connection = match &self.located {
            Some(located) => &located[index],
            None => &self.config.connections[index],
        };
        self.record.connection_mut(&self.config, connection)
    }

    /// The password file of this path, to be replaced.
    pub(super) fn password_file(&self, path: &Path) -> PasswordFile {
        PasswordFile::new(path).within(&self.allowance)
    }

    pub(super) fn name(&self, index: usize) -> &str {
        &self.config.connections[index].name
    }

    /// Uses hosts and users that were just looked up. Published credentials are then judged by the resulting entries.
    pub(super) fn relocate(&mut self, news: Vec<(usize, Connection)>) {
        let is_news = |(index, connection): &(usize, Connection)| self.connections()[*index].key != connection.key;
        let news: Vec<(usize, Connection)> = news.into_iter().filter(is_news).collect();
        if news.is_empty() {
            return;
        }
        let located = self.located.get_or_insert_with(|| self.config.connections.clone());
        for (index, connection) in news {
            located[index] = connection;
        }
        self.judge();
    }

    /// When it was taken, by this machine's clock.
    pub(super) fn taken_at(&self) -> Timestamp {
        self.clock.wall
    }
}

/// The connections, with hosts and users from the record where they are not set; none if all are set.
fn located(config: &Config, record: &Record) -> Option<Vec<Connection>> {
    if !config.connections.iter().any(Connection::is_open) {
        return None;
    }
    let mut connections = config.connections.clone();
    for connection in connections.iter_mut().filter(|connection| connection.is_open()) {
        let workspace = config.workspace_of(connection);
        let info = record.lookup(workspace, connection).and_then(|lookup| lookup.found.as_ref());
        let host = info.and_then(|info| info.host_for(connection.read_only)).map(str::to_owned);
        connection.locate(host.as_deref(), record.user(workspace));
    }
    Some(connections)
}
