//! What the last rotations did: a file without secrets.
//!
//! The password file decides, not the record. The record adds what a token does not say itself (the expiry of an opaque one),
//! what `status` shows, and the workspace's clock. Losing it costs at most a rotation, so it is replaced atomically but not
//! synced to disk.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::schedule::NEXT_RUN;
use crate::config::Config;
use crate::failure::Failure;
use crate::lakebase::DatabaseInfo;
use crate::model::AuthMethod;
use crate::model::token::fingerprint;
use crate::model::{Connection, CredentialKind, DatabaseRef, Workspace};
use crate::os::clock::Anchor;

/// The format of record.json; any other version is ignored.
pub(super) const VERSION: u32 = 1;

/// What was not used for this long is forgotten.
const LONGEST_MEMORY: SignedDuration = SignedDuration::from_hours(90 * 24);

/// How many files of before are remembered beside those of now: as many as a connection may have.
const MOST_MADE: usize = 16;

/// The whole record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(super) version: u32,
    connections: BTreeMap<String, ConnectionRecord>,
    /// By the workspace's address.
    clocks: BTreeMap<String, Anchor>,
    /// The API's answers about connections' databases, by the workspace's address and the database.
    #[serde(default)]
    places: BTreeMap<String, CachedLookup>,
    /// Who signs in, by the workspace's address and client or profile.
    #[serde(default)]
    users: BTreeMap<String, String>,
    /// The messages about the service file that were reported.
    #[serde(default)]
    pub(super) remarks: Vec<String>,
    /// The mode of the password file as we left it, where its file system sets none that keeps others out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fixed_mode: Option<u32>,
    /// Who held the Lease when that changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lease: Option<LeaseRecord>,
}

/// Who of several replicas writes Secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) name: String,
    pub(crate) is_ours: bool,
    /// Who holds it, if that is another one.
    pub(crate) holder: Option<String>,
}

impl Default for Record {
    fn default() -> Self {
        Record {
            version: VERSION,
            connections: BTreeMap::new(),
            clocks: BTreeMap::new(),
            places: BTreeMap::new(),
            users: BTreeMap::new(),
            remarks: Vec::new(),
            fixed_mode: None,
            lease: None,
        }
    }
}

/// The last events of one entry of one password file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ConnectionRecord {
    pub(crate) published: Option<PublishedRecord>,
    /// The credential that is being written into several password files, by its fingerprint: a process that is killed at it has left
    /// something better in some of them than the others have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) coming: Option<String>,
    pub(crate) last_rotation_at: Option<Timestamp>,
    pub(crate) last_attempt_at: Option<Timestamp>,
    pub(crate) last_error: Option<Failure>,
    pub(crate) next_attempt_at: Option<Timestamp>,
    /// Since when each try has failed for a passing reason, by the wall clock; so that the runs of a timer know what has lasted.
    pub(crate) failing_since: Option<Timestamp>,
    /// Why the program that is told of rotations did not do its work the last time.
    pub(crate) hook_error: Option<Failure>,
    pub(crate) failures: Failures,
    /// A credential was refused to it when it was asked for alone: so it is until it has one, and keeps no other from theirs.
    pub(crate) refused_alone: bool,
    /// The credential that was last written beside the entry, by its fingerprint.
    pub(crate) beside: Option<String>,
    /// The files that were last made from templates, by the fingerprints of all that is in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) made: Vec<String>,
    /// What `on_rotate` still has to be told.
    pub(crate) untold: Option<Untold>,
    /// How its Secret was found last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<SecretRecord>,
}

/// How the Secret of a connection was found by the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SecretRecord {
    /// Its name, as the setting has it: another one begins anew.
    pub(crate) name: String,
    /// The credential that it was last seen to hold.
    pub(crate) fingerprint: Option<String>,
    /// When that was, by this machine's clock.
    pub(crate) seen_at: Option<Timestamp>,
    /// Why it could not be read or written since.
    pub(crate) error: Option<Failure>,
}

/// A new credential that `on_rotate` has not been told of, or not to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Untold {
    /// See [`crate::model::token::fingerprint`].
    pub(crate) fingerprint: String,
    /// When the program was last started for it, so that no other instance starts it too.
    #[serde(default)]
    pub(crate) started_at: Option<Timestamp>,
}

/// The API's last answer about a database. With it, published credentials can be judged without a request, and connections
/// survive an outage of the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CachedLookup {
    /// None if the API does not know the database.
    pub(crate) found: Option<DatabaseInfo>,
    /// By this machine's clock.
    pub(crate) asked_at: Timestamp,
}

/// How many tries have failed since the record began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Failures {
    pub(crate) transient: u64,
    pub(crate) permanent: u64,
}

impl ConnectionRecord {
    /// The entry holds this credential from now on; the files beside it still hold the one before.
    pub(super) fn holds(&mut self, published: PublishedRecord) {
        self.coming = None;
        let before = self.published.take().map(|before| before.fingerprint);
        self.beside = self.beside.take().or(before);
        self.published = Some(published);
    }

    /// Why the program that `on_rotate` names did not do its work the last time. One that is not named any more is nobody's business.
    #[cfg(feature = "cli")]
    pub(crate) fn failure_of_hook(&self, connection: &Connection) -> Option<&Failure> {
        self.hook_error.as_ref().filter(|_| connection.outputs.on_rotate.is_some())
    }

    /// Whether this credential was the last one published, or the last one written to the other files; or is all that is in a file
    /// that was last made from a template.
    pub(crate) fn knows(&self, text: &str) -> bool {
        let published = self.published.as_ref().map(|published| &published.fingerprint);
        let name = fingerprint(text);
        published.into_iter().chain(&self.beside).chain(&self.made).any(|known| *known == name)
    }

    /// Remembers the files that have been made from templates; those before as well where not all could be written.
    pub(super) fn note_made(&mut self, mut made: Vec<String>, all: bool) -> bool {
        if !all {
            let before = self.made.iter().filter(|before| !made.contains(before)).take(MOST_MADE).cloned();
            made.extend(before.collect::<Vec<_>>());
        }
        let is_news = self.made != made;
        self.made = made;
        is_news
    }

    /// Notes a try that ended well, but for what it said beside that.
    pub(crate) fn succeeded(&mut self, at: Timestamp, trouble: Option<Failure>) {
        self.last_attempt_at = Some(at);
        self.last_error = trouble;
        self.next_attempt_at = None;
        self.failing_since = None;
    }

    /// For how long each try has failed for a passing reason; none where none has failed lately: what was nobody's business for
    /// long may have passed meanwhile. Not longer than two runs of a timer ago counts as lately.
    pub(crate) fn failing_for(&self, now: Timestamp) -> Option<Duration> {
        let is_lately = |at: &Timestamp| now.duration_since(*at).abs() <= NEXT_RUN * 2;
        self.last_attempt_at.filter(is_lately)?;
        Some(Duration::try_from(now.duration_since(self.failing_since?)).unwrap_or_default())
    }

    /// Notes a try that failed.
    pub(crate) fn failed(&mut self, failure: &Failure, at: Timestamp, next: Timestamp) {
        self.last_attempt_at = Some(at);
        self.last_error = Some(failure.clone());
        self.next_attempt_at = Some(next);
        // Who needs a person is not waited for by slower tries.
        self.failing_since = failure.is_transient().then(|| self.failing_since.unwrap_or(at));
        let count = if failure.is_transient() { &mut self.failures.transient } else { &mut self.failures.permanent };
        *count = count.saturating_add(1);
    }
}

/// The credential that was published last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PublishedRecord {
    /// See [`crate::model::token::fingerprint`].
    pub(crate) fingerprint: String,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) subject: Option<String>,
    /// How it was got; none where it was handed over.
    #[serde(default)]
    pub(crate) auth: Option<AuthMethod>,
    #[serde(default)]
    pub(crate) source: CredentialKind,
    /// The workspace that it came from; older versions did not record it.
    #[serde(default)]
    pub(crate) origin: Option<String>,
}

impl Record {
    /// What is known about a connection.
    pub(crate) fn connection(&self, config: &Config, connection: &Connection) -> Option<&ConnectionRecord> {
        self.connections.get(&key(config, connection))
    }

    /// The same, to be changed; made if it does not exist.
    pub(crate) fn connection_mut(&mut self, config: &Config, connection: &Connection) -> &mut ConnectionRecord {
        self.connections.entry(key(config, connection)).or_default()
    }

    /// The last answer about a connection's database.
    pub(crate) fn lookup(&self, workspace: &Workspace, connection: &Connection) -> Option<&CachedLookup> {
        self.places.get(&database_key(workspace, connection.database_ref.as_ref()?))
    }

    /// Remembers an API's answer about a database.
    pub(super) fn set_lookup(&mut self, workspace: &Workspace, database: &DatabaseRef, lookup: CachedLookup) {
        self.places.insert(database_key(workspace, database), lookup);
    }

    /// Who signs in to a workspace, if that was ever needed.
    pub(crate) fn user(&self, workspace: &Workspace) -> Option<&str> {
        self.users.get(&identity_key(workspace)).map(String::as_str)
    }

    /// Remembers who signs in to a workspace.
    pub(super) fn set_user(&mut self, workspace: &Workspace, user: &str) {
        self.users.insert(identity_key(workspace), user.to_owned());
    }

    /// Forgets what has not been used for a long time: its configuration is gone.
    pub(super) fn prune(&mut self, now: Timestamp) {
        let is_old = |at: Timestamp| now.duration_since(at) > LONGEST_MEMORY;
        self.connections.retain(|_, one| {
            let expiry = one.published.as_ref().map(|published| published.expires_at);
            one.last_attempt_at.into_iter().chain(expiry).any(|at| !is_old(at))
        });
        self.places.retain(|_, lookup| !is_old(lookup.asked_at));
        self.clocks.retain(|_, anchor| !is_old(anchor.wall));
        let (places, connections) = (&self.places, &self.connections);
        if places.is_empty() && connections.is_empty() {
            self.users.clear();
        }
    }

    /// The workspace's clock as last reported.
    pub(crate) fn clock(&self, origin: &str) -> Option<&Anchor> {
        self.clocks.get(origin)
    }

    /// Remembers a workspace's clock.
    pub(crate) fn set_clock(&mut self, origin: &str, anchor: Anchor) {
        self.clocks.insert(origin.to_owned(), anchor);
    }
}

/// By the entry and its file, not by the name: another configuration may use the same name for another entry.
fn key(config: &Config, connection: &Connection) -> String {
    let file = config.password_file().display();
    match &connection.key {
        Some(key) => format!("{key} in {file}"),
        None => format!("{}, not found yet, in {file}", connection.name),
    }
}

fn database_key(workspace: &Workspace, database: &DatabaseRef) -> String {
    format!("{} {database}", workspace.host.origin())
}

/// A workspace and its identity, as far as the configuration tells it.
fn identity_key(workspace: &Workspace) -> String {
    let by = workspace.client_id().or(workspace.profile.as_deref());
    let method = workspace.means.as_ref().map_or("databricks-cli", |means| means.method().word());
    let group = workspace.group_id.as_ref().map_or_else(String::new, |group| format!(" group {group}"));
    format!("{} {}{group}", workspace.host.origin(), by.unwrap_or(method))
}
