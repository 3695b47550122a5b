//! The programs that are told of new credentials: at least once of each, and each run may finish. Nothing waits for them, and they
//! run outside of the lock.
//!
//! The record says what a program still has to be told, and since when it runs, so that no other instance starts it too.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};

use super::followers::Followers;
use super::record::{ConnectionRecord, Untold};
use super::snapshot::Snapshot;
use crate::config::Config;
use crate::failure::Failure;
use crate::logging::announce;
use crate::model::Outputs;
use crate::os::dirs::Environment;
use crate::outputs::{Rotated, hook};
use crate::pgpass::Key;

/// A run that began this long ago belongs to a process that is gone, and is repeated: programs may run for 30 s, and end a little
/// later.
const LONGEST_RUN: SignedDuration = SignedDuration::from_secs(45);

/// The end of a program that was told of one credential.
pub(super) struct End {
    fingerprint: String,
    failure: Option<Failure>,
}

#[derive(Default)]
pub(super) struct Hooks {
    pub(super) programs: Followers<End>,
}

impl Hooks {
    /// Notes the ends in the record. Returns whether that changed it.
    pub(super) fn note_ends(&mut self, snapshot: &mut Snapshot) -> bool {
        let mut changed = false;
        for (index, End { fingerprint, failure }) in self.programs.take_ends() {
            if let Some(failure) = &failure {
                announce::hook_failed(snapshot.name(index), failure);
            }
            let past = snapshot.past_mut(index);
            changed |= past.hook_error != failure;
            past.hook_error = failure;
            // There may be a newer credential by now.
            changed |= past.untold.take_if(|untold| untold.fingerprint == fingerprint).is_some();
        }
        changed
    }

    /// Starts the programs that have something to be told. Returns whether the record has changed.
    pub(super) fn start(&mut self, snapshot: &mut Snapshot) -> bool {
        let now = Timestamp::now();
        let is_waiting = |index: &usize| {
            !self.programs.is_busy(*index) && snapshot.past(*index).is_some_and(|past| past.is_to_be_told(now))
        };
        let waiting: Vec<usize> = (0..snapshot.connections().len()).filter(is_waiting).collect();
        if waiting.is_empty() {
            return false;
        }
        let is_inside = hook::is_inside(&snapshot.config.environment);
        let mut refused = Vec::new();
        for index in waiting {
            let outputs = snapshot.connections()[index].outputs.clone();
            let about = About::of(snapshot, index).filter(|_| outputs.on_rotate.is_some());
            let past = snapshot.past_mut(index);
            let Some(about) = about.filter(|_| !is_inside) else {
                past.untold = None;
                if is_inside {
                    refused.push(snapshot.name(index).to_owned());
                }
                continue;
            };
            let Some(untold) = &mut past.untold else { continue };
            untold.started_at = Some(now);
            let fingerprint = untold.fingerprint.clone();
            let broken_off =
                End { fingerprint: fingerprint.clone(), failure: Some(Failure::broken_off("the run of on_rotate")) };
            self.programs.start(index, broken_off, async move {
                let failure = about.tell(&outputs).await.err();
                End { fingerprint, failure }
            });
        }
        if !refused.is_empty() {
            let names = refused.join(", ");
            tracing::warn!("on_rotate is not run for {names}: this rotation was started by such a program");
        }
        true
    }
}

#[cfg(feature = "cli")]
impl Snapshot {
    /// [`ConnectionRecord::failure_of_hook`] of this connection.
    pub(crate) fn hook_error(&self, index: usize) -> Option<&Failure> {
        self.past(index)?.failure_of_hook(self.connections().get(index)?)
    }
}

/// Whether a program must be told something and no process is doing so.
pub(super) fn are_waiting(config: &Config, snapshot: &Snapshot, selected: &[usize]) -> bool {
    let now = Timestamp::now();
    selected.iter().any(|index| {
        config.connections[*index].outputs.on_rotate.is_some()
            && snapshot.past(*index).is_some_and(|past| past.is_to_be_told(now))
    })
}

impl ConnectionRecord {
    fn is_to_be_told(&self, now: Timestamp) -> bool {
        self.untold.as_ref().is_some_and(|untold| untold.is_free(now))
    }
}

impl Untold {
    fn is_free(&self, now: Timestamp) -> bool {
        self.started_at.is_none_or(|at| now.duration_since(at).abs() > LONGEST_RUN)
    }
}

/// What a program is told, kept while it runs.
struct About {
    connection: String,
    key: Key,
    expires_at: Timestamp,
    password_file: PathBuf,
    environment: Environment,
}

impl About {
    fn of(snapshot: &Snapshot, index: usize) -> Option<Self> {
        let connection = &snapshot.connections()[index];
        // One that was handed over without an expiry is not in the record.
        let present = snapshot.statuses[index].token.as_ref().map(|token| token.expires_at);
        let recorded = || snapshot.past(index)?.published.as_ref().map(|published| published.expires_at);
        Some(About {
            connection: connection.name.clone(),
            key: connection.key.clone()?,
            expires_at: present.or_else(recorded)?,
            password_file: snapshot.config.password_file().to_owned(),
            environment: snapshot.config.environment.clone(),
        })
    }

    async fn tell(&self, outputs: &Outputs) -> Result<(), Failure> {
        let about = Rotated {
            connection: &self.connection,
            host: self.key.host(),
            port: self.key.port(),
            database: self.key.database(),
            user: self.key.user(),
            expires_at: self.expires_at,
            password_file: &self.password_file,
        };
        outputs.run_hook(&about, &self.environment).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_again_only_when_nobody_can_be_telling_it_any_more() {
        let started = Timestamp::UNIX_EPOCH;
        let past = |started_at| ConnectionRecord {
            untold: Some(Untold { fingerprint: "f".to_owned(), started_at }),
            ..ConnectionRecord::default()
        };
        assert!(past(None).is_to_be_told(started));
        assert!(!past(Some(started)).is_to_be_told(started + LONGEST_RUN));
        assert!(past(Some(started)).is_to_be_told(started + LONGEST_RUN + SignedDuration::from_secs(1)));
        assert!(!ConnectionRecord::default().is_to_be_told(started));
    }
}
