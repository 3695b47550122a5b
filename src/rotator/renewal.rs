//! Single flight: callers that need a new credential at the same time share one renewal, and its result or failure.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Credential, Login};
use crate::failure::{Code, Failure};
use crate::rotation::{ConnectionStatus, PATIENCE, RotateRequest, Rotation, Snapshot, State, refusals};

/// How long a caller that wants to connect may wait for the renewal of a credential that is still live.
const RENEWAL_WAIT: Duration = Duration::from_secs(2);

/// How long after a failure such callers get the live credential without another try.
const RETRY_COOLDOWN: SignedDuration = SignedDuration::from_secs(15);

/// How long after a credential was replaced because PostgreSQL refused it no other refusal does the same.
const REFUSAL_COOLDOWN: Duration = Duration::from_secs(60);

/// How long after a failure clients that come one after the other get the same, where there is no live credential: each would sign in.
const FAILURE_COOLDOWN: Duration = Duration::from_secs(5);

/// A credential with less than this left may have expired on its way to PostgreSQL, whose clock is another one: that it is refused says
/// nothing about the next one.
const LAST_MOMENTS: SignedDuration = SignedDuration::from_secs(5);

/// The running renewals, by connection.
#[derive(Default)]
pub(super) struct Renewals {
    running: Mutex<HashMap<usize, Renewal>>,
    /// When a refusal has last led to a new credential.
    refusals: Mutex<HashMap<usize, Instant>>,
    /// What the last renewal has failed of, and when.
    failures: Mutex<HashMap<usize, (Instant, Failure)>>,
}

#[derive(Clone)]
struct Renewal {
    started: Instant,
    /// The least remaining life that was asked for.
    least: SignedDuration,
    /// How long it tries.
    patience: Duration,
    /// The failure if it failed, once it has ended. It only matters if there is no live credential.
    end: watch::Receiver<Option<Option<Failure>>>,
}

impl Renewals {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Renewal>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a refusal may lead to a new credential now. Then no other may for a while.
    fn takes_refusal(&self, index: usize) -> bool {
        let mut refusals = self.refusals();
        let now = Instant::now();
        if refusals.get(&index).is_some_and(|last| now.duration_since(*last) < REFUSAL_COOLDOWN) {
            return false;
        }
        refusals.insert(index, now);
        true
    }

    /// When refusals have led to new credentials.
    pub(super) fn refusals(&self) -> MutexGuard<'_, HashMap<usize, Instant>> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<usize, (Instant, Failure)>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a renewal has failed of a moment ago.
    fn fresh_failure(&self, index: usize) -> Option<Failure> {
        let failures = self.failures();
        let (at, failure) = failures.get(&index)?;
        (at.elapsed() < FAILURE_COOLDOWN).then(|| failure.clone())
    }

    /// The running renewal of a connection.
    fn running(&self, index: usize) -> Option<Renewal> {
        self.lock().get(&index).cloned()
    }

    /// The running renewal of a connection, or a new one.
    fn join(self: &Arc<Self>, rotation: &Rotation, index: usize, least: SignedDuration, patience: Duration) -> Renewal {
        let request = if least.is_zero() { RotateRequest::Due } else { RotateRequest::ValidFor(least) };
        self.join_for(rotation, index, request, least, patience)
    }

    fn join_for(
        self: &Arc<Self>,
        rotation: &Rotation,
        index: usize,
        request: RotateRequest,
        least: SignedDuration,
        patience: Duration,
    ) -> Renewal {
        let mut all = self.lock();
        if let Some(running) = all.get(&index) {
            return running.clone();
        }
        let (sender, end) = watch::channel(None);
        let renewal = Renewal { started: Instant::now(), least, patience, end };
        all.insert(index, renewal.clone());
        let failure = Some(Failure::broken_off("the renewal"));
        let ending = Ending { renewals: Arc::clone(self), index, sender, failure };
        let rotation = rotation.clone();
        tokio::spawn(async move {
            let report = rotation.rotate(&request, Some(&[index]), patience).await;
            ending.note(report.failure_of(index));
            ending.with(report.failure_of(index).cloned());
        });
        renewal
    }
}

/// Makes room for the next renewal and tells of the end of this one, even if it panics.
struct Ending {
    renewals: Arc<Renewals>,
    index: usize,
    sender: watch::Sender<Option<Option<Failure>>>,
    failure: Option<Failure>,
}

impl Ending {
    fn note(&self, failure: Option<&Failure>) {
        let mut failures = self.renewals.failures();
        match failure {
            Some(failure) => drop(failures.insert(self.index, (Instant::now(), failure.clone()))),
            None => drop(failures.remove(&self.index)),
        }
    }

    fn with(mut self, failure: Option<Failure>) {
        self.failure = failure;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.renewals.lock().remove(&self.index);
        // Perhaps nobody waits any more.
        let _ = self.sender.send(Some(self.failure.take()));
    }
}

impl Renewal {
    /// Whether its failure is the last word: others try once, for somebody who has a live credential.
    fn is_patient(&self) -> bool {
        self.patience >= PATIENCE
    }

    /// Waits for its end and returns its failure; none if the runtime ended first.
    async fn over(mut self) -> Option<Failure> {
        let end = self.end.wait_for(Option::is_some).await.ok()?;
        end.clone().flatten()
    }
}

/// Another one than PostgreSQL has refused; none where it makes no sense to ask for one.
pub(super) async fn login_instead_of(
    rotation: &Rotation,
    renewals: &Arc<Renewals>,
    index: usize,
    refused: &Login,
) -> Result<Option<Login>, Failure> {
    let old = refused.credential.password.expose_secret();
    let other = |login: Login| Some(login).filter(|login| login.credential.password.expose_secret() != old);
    let present = login(rotation, renewals, index, SignedDuration::ZERO).await?;
    let is_in_last_moments = present.credential.left < LAST_MOMENTS;
    if let Some(login) = other(present) {
        return Ok(Some(login));
    }
    if !is_in_last_moments && !renewals.takes_refusal(index) {
        // Many are refused at the same time, and what the first of them has begun is for all.
        while let Some(running) = renewals.running(index) {
            running.over().await;
        }
        return Ok(other(login(rotation, renewals, index, SignedDuration::ZERO).await?));
    }
    refusals::note(&refused.credential.password);
    loop {
        let request = RotateRequest::All { since: Timestamp::now() };
        let renewal = renewals.join_for(rotation, index, request, SignedDuration::ZERO, PATIENCE);
        let is_patient = renewal.is_patient();
        let failure = renewal.over().await;
        match (other(login(rotation, renewals, index, SignedDuration::ZERO).await?), failure) {
            (None, Some(_)) if !is_patient => {}
            (None, Some(failure)) => return Err(failure),
            (login, _) => return Ok(login),
        }
    }
}

/// A live password with at least `least` of its life left, and where it logs in: the published one, or a new one if that is due.
///
/// # Errors
/// There is no such credential and a new one cannot be obtained.
pub(super) async fn login(
    rotation: &Rotation,
    renewals: &Arc<Renewals>,
    index: usize,
    least: SignedDuration,
) -> Result<Login, Failure> {
    let snapshot = rotation.snapshot()?;
    let published = published(&snapshot, index).filter(|login| login.credential.left >= least);
    if let Some(present) = published {
        return if snapshot.statuses[index].is_due() {
            renewed_or(rotation, renewals, index, present, &snapshot).await
        } else {
            Ok(present)
        };
    }
    let mut failure = None;
    // A renewal that is already running may have been started for less, or tries only once.
    for _ in 0..2 {
        let renewal = renewals.join(rotation, index, least, PATIENCE);
        let enough = renewal.least >= least && renewal.is_patient();
        failure = renewal.over().await;
        if enough || live(rotation, index)?.is_some_and(|login| login.credential.left >= least) {
            break;
        }
    }
    match (live(rotation, index)?, failure) {
        (Some(login), _) if login.credential.left >= least => Ok(login),
        (_, Some(failure)) => Err(failure),
        (Some(login), None) => {
            let (name, left) = (login.connection.name(), login.credential.left.as_secs());
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

/// As [`login`], for one of many that come by themselves and again and again.
pub(super) async fn login_of_many(
    rotation: &Rotation,
    renewals: &Arc<Renewals>,
    index: usize,
) -> Result<Login, Failure> {
    match renewals.fresh_failure(index) {
        Some(failure) if live(rotation, index)?.is_none() => Err(failure),
        // However little is left of it: the login comes at once, and a refusal leads to another one.
        _ => login(rotation, renewals, index, SignedDuration::ZERO).await,
    }
}

/// A new credential if it comes within a moment, else the present live one: a pool must not wait for the end of an outage.
/// After a failure nothing is tried for a while.
async fn renewed_or(
    rotation: &Rotation,
    renewals: &Arc<Renewals>,
    index: usize,
    present: Login,
    snapshot: &Snapshot,
) -> Result<Login, Failure> {
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

fn live(rotation: &Rotation, index: usize) -> Result<Option<Login>, Failure> {
    Ok(published(&rotation.snapshot()?, index))
}

/// The published credential of a connection, if it is live, and where it logs in.
fn published(snapshot: &Snapshot, index: usize) -> Option<Login> {
    let status: &ConnectionStatus = snapshot.statuses.get(index).filter(|status| status.state != State::Missing)?;
    let (token, left) = status.token.as_ref().zip(status.left())?;
    let credential = Credential {
        password: token.password.clone(),
        expires_at: token.expires_at,
        left,
        subject: token.subject.clone(),
    };
    Some(Login { credential, connection: snapshot.connections()[index].clone() })
}
