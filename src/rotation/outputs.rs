//! What stands beside the password file follows it: the files and the service sections of connections, and the programs that are
//! told of a rotation.
//!
//! The password file stays the truth. Whatever differs from it is written again, without asking anybody for a credential.

use std::time::{Duration, Instant};

use secrecy::ExposeSecret;

use super::Rotator;
use super::due::Standing;
use super::record::Record;
use super::report::Outcome;
use super::round::Outcomes;
use crate::config::{Connection, Listing};
use crate::failure::{Code, Failure};
use crate::logging::announce;
use crate::os::identity::as_owner_of;
use crate::os::replace::{are_leftovers_there, remove_leftovers};
use crate::outputs::service_file::{self, Section};
use crate::outputs::{Rotated, hook};
use crate::pgpass::{Key, PasswordFile};
use crate::token::fingerprint;

/// How the names of records begin before they have their own.
const RECORD: &str = ".record";

/// How long a command waits, at most, for somebody who still writes to a file that it has replaced. Later runs look again.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// How often it looks.
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

/// How long the record is waited for, to say in it how a program ended.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

impl Rotator {
    /// Whether what was asked for beside the password file agrees with it. Of a rotator whose connections are located.
    pub(super) fn outputs_are_current(&self, selected: &[usize], standings: &[Standing]) -> bool {
        let files_are = |index: &usize| match published(standings.get(*index)) {
            Some(live) => self.config.connections[*index].outputs.are_current(live),
            None => true,
        };
        let asked_for = self.sections(|listing| listing == Listing::Asked);
        let sections_are = || match &self.config.service_file {
            Some(path) => asked_for.is_empty() || service_file::is_current(path, &asked_for),
            None => true,
        };
        selected.iter().all(files_are) && sections_are()
    }

    pub(super) fn has_outputs(&self) -> bool {
        let wants = |connection: &Connection| !connection.outputs.is_empty() || connection.listing != Listing::No;
        self.config.connections.iter().any(wants)
    }

    /// Writes what differs; what cannot be written is said, kept in the record, and the outcome of its connection.
    /// Returns whether the record has changed.
    pub(super) fn write_outputs(&self, outcomes: &mut Outcomes, standings: &[Standing], record: &mut Record) -> bool {
        let mut changed = false;
        let mut failures: Vec<(usize, Failure)> = Vec::new();
        for (index, ..) in outcomes.iter() {
            let outputs = &self.config.connections[*index].outputs;
            let Some(live) = published(standings.get(*index)).filter(|live| !outputs.are_current(live)) else {
                continue;
            };
            let written = outputs.write(live, &self.known_beside(*index, record));
            match written {
                Ok(()) => {
                    tracing::info!("Wrote the files that {} has beside its entry", self.name(*index));
                    let known = record.connection_mut(&self.config, &self.config.connections[*index]);
                    let now = Some(fingerprint(live.expose_secret()));
                    changed |= known.beside != now;
                    known.beside = now;
                    changed |= known.last_error.take_if(|error| error.code == Code::CannotWrite).is_some();
                }
                Err(failure) => failures.push((*index, failure)),
            }
        }
        if let Err(failure) = self.write_sections() {
            let asked = |index: &usize| self.config.connections[*index].listing == Listing::Asked;
            let concerned: Vec<usize> = outcomes.iter().map(|(index, ..)| *index).filter(asked).collect();
            if concerned.is_empty() {
                tracing::warn!("{failure}");
            }
            failures.extend(concerned.into_iter().map(|index| (index, failure.clone())));
        }
        for (index, failure) in failures {
            let known = record.connection_mut(&self.config, &self.config.connections[index]);
            // It is tried at every look; that it still fails is no news.
            if known.last_error.as_ref() != Some(&failure) {
                announce::failed(&failure, None, &[self.name(index)]);
                known.last_error = Some(failure.clone());
                changed = true;
            }
            for (.., outcome) in outcomes.iter_mut().filter(|(other, ..)| *other == index) {
                *outcome = Outcome::Failed(failure.clone());
            }
        }
        changed
    }

    /// Tells the credentials that this connection had before.
    fn known_beside<'r>(&self, index: usize, record: &'r Record) -> impl Fn(&str) -> bool + use<'r> {
        let known = record.connection(&self.config, &self.config.connections[index]);
        move |credential| known.is_some_and(|known| known.knows(credential))
    }

    // ---- what was left behind ----

    /// Whether no process that was killed has left anything beside the files that are kept.
    pub(crate) fn is_settled(&self) -> bool {
        let connections = &self.config.connections;
        PasswordFile::new(&self.config.password_file).is_settled()
            && self.config.service_file.as_ref().is_none_or(|path| service_file::is_settled(path))
            && connections.iter().all(|connection| connection.outputs.are_settled())
            && !are_leftovers_there(&self.config.state_dir, RECORD)
    }

    /// Takes over what somebody wrote to a file at the moment that it was replaced, and removes what else was left behind. Under the
    /// lock, of a rotator whose connections are located.
    pub(super) fn tidy(&self, record: &Record) {
        if self.is_settled() {
            return;
        }
        let keys: Vec<Key> = self.config.connections.iter().filter_map(|connection| connection.key.clone()).collect();
        if let Err(error) = PasswordFile::new(&self.config.password_file).settle(&keys) {
            tracing::warn!("{error}");
        }
        let sections = self.sections(|listing| listing != Listing::No);
        if let Some(path) = self.config.service_file.as_ref().filter(|path| !service_file::is_settled(path))
            && let Err(failure) = service_file::update(path, &sections)
        {
            tracing::warn!("{failure}");
        }
        for (index, connection) in self.config.connections.iter().enumerate() {
            connection.outputs.tidy(&self.known_beside(index, record));
        }
        let _ = as_owner_of(&self.config.state_dir, || remove_leftovers(&self.config.state_dir, RECORD));
    }

    /// Whether somebody still writes to a file that was replaced while they had it open.
    fn is_waited_for(&self) -> bool {
        PasswordFile::new(&self.config.password_file).is_waited_for()
            || self.config.service_file.as_ref().is_some_and(|path| service_file::is_waited_for(path))
    }

    /// Waits for whoever writes so, and takes over what they wrote, before a command ends. Usually there is nobody.
    pub(crate) async fn settle(&self) {
        if self.is_settled() {
            return;
        }
        let started = Instant::now();
        while self.is_waited_for() && started.elapsed() < SETTLE_LIMIT {
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
        let _lock = self.store.lock(LOCK_LIMIT, || None::<()>).await;
        let record = self.record();
        self.located(&record).tidy(&record);
    }

    /// Runs the programs of those that were rotated; what goes wrong is said, kept in the record, and stops nothing.
    pub(super) async fn tell_programs(&self, outcomes: &Outcomes, standings: &[Standing]) {
        let has_program = |(index, _, outcome): &&(usize, String, Outcome)| {
            let wants = self.config.connections[*index].outputs.on_rotate.is_some();
            wants && matches!(outcome, Outcome::Rotated { .. })
        };
        let rotated: Vec<usize> = outcomes.iter().filter(has_program).map(|(index, ..)| *index).collect();
        if rotated.is_empty() {
            return;
        }
        if hook::is_inside(&self.config.environment) {
            let names: Vec<&str> = rotated.iter().map(|index| self.name(*index)).collect();
            tracing::warn!(
                "on_rotate is not run for {}: this rotation was started by such a program",
                names.join(", ")
            );
            return;
        }
        let here = self.located(&self.record());
        let mut ends: Vec<(usize, Option<Failure>)> = Vec::with_capacity(rotated.len());
        for index in rotated {
            let token = standings.get(index).and_then(|standing| standing.token.as_ref());
            let (Some(token), Some(key)) = (token, &here.config.connections[index].key) else { continue };
            let connection = &here.config.connections[index];
            let about = Rotated {
                connection: &connection.name,
                host: key.host(),
                port: key.port(),
                database: key.database(),
                user: key.user(),
                expires_at: token.expires_at,
                password_file: &here.config.password_file,
            };
            let failure = connection.outputs.run_hook(&about, &here.config.environment).await.err();
            if let Some(failure) = &failure {
                announce::hook_failed(&connection.name, failure);
            }
            ends.push((index, failure));
        }
        here.record_ends(ends).await;
    }

    /// Another instance may have written the record meanwhile: it is read again.
    async fn record_ends(&self, ends: Vec<(usize, Option<Failure>)>) {
        let _lock = self.store.lock(LOCK_LIMIT, || None::<()>).await;
        let mut record = self.record();
        let before = record.clone();
        for (index, failure) in ends {
            record.connection_mut(&self.config, &self.config.connections[index]).hook_error = failure;
        }
        if record != before {
            self.keep(&record);
        }
    }

    fn write_sections(&self) -> Result<(), Failure> {
        let sections = self.sections(|listing| listing != Listing::No);
        let Some(path) = self.config.service_file.as_ref().filter(|_| !sections.is_empty()) else { return Ok(()) };
        if service_file::is_current(path, &sections) {
            return Ok(());
        }
        for sentence in service_file::update(path, &sections)? {
            tracing::warn!("{sentence}");
        }
        tracing::info!("Successfully updated {}", path.display());
        Ok(())
    }

    /// The sections of the located connections that are listed so.
    fn sections(&self, wanted: impl Fn(Listing) -> bool) -> Vec<Section> {
        let usual = self.config.environment.home().map(|home| home.join(".pgpass"));
        let file = &self.config.password_file;
        // Where libpq looks by itself; what PGPASSFILE says here need not be said there.
        let passfile =
            (usual.as_ref() != Some(file)).then(|| std::path::absolute(file).unwrap_or_else(|_| file.clone()));
        let section = |connection: &Connection| {
            let key = connection.key.as_ref().filter(|_| wanted(connection.listing))?;
            Some(Section {
                name: connection.name.clone(),
                host: key.host().to_owned(),
                port: key.port(),
                database: key.database().to_owned(),
                user: key.user().to_owned(),
                sslmode: connection.sslmode_for_libpq().as_str().to_owned(),
                sslrootcert: connection.root_for_libpq(),
                passfile: passfile.as_ref().map(|path| path.display().to_string()),
            })
        };
        self.config.connections.iter().filter_map(section).collect()
    }

    fn name(&self, index: usize) -> &str {
        &self.config.connections[index].name
    }
}

/// The credential that clients read, where it lives.
fn published(standing: Option<&Standing>) -> Option<&secrecy::SecretString> {
    let standing = standing?;
    standing.left_to_clients()?;
    Some(&standing.token.as_ref()?.password)
}
