//! What follows the password file: the other password files, and the files and the service sections of connections beside them.
//!
//! The password file is the truth. Files that differ from it are written again, without requesting a credential.

use std::collections::BTreeSet;
#[cfg(feature = "cli")]
use std::slice;

use secrecy::ExposeSecret;

use super::report::{Outcome, Outcomes};
use super::snapshot::Snapshot;
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::logging::announce;
use crate::model::token::fingerprint;
use crate::model::{Connection, Listing};
use crate::os::identity::as_owner_of;
use crate::os::replace::{are_leftovers_there, remove_leftovers};
use crate::outputs::service_file::{self, Section};
use crate::outputs::{Published, is_about_a_template};
use crate::pgpass::{Key, PasswordFile};
#[cfg(feature = "cli")]
use crate::typed::conninfo_setting;

/// How the names of new records begin before they are renamed.
const RECORD: &str = ".record";

/// Whether everything wanted besides the password file agrees with it.
pub(super) fn are_current(snapshot: &Snapshot, selected: &[usize]) -> bool {
    let files_are = |index: &usize| match published(snapshot, *index) {
        Some(live) => {
            snapshot.connections()[*index].outputs.are_current(&live) && !has_template_trouble(snapshot, *index)
        }
        None => true,
    };
    let asked_for = sections(snapshot, |listing| listing == Listing::Asked);
    let sections_are = || match &snapshot.config.service_file {
        Some(path) => asked_for.is_empty() || service_file::is_current(path, &asked_for),
        None => true,
    };
    snapshot.behind_for(selected).next().is_none() && selected.iter().all(files_are) && sections_are()
}

/// Writes what differs from it for the connections that have an outcome; what cannot be written is said, kept in the record, and becomes
/// the outcome. Returns whether the record has changed.
pub(super) fn write(snapshot: &mut Snapshot, outcomes: &mut Outcomes) -> bool {
    if outcomes.is_empty() {
        return false;
    }
    let mut changed = false;
    let concerned: Vec<usize> = outcomes.iter().map(|(index, _)| *index).collect();
    let mut mended: BTreeSet<usize> = snapshot.behind_for(&concerned).map(|(connection, _)| connection).collect();
    let mut failures: Vec<(usize, Failure)> = snapshot.catch_up(&concerned);
    for index in &concerned {
        let outputs = &snapshot.connections()[*index].outputs;
        let Some(live) = published(snapshot, *index) else { continue };
        if outputs.are_current(&live) {
            mended.extend(has_template_trouble(snapshot, *index).then_some(*index));
            continue;
        }
        let written = outputs.write(&live, &known_beside(snapshot, *index), &snapshot.allowance);
        let (made, now) = (outputs.contents(&live), Some(fingerprint(live.password.expose_secret())));
        let past = snapshot.past_mut(*index);
        changed |= past.note_made(made, written.is_ok());
        match written {
            Ok(()) => {
                changed |= past.beside != now;
                past.beside = now;
                tracing::info!("Wrote the output files of {}", snapshot.name(*index));
                mended.insert(*index);
            }
            Err(failure) => failures.push((*index, failure)),
        }
    }
    let written = write_sections(snapshot);
    changed |= say_remarks(snapshot);
    if let Err(failure) = written {
        let asked = |index: &usize| snapshot.connections()[*index].listing == Listing::Asked;
        let asked: Vec<usize> = concerned.into_iter().filter(asked).collect();
        if asked.is_empty() {
            tracing::warn!("{failure}");
        }
        failures.extend(asked.into_iter().map(|index| (index, failure.clone())));
    }
    for (index, _) in &failures {
        mended.remove(index);
    }
    for index in mended {
        changed |= snapshot.past_mut(index).last_error.take_if(|error| is_of_a_file(error)).is_some();
    }
    for (index, failure) in failures {
        // Every look tries it again; the same failure is not news.
        if snapshot.past_mut(index).last_error.as_ref() != Some(&failure) {
            announce::failed(&failure, None, &[snapshot.name(index)]);
            snapshot.past_mut(index).last_error = Some(failure.clone());
            changed = true;
        }
        for (_, outcome) in outcomes.iter_mut().filter(|(other, _)| *other == index) {
            *outcome = Outcome::Failed(failure.clone());
        }
    }
    changed
}

/// Whether a failure is over once all files have been written.
fn is_of_a_file(failure: &Failure) -> bool {
    failure.code == Code::CannotWrite || is_about_a_template(failure)
}

/// Whether the last that was heard of this connection is that a template cannot be used.
fn has_template_trouble(snapshot: &Snapshot, index: usize) -> bool {
    snapshot.past(index).and_then(|past| past.last_error.as_ref()).is_some_and(is_about_a_template)
}

/// Recognises credentials that this connection had before.
fn known_beside(snapshot: &Snapshot, index: usize) -> impl Fn(&str) -> bool + use<'_> {
    let past = snapshot.past(index);
    move |credential| past.is_some_and(|past| past.knows(credential))
}

// ---- what was left behind ----

/// Whether no killed process has left anything besides the files that are kept.
pub(crate) fn is_settled(config: &Config) -> bool {
    config.password_files.iter().all(|path| PasswordFile::new(path).is_settled())
        && config.service_file.as_ref().is_none_or(|path| service_file::is_settled(path))
        && config.connections.iter().all(|connection| connection.outputs.are_settled())
        && !are_leftovers_there(&config.state_dir, RECORD)
}

/// Carries over what somebody wrote to a file just as it was replaced, and removes other leftovers. Call it under the lock.
pub(super) fn tidy(snapshot: &Snapshot) {
    let config = &snapshot.config;
    let keys: Vec<Key> = snapshot.connections().iter().filter_map(|connection| connection.key.clone()).collect();
    for path in &config.password_files {
        if let Err(error) = snapshot.password_file(path).settle(&keys) {
            tracing::warn!("{error}");
        }
    }
    let sections = sections(snapshot, |listing| listing != Listing::No);
    if let Some(path) = config.service_file.as_ref().filter(|path| !service_file::is_settled(path))
        && let Err(failure) = service_file::update_within(&snapshot.allowance, path, &sections)
    {
        tracing::warn!("{failure}");
    }
    for (index, connection) in snapshot.connections().iter().enumerate() {
        connection.outputs.tidy(published(snapshot, index).as_ref(), &known_beside(snapshot, index));
    }
    let _ = as_owner_of(&config.state_dir, || remove_leftovers(&config.state_dir, RECORD));
}

/// Whether somebody still writes to a file that was replaced while they had it open.
pub(super) fn is_waited_for(config: &Config) -> bool {
    config.password_files.iter().any(|path| PasswordFile::new(path).is_waited_for())
        || config.service_file.as_ref().is_some_and(|path| service_file::is_waited_for(path))
}

// ---- libpq's service file ----

fn write_sections(snapshot: &Snapshot) -> Result<(), Failure> {
    let sections = sections(snapshot, |listing| listing != Listing::No);
    let Some(path) = snapshot.config.service_file.as_ref().filter(|_| !sections.is_empty()) else { return Ok(()) };
    if service_file::is_current(path, &sections) {
        return Ok(());
    }
    service_file::update_within(&snapshot.allowance, path, &sections)?;
    tracing::info!("Successfully updated {}", path.display());
    Ok(())
}

/// Reports once what was left alone in the service file or cannot work. Returns whether the record has changed.
fn say_remarks(snapshot: &mut Snapshot) -> bool {
    let Some(remarks) = snapshot.service_file_remarks(|listing| listing != Listing::No) else { return false };
    for remark in remarks.iter().filter(|remark| !snapshot.record.remarks.contains(remark)) {
        tracing::warn!("{remark}");
    }
    let is_news = snapshot.record.remarks != remarks;
    snapshot.record.remarks = remarks;
    is_news
}

impl Snapshot {
    /// One sentence for each thing that was left alone in the service file or cannot work; none if the file must still
    /// be written.
    pub(crate) fn service_file_remarks(&self, wanted: impl Fn(Listing) -> bool) -> Option<Vec<String>> {
        let sections = sections(self, wanted);
        let path = self.config.service_file.as_ref().filter(|_| !sections.is_empty());
        path.map_or_else(|| Some(Vec::new()), |path| service_file::remarks(path, &sections))
    }

    /// What psql is given, as a connection string, for each connection with a live password: its section, where libpq finds that, else
    /// every setting.
    #[cfg(feature = "cli")]
    pub(crate) fn conninfos(&self) -> impl Iterator<Item = String> {
        self.connections().iter().enumerate().filter_map(|(index, connection)| {
            let section = section(self, index)?;
            let path = self.config.service_file.as_ref().filter(|_| connection.listing != Listing::No);
            // Another one of that name would lead elsewhere.
            let is_found = path.is_some_and(|path| service_file::faults(path, slice::from_ref(&section)).is_empty());
            Some(if is_found { conninfo_setting("service", &section.name) } else { section.conninfo() })
        })
    }

    /// Everything that keeps people from `psql service=NAME`, of the sections that should be there.
    #[cfg(feature = "cli")]
    pub(crate) fn service_file_faults(&self, wanted: impl Fn(Listing) -> bool) -> Vec<Failure> {
        let sections = sections(self, wanted);
        let path = self.config.service_file.as_ref().filter(|_| !sections.is_empty());
        path.map_or_else(Vec::new, |path| service_file::faults(path, &sections))
    }

    /// Each file beside the password file that should hold a connection's live password, as its readers find it: its name, or what
    /// keeps them from it.
    #[cfg(feature = "cli")]
    pub(crate) fn files_beside(&self, index: usize) -> Vec<Result<String, Failure>> {
        // Where no password lives, that is said already.
        published(self, index).map_or_else(Vec::new, |live| self.connections()[index].outputs.look(&live))
    }
}

/// The sections of the connections with a wanted listing and a live password: a try that fails leads nobody elsewhere.
fn sections(snapshot: &Snapshot, wanted: impl Fn(Listing) -> bool) -> Vec<Section> {
    let wanted = |(index, connection): (usize, &Connection)| {
        if wanted(connection.listing) { section(snapshot, index) } else { None }
    };
    snapshot.connections().iter().enumerate().filter_map(wanted).collect()
}

/// The section of a connection; none where it has no live password.
fn section(snapshot: &Snapshot, index: usize) -> Option<Section> {
    snapshot.statuses.get(index)?.left_to_clients()?;
    let connection = snapshot.connections().get(index)?;
    let key = connection.key.as_ref()?;
    Some(Section {
        name: connection.name.clone(),
        host: key.host().to_owned(),
        port: key.port(),
        database: key.database().to_owned(),
        user: key.user().to_owned(),
        sslmode: connection.sslmode_for_libpq().as_str().to_owned(),
        sslrootcert: snapshot.config.root_for_libpq(connection),
        passfile: snapshot.config.password_file_for_libpq().map(|path| path.display().to_string()),
    })
}

/// The credential that clients read, if it is live, and where it logs in.
pub(super) fn published(snapshot: &Snapshot, index: usize) -> Option<Published<'_>> {
    let status = snapshot.statuses.get(index)?;
    status.left_to_clients()?;
    let (token, connection) = (status.token.as_ref()?, &snapshot.connections()[index]);
    let key = connection.key.as_ref()?;
    // It may have to be looked for.
    let sslrootcert = || snapshot.config.root_for_libpq(connection);
    Some(Published {
        password: &token.password,
        host: key.host(),
        port: key.port(),
        database: key.database(),
        user: key.user(),
        sslmode: connection.sslmode_for_libpq().as_str(),
        sslrootcert: if connection.outputs.files.is_empty() { None } else { sslrootcert() },
        expires_at: token.expires_at,
    })
}
