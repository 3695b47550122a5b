//! The Secrets of Kubernetes that follow the password file: made to hold what it holds, and looked at again each minute.
//!
//! Nothing waits for them, and they are written outside of the lock. The record says what each was last seen to hold, so that
//! `status` knows, and a run by a timer looks only where it has to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;

use super::backoff::{Backoff, RetryScope, Step};
use super::effects::published;
use super::followers::Followers;
use super::record::{ConnectionRecord, SecretRecord};
use super::report::{Outcome, Outcomes};
use super::snapshot::Snapshot;
use crate::failure::Failure;
use crate::kubernetes::{ApiServer, Found, Wanted};
use crate::logging::announce;
use crate::model::token::fingerprint;
use crate::os::clock::Moment;

/// How often a Secret is looked at that holds what it should: whoever edits or deletes it is answered within this time. One GET
/// a minute for each is little for an API server to which every node's agent talks each 10 s.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// How long one may take where there is no Lease.
const LIMIT: Duration = Duration::from_secs(20);

/// The end of a look at one Secret.
pub(super) struct End {
    name: String,
    fingerprint: String,
    result: Result<Found, Failure>,
}

#[derive(Default)]
pub(super) struct Secrets {
    pub(super) looks: Followers<End>,
    /// When to look again.
    next: BTreeMap<usize, Timestamp>,
    /// Made when first needed.
    api: Option<Arc<ApiServer>>,
}

impl Secrets {
    /// When the Secret of a connection is looked at again, where that is known.
    pub(super) fn next_look(&self, index: usize) -> Option<Timestamp> {
        self.next.get(&index).copied().filter(|_| !self.looks.is_busy(index))
    }

    /// Notes the ends in the record. Returns whether that changed it.
    pub(super) fn note_ends(&mut self, snapshot: &mut Snapshot, backoff: &mut Backoff) -> bool {
        let changed = self.looks.has_ends();
        for (index, End { name, fingerprint, result }) in self.looks.take_ends() {
            let now = Moment::now();
            let known = snapshot.past(index).and_then(|past| past.secret.clone()).filter(|known| known.name == name);
            let mut known = known.unwrap_or_else(|| SecretRecord { name, ..SecretRecord::default() });
            let next = match result {
                Ok(found) => {
                    say(snapshot.name(index), &known, &fingerprint, found);
                    backoff.clear(RetryScope::Secret(index));
                    (known.fingerprint, known.seen_at, known.error) = (Some(fingerprint), Some(now.wall), None);
                    now.wall.saturating_add(LOOK_AGAIN).unwrap_or(now.wall)
                }
                Err(failure) => {
                    let left = snapshot.statuses.get(index).and_then(|status| status.left_to_clients());
                    let (scope, jitter) = (RetryScope::Secret(index), fastrand::f64());
                    let (next, is_news) = backoff.failed(scope, Step::Output, &failure, left, now, jitter);
                    if is_news {
                        announce::failed(&failure, None, &[snapshot.name(index)]);
                    }
                    known.error = Some(failure);
                    next
                }
            };
            self.next.insert(index, next);
            snapshot.past_mut(index).secret = Some(known);
        }
        changed
    }

    /// Starts to look at those of which it is not known that they hold what clients read. `limit` is how long this replica may
    /// write: none if it may not.
    pub(super) fn start(&mut self, snapshot: &Snapshot, backoff: &Backoff, limit: Option<Duration>) {
        let now = Moment::now();
        for index in 0..snapshot.connections().len() {
            let is_waiting = || backoff.next_try(&[RetryScope::Secret(index)], true, now).is_some();
            if self.looks.is_busy(index) || is_current(snapshot, index, now.wall) || is_waiting() {
                continue;
            }
            let (Some(limit), Some((wanted, fingerprint))) = (limit, wanted(snapshot, index)) else { continue };
            let api = match self.api(snapshot) {
                Ok(api) => api,
                Err(failure) => {
                    let end = End { name: wanted.name.to_string(), fingerprint, result: Err(failure) };
                    self.looks.ends_at_once(index, end);
                    continue;
                }
            };
            let end = move |name: String, result| End { name, fingerprint: fingerprint.clone(), result };
            let broken_off = end(wanted.name.to_string(), Err(Failure::broken_off("the look at a Secret")));
            self.looks.start(index, broken_off, async move {
                let result = api.bring(&wanted, limit.min(LIMIT)).await;
                end(wanted.name.to_string(), result)
            });
        }
    }

    fn api(&mut self, snapshot: &Snapshot) -> Result<Arc<ApiServer>, Failure> {
        if let Some(api) = &self.api {
            return Ok(Arc::clone(api));
        }
        let config = &snapshot.config;
        let api = Arc::new(ApiServer::of(&config.cluster, &config.environment)?);
        self.api = Some(Arc::clone(&api));
        Ok(api)
    }
}

fn say(connection: &str, known: &SecretRecord, fingerprint: &str, found: Found) {
    let name = &known.name;
    if found == Found::Behind && known.fingerprint.as_deref() == Some(fingerprint) && known.error.is_none() {
        tracing::warn!("The Secret {name} of {connection} had been changed or deleted: it is as it should be again");
    } else if found == Found::Behind || known.error.is_some() {
        tracing::info!("The Secret {name} of {connection} holds the new credential");
    }
}

/// What the Secret of a connection is to hold, and the credential in it by its fingerprint; none where it has none, or none that
/// lives.
pub(crate) fn wanted(snapshot: &Snapshot, index: usize) -> Option<(Wanted, String)> {
    let secret = snapshot.connections().get(index)?.outputs.kubernetes_secret.as_ref()?;
    let live = published(snapshot, index)?;
    let known = snapshot.past(index).and_then(|past| past.secret.as_ref());
    let wanted = Wanted {
        name: secret.name.clone(),
        pairs: live.pairs(secret.has_uri),
        expires_at: live.expires_at,
        is_known: known.is_some_and(|known| known.name == secret.name.to_string() && known.fingerprint.is_some()),
    };
    Some((wanted, fingerprint(live.password.expose_secret())))
}

/// Whether the Secret of each of these holds what clients read, and was looked at of late; or they have none.
pub(super) fn are_current(snapshot: &Snapshot, selected: &[usize], now: Timestamp) -> bool {
    selected.iter().all(|index| is_current(snapshot, *index, now))
}

fn is_current(snapshot: &Snapshot, index: usize, now: Timestamp) -> bool {
    let connection = &snapshot.connections()[index];
    let Some(secret) = &connection.outputs.kubernetes_secret else { return true };
    let Some(token) =
        snapshot.statuses.get(index).and_then(|status| status.left_to_clients().and(status.token.as_ref()))
    else {
        return true;
    };
    let past =
        snapshot.past(index).and_then(|past| past.secret.as_ref()).filter(|past| past.name == secret.name.to_string());
    past.is_some_and(|past| {
        past.error.is_none()
            && past.fingerprint.as_ref() == Some(&fingerprint(token.password.expose_secret()))
            && past.seen_at.is_some_and(|at| now.duration_since(at).abs() < LOOK_AGAIN)
    })
}

/// How the Secret of a connection stands, as the last look has found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SecretState {
    /// It holds the credential that clients read.
    Current,
    /// It held an older one, or none of ours.
    Behind,
}

impl ConnectionRecord {
    /// Whether the Secret of that name has been written, and nothing has kept it from being so since.
    pub(crate) fn has_secret(&self, name: &str) -> bool {
        self.secret
            .as_ref()
            .is_some_and(|known| known.name == name && known.fingerprint.is_some() && known.error.is_none())
    }

    /// How the Secret of that name stands, where the password file holds the credential with this fingerprint.
    pub(crate) fn secret_state(&self, name: &str, fingerprint: Option<&str>) -> SecretState {
        let known = self.secret.as_ref().filter(|known| known.name == name);
        let holds = known.and_then(|known| known.fingerprint.as_deref());
        if holds.is_some() && holds == fingerprint { SecretState::Current } else { SecretState::Behind }
    }
}

/// Why the Secret of a connection does not hold what it should, where it has one that could not be read or written.
pub(super) fn secret_error(snapshot: &Snapshot, index: usize) -> Option<&Failure> {
    let name = snapshot.connections().get(index)?.outputs.kubernetes_secret.as_ref()?.name.to_string();
    let known = snapshot.past(index)?.secret.as_ref().filter(|known| known.name == name)?;
    known.error.as_ref()
}

/// What has failed with a Secret is what has become of its connection.
pub(super) fn fail_with_secrets(snapshot: &Snapshot, outcomes: &mut Outcomes) {
    for (index, outcome) in outcomes.iter_mut().filter(|(_, outcome)| !matches!(outcome, Outcome::Failed(_))) {
        if let Some(failure) = secret_error(snapshot, *index) {
            *outcome = Outcome::Failed(failure.clone());
        }
    }
}
