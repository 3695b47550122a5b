//! Single flight: callers that need a new credential at the same time share one renewal, and its result or failure.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Credential;
use crate::failure::{Code, Failure};
use crate::rotation::{ConnectionStatus, PATIENCE, RotateRequest, Rotation, Snapshot, State};

/// How long a caller that wants to connect may wait for the renewal of a credential that is still live.
const RENEWAL_WAIT: Duration = Duration::from_secs(2);

/// How long after a failure such callers get the live credential without another try.
const RETRY_COOLDOWN: SignedDuration = SignedDuration::from_secs(15);

/// The running renewals, by connection.
#[derive(Default)]
pub(super) struct Renewals(Mutex<HashMap<usize, Renewal>>);

#[derive(Clone)]
struct Renewal {
    started: Instant,
    /// The least remaining life that was asked for.
    least: SignedDuration,
    /// The failure if it failed, once it has ended. It only matters if there is no live credential.
    end: watch::Receiver<Option<Option<Failure>>>,
}

impl Renewals {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Renewal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running renewal of a connection, or a new one.
    fn join(self: &Arc<Self>, rotation: &Rotation, index: usize, least: SignedDuration, patience: Duration) -> Renewal {
        let mut all = self.lock();
        if let Some(running) = all.get(&index) {
            return running.clone();
        }
        let (sender, end) = watch::channel(None);
        let renewal = Renewal { started: Instant::now(), least, end };
        all.insert(index, renewal.clone());
        let (renewals, rotation) = (Arc::clone(self), rotation.clone());
        tokio::spawn(async move {
            let request = if least.is_zero() { RotateRequest::Due } else { RotateRequest::ValidFor(least) };
            let report = rotation.rotate(&request, Some(&[index]), patience).await;
            renewals.lock().remove(&index);
            // Perhaps nobody waits any more.
            let _ = sender.send(Some(report.failure_of(index).cloned()));
        });
        renewal
    }
}

impl Renewal {
    /// Waits for its end and returns its failure; none if the runtime ended first.
    async fn over(mut self) -> Option<Failure> {
        let end = self.end.wait_for(Option::is_some).await.ok()?;
        end.clone().flatten()
    }
}

/// A live password with at least `least` of its life left: the published one, or a new one if that is due.
///
/// # Errors
/// There is no such credential and a new one cannot be obtained.
pub(super) async fn credential(
    rotation: &Rotation,
    renewals: &Arc<Renewals>,
    index: usize,
    least: SignedDuration,
) -> Result<Credential, Failure> {
    let snapshot = rotation.snapshot()?;
    let published = published(&snapshot, index).filter(|credential| credential.left >= least);
    if let Some(present) = published {
        return if snapshot.statuses[index].is_due() {
            renewed_or(rotation, renewals, index, present, &snapshot).await
        } else {
            Ok(present)
        };
    }
    let mut failure = None;
    // A renewal that is already running may have been started for less.
    for _ in 0..2 {
        let renewal = renewals.join(rotation, index, least, PATIENCE);
        let enough = renewal.least >= least;
        failure = renewal.over().await;
        if enough || live(rotation, index)?.is_some_and(|credential| credential.left >= least) {
            break;
        }
    }
    match (live(rotation, index)?, failure) {
        (Some(credential), _) if credential.left >= least => Ok(credential),
        (_, Some(failure)) => Err(failure),
        (Some(credential), None) => {
            let (name, left) = (&rotation.config().connections[index].name, credential.left.as_secs());
            let message = format!("the credential of {name} lives {left} s, {} s were asked for", least.as_secs());
            Err(Failure::transient(Code::TryAgain, message)
                .hint("ask for less, or try again shortly before it is renewed"))
        }
        (None, None) => {
            let name = &rotation.config().connections[index].name;
            Err(Failure::transient(Code::Unavailable, format!("there is no live credential for {name}")))
        }
    }
}

/// A new credential if it comes within a moment, else the present live one: a pool must not wait for the end of an outage.
/// After a failure nothing is tried for a while.
async fn renewed_or(
    rotation: &Rotation,
    renewals: &Arc<Renewals>,
    index: usize,
    present: Credential,
    snapshot: &Snapshot,
) -> Result<Credential, Failure> {
    let failed_at = snapshot.past(index).filter(|past| past.last_error.is_some()).and_then(|past| past.last_attempt_at);
    if failed_at.is_some_and(|at| Timestamp::now().duration_since(at).abs() < RETRY_COOLDOWN) {
        return Ok(present);
    }
    let renewal = renewals.join(rotation, index, SignedDuration::ZERO, Duration::ZERO);
    let until = renewal.started + RENEWAL_WAIT;
    if tokio::time::timeout_at(until, renewal.over()).await.is_err() {
        tracing::debug!("the credential is due, and could not be renewed in a moment");
    }
    Ok(live(rotation, index)?.unwrap_or(present))
}

fn live(rotation: &Rotation, index: usize) -> Result<Option<Credential>, Failure> {
    Ok(published(&rotation.snapshot()?, index))
}

/// The published credential of a connection, if it is live.
fn published(snapshot: &Snapshot, index: usize) -> Option<Credential> {
    let status: &ConnectionStatus = snapshot.statuses.get(index).filter(|status| status.state != State::Missing)?;
    let (token, left) = status.token.as_ref().zip(status.left())?;
    Some(Credential {
        password: token.password.clone(),
        expires_at: token.expires_at,
        left,
        subject: token.subject.clone(),
    })
}
