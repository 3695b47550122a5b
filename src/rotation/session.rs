//! Rotations that overlap: each identity starts when it is due and may be tried, and results are committed as soon as they are
//! ready, so that no identity ever waits for another.
//!
//! While anything is in flight, the lock is held and the record is kept in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::acquire::{Arrival, SignInJob};
use super::backoff::{Backoff, RetryScope, Step};
use super::commit::Commit;
use super::hooks::Hooks;
use super::plan::{Plan, identity_of, plan, scopes};
use super::report::{Outcome, Outcomes, Report};
use super::request::{Patience, RotateRequest};
use super::schedule::{attempt_limit, round_deadline};
use super::secrets::{Secrets, fail_with_secrets, secret_error};
use super::snapshot::Snapshot;
use super::status::ConnectionStatus;
use super::store::{Held, Locked};
use super::verify::a_person_can_serve;
use super::{Rotation, effects};
use crate::auth::KnownEndpoints;
use crate::failure::{Code, Failure};
use crate::logging::announce;
use crate::os::clock::Moment;

/// Results that arrive within this time are published in one write.
const BATCH: Duration = Duration::from_millis(20);

/// If the snapshot is older than this, the password file is read again before anything is committed.
const STALE: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

/// Even a command with less time left than this lets one attempt finish.
const LEAST_FOR_AN_ATTEMPT: Duration = Duration::from_secs(30);

/// The rotations of one process for one request.
pub(crate) struct Session {
    rotation: Rotation,
    request: RotateRequest,
    selected: Vec<usize>,
    patience: Patience,
    pub(crate) backoff: Backoff,
    held: Option<Held>,
    /// Kept while the lock is held.
    snapshot: Option<Snapshot>,
    /// What the last step came to, where that has ended.
    seen: Option<Vec<ConnectionStatus>>,
    /// The identities that are signing in.
    in_flight: BTreeSet<usize>,
    sender: UnboundedSender<Arrival>,
    arrivals: UnboundedReceiver<Arrival>,
    batch: Vec<Arrival>,
    batch_ends: Option<Instant>,
    hooks: Hooks,
    secrets: Secrets,
    endpoints: KnownEndpoints,
    has_news: bool,
    has_failed: bool,
    /// Whether the first look is still to come.
    is_new: bool,
}

impl Session {
    pub(super) fn new(
        rotation: Rotation,
        request: RotateRequest,
        only: Option<&[usize]>,
        patience: Patience,
        backoff: Backoff,
    ) -> Self {
        let (sender, arrivals) = unbounded_channel();
        Session {
            selected: rotation.selected(only),
            rotation,
            request,
            patience,
            backoff,
            held: None,
            snapshot: None,
            seen: None,
            in_flight: BTreeSet::new(),
            sender,
            arrivals,
            batch: Vec::new(),
            batch_ends: None,
            hooks: Hooks::default(),
            secrets: Secrets::default(),
            endpoints: KnownEndpoints::default(),
            has_news: false,
            has_failed: false,
            is_new: true,
        }
    }

    /// A daemon's: whatever is due, without end.
    pub(crate) fn of_daemon(rotation: Rotation, is_server: bool) -> Self {
        let backoff = if is_server { Backoff::for_servers() } else { Backoff::default() };
        Session::new(rotation, RotateRequest::Due, None, Patience::ENDLESS, backoff)
    }

    /// For a configuration that differs only in form: what is in flight goes on.
    pub(crate) fn set_rotation(&mut self, rotation: Rotation) {
        self.rotation = rotation;
    }

    /// How all connections stand, as the step that has just been made has found and left them; none where it could not look.
    pub(crate) fn statuses(&mut self) -> Option<Vec<ConnectionStatus>> {
        let seen = self.seen.take();
        self.snapshot.as_ref().map(|snapshot| snapshot.statuses.clone()).or(seen)
    }

    /// Whether an identity is signing in.
    pub(crate) fn is_in_flight(&self) -> bool {
        !self.in_flight.is_empty() || !self.batch.is_empty()
    }

    /// Whether the identity of a connection is signing in.
    pub(crate) fn is_one_in_flight(&self, index: usize) -> bool {
        self.in_flight.contains(&identity_of(&self.rotation.config, index))
    }

    /// Whether a hook is still running.
    pub(super) fn has_hooks(&self) -> bool {
        !self.hooks.programs.is_idle()
    }

    /// When a due connection may be tried; none if that is now. `live` is whether clients read a live credential.
    pub(crate) fn next_try(&self, index: usize, live: bool, now: Moment) -> Option<Timestamp> {
        self.backoff.next_try(&scopes(&self.rotation.config, index), live, now)
    }

    /// When the Secret of a connection is looked at again, where it has one and that is known.
    pub(crate) fn next_look(&self, index: usize) -> Option<Timestamp> {
        self.secrets.next_look(index)
    }

    /// Reads everything once, starts what is due and may be tried, and updates the other files. `limit` is how long to wait for
    /// another instance.
    pub(crate) async fn step(&mut self, limit: Duration) -> Outcomes {
        self.seen = None;
        // A timer that finds nothing due must not wait for anybody.
        let nothing = |session: &Session| {
            let snapshot = session.rotation.snapshot().ok()?;
            session.rotation.outcomes_if_nothing_due(&snapshot, &session.request, &session.selected, false)
        };
        match self.hold(limit, nothing).await {
            Ok(Some(outcomes)) => return outcomes,
            Ok(None) => {}
            Err(failure) => return self.all_failed(&failure),
        }
        let outcomes = self.look_and_start();
        self.note(&outcomes);
        self.release_if_idle();
        outcomes
    }

    /// Takes the lock, unless this session holds it: it would wait for itself. None if it is held; else what `needless` says while
    /// another instance holds it.
    async fn hold<T>(
        &mut self,
        limit: Duration,
        needless: impl FnOnce(&Session) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        if self.held.is_some() {
            return Ok(None);
        }
        match self.rotation.store.lock(limit, || needless(self)).await? {
            Locked::Needless(answer) => return Ok(Some(answer)),
            Locked::By(held) => self.held = Some(held),
        }
        Ok(None)
    }

    fn look_and_start(&mut self) -> Outcomes {
        let mut snapshot = match self.look() {
            Ok(snapshot) => snapshot,
            Err(failure) => return self.all_failed(&failure),
        };
        if std::mem::take(&mut self.is_new) && self.backoff.is_server() && self.patience.is_of_timer() {
            self.resume(&snapshot);
        }
        let in_flight = |identity| self.in_flight.contains(&identity);
        let now = Moment::now();
        let ours: Vec<usize> = self.selected.iter().copied().filter(|index| self.rotation.is_ours(*index)).collect();
        let Plan { not_due, sign_ins } = plan(&snapshot, &self.request, &ours, &self.backoff, in_flight, now);
        if sign_ins.is_empty() && !self.is_in_flight() && !effects::is_settled(&snapshot.config) {
            // What a process that was killed has left behind, or somebody wrote at the last moment. What is published takes that over
            // anyway, and must not wait for it.
            effects::tidy(&snapshot);
            snapshot = match self.rotation.snapshot_with(snapshot.record) {
                Ok(snapshot) => snapshot,
                Err(failure) => return self.all_failed(&failure),
            };
        }
        let mut outcomes = self.not_due(&not_due, &snapshot);
        self.say_start(&sign_ins);
        for (identity, connections) in sign_ins {
            self.start(identity, connections, &snapshot);
        }
        self.take_effect(&mut snapshot, &mut outcomes, false);
        self.snapshot = Some(snapshot);
        outcomes
    }

    /// Goes on from what the runs before this one have failed at. It is the identity's trouble where all that is due of it has failed,
    /// so that it still signs in once for all of them; else it is each connection's.
    fn resume(&mut self, snapshot: &Snapshot) {
        let now = Moment::now();
        let mut due: BTreeMap<usize, Vec<(usize, Option<Duration>)>> = BTreeMap::new();
        for index in self.selected.iter().copied() {
            if self.request.selects(&snapshot.statuses[index], snapshot.past(index)) {
                let failing_for = snapshot.past(index).and_then(|past| past.failing_for(now.wall));
                due.entry(identity_of(&snapshot.config, index)).or_default().push((index, failing_for));
            }
        }
        let left = |index: usize| snapshot.statuses[index].left_to_clients();
        for (identity, connections) in due {
            let all: Option<Vec<Duration>> = connections.iter().map(|(_, failing_for)| *failing_for).collect();
            if let Some(shortest) = all.and_then(|all| all.into_iter().min()) {
                let least = connections.iter().filter_map(|(index, _)| left(*index)).min();
                self.resume_one(RetryScope::Identity(identity), shortest, least, now);
                continue;
            }
            for (index, failing_for) in connections {
                if let Some(failing_for) = failing_for {
                    self.resume_one(RetryScope::Connection(index), failing_for, left(index), now);
                }
            }
        }
    }

    fn resume_one(&mut self, scope: RetryScope, failing_for: Duration, left: Option<SignedDuration>, now: Moment) {
        self.backoff.resume(scope, failing_for, left, self.patience.for_waiting(), now, fastrand::f64());
        if let Some(at) = self.backoff.next_try(&[scope], true, now) {
            let (minutes, wait) = (failing_for.as_secs() / 60, at.duration_since(now.wall).as_secs_f32().ceil());
            tracing::info!(
                "Waiting {wait} s, since it has failed for {minutes} min, so that not all servers try together"
            );
        }
    }

    /// What was selected and has no outcome yet, nor will have one without being tried.
    pub(super) fn untried(&self, report: &Report) -> impl Iterator<Item = usize> {
        self.selected.iter().copied().filter(|index| !report.has(*index) && !self.is_one_in_flight(*index))
    }

    /// The same as outcomes, where there is no time for a try any more.
    pub(super) fn left_untried(&self, report: &Report) -> Outcomes {
        let failure = || Failure::transient(Code::TryAgain, "there was no time left to try: the next run will");
        self.untried(report).map(|index| (index, Outcome::Failed(failure()))).collect()
    }

    /// Reads everything again. Under the lock.
    fn look(&mut self) -> Result<Snapshot, Failure> {
        let record = match self.snapshot.take() {
            Some(snapshot) => snapshot.record,
            None => self.rotation.record(),
        };
        self.rotation.snapshot_with(record)
    }

    /// The outcomes of connections that are not due after all; if all were requested, another instance has just rotated
    /// them.
    fn not_due(&self, not_due: &[usize], snapshot: &Snapshot) -> Outcomes {
        let outcome = |index: &usize| {
            let expires_at = snapshot.statuses[*index].token.as_ref().map(|token| token.expires_at);
            let rotated = snapshot.past(*index).and_then(|past| past.last_rotation_at);
            match (&self.request, expires_at) {
                (RotateRequest::All { since }, Some(expires_at)) if rotated.is_some_and(|at| at >= *since) => {
                    let name = snapshot.name(*index);
                    tracing::debug!("connection {name} was rotated by another dbx-rotator meanwhile");
                    (*index, Outcome::Rotated { expires_at })
                }
                _ => (*index, Outcome::NotDue { expires_at }),
            }
        };
        not_due.iter().map(outcome).collect()
    }

    fn say_start(&self, sign_ins: &BTreeMap<usize, Vec<usize>>) {
        let in_trouble =
            |index: &usize| scopes(&self.rotation.config, *index).iter().any(|who| self.backoff.is_in_trouble(*who));
        if !sign_ins.values().flatten().all(in_trouble) {
            announce::start();
        }
    }

    fn start(&mut self, identity: usize, connections: Vec<usize>, snapshot: &Snapshot) {
        let config = Arc::clone(&snapshot.config);
        let workspace = &config.workspaces[identity];
        let all = || connections.iter().map(|index| &config.connections[*index]);
        let lookups = all().filter_map(|connection| {
            Some((connection.database_ref.clone()?, snapshot.record.lookup(workspace, connection)?.clone()))
        });
        let unlocated: BTreeSet<usize> =
            connections.iter().copied().filter(|index| snapshot.connections()[*index].key.is_none()).collect();
        let statuses = connections.iter().map(|index| &snapshot.statuses[*index]);
        let shortest = statuses.filter(|status| status.left().is_some()).min_by_key(|status| status.left());
        let (left, life) = (shortest.and_then(ConnectionStatus::left), shortest.and_then(ConnectionStatus::life));
        let refused = connections.iter().filter(|index| snapshot.past(**index).is_some_and(|past| past.refused_alone));
        let refused = refused.copied().collect();
        let concerned = connections.clone();
        let readable = snapshot.files.iter().filter_map(|file| file.as_ref().ok());
        let job = SignInJob {
            identity,
            request: self.request.clone(),
            lookups: lookups.collect(),
            files: if unlocated.is_empty() { Vec::new() } else { readable.cloned().collect() },
            unlocated,
            refused,
            limit: attempt_limit(left, life),
            deadline: Instant::now() + round_deadline(left).min(self.patience.left().max(LEAST_FOR_AN_ATTEMPT)),
            endpoints: self.endpoints.clone(),
            person_can_serve: all().any(|connection| a_person_can_serve(connection, config.workspace_of(connection))),
            now: connections.first().map_or_else(Timestamp::now, |index| snapshot.statuses[*index].now),
            spread: snapshot.spread,
            config: Arc::clone(&config),
            connections,
        };
        self.in_flight.insert(identity);
        // It runs to its end even if nobody waits any more: it may be renewing a person's login.
        let (running, sender) = (tokio::spawn(job.run(self.sender.clone())), self.sender.clone());
        tokio::spawn(async move {
            // Even if the job panics, its identity must not stay in flight for ever.
            if running.await.is_err() {
                let _ = sender.send(Arrival::broken_off(identity, concerned));
            }
        });
    }

    /// Waits until something is ready or a hook has ended; for ever if nothing is awaited. Dropping this loses nothing.
    pub(crate) async fn wait(&mut self) -> Outcomes {
        loop {
            let ends = self.batch_ends.filter(|_| !self.batch.is_empty());
            let batch_is_over = async {
                match ends {
                    Some(ends) => tokio::time::sleep_until(ends).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(arrival) = self.arrivals.recv() => self.take_in(arrival),
                () = batch_is_over => return self.commit(),
                () = self.hooks.programs.one_ends() => {
                    self.note_ends();
                    return Outcomes::new();
                }
                () = self.secrets.looks.one_ends() => {
                    self.note_ends();
                    return Outcomes::new();
                }
            }
            while let Ok(arrival) = self.arrivals.try_recv() {
                self.take_in(arrival);
            }
            if self.in_flight.is_empty() && !self.batch.is_empty() {
                return self.commit();
            }
        }
    }

    fn take_in(&mut self, arrival: Arrival) {
        if let Some(identity) = arrival.ended() {
            self.in_flight.remove(&identity);
        }
        if self.batch.is_empty() {
            self.batch_ends = Some(Instant::now() + BATCH);
        }
        self.batch.push(arrival);
    }

    fn commit(&mut self) -> Outcomes {
        if self.patience.is_endless() {
            self.rotation.begin_round();
        }
        let arrivals = std::mem::take(&mut self.batch);
        let is_fresh = |snapshot: &Snapshot| Timestamp::now().duration_since(snapshot.taken_at()).abs() < STALE;
        let snapshot = match self.snapshot.take_if(|snapshot| is_fresh(snapshot)) {
            Some(snapshot) => Ok(snapshot),
            None => self.look(),
        };
        let mut snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            Err(failure) => return self.all_failed(&failure),
        };
        let (backoff, patience) = (&mut self.backoff, self.patience);
        let (rotation, outcomes) = (&self.rotation, Outcomes::new());
        let mut commit = Commit { rotation, snapshot: &mut snapshot, backoff, patience, outcomes };
        self.has_news |= commit.take(arrivals);
        let mut outcomes = commit.outcomes;
        outcomes.sort_by_key(|(index, _)| *index);
        self.take_effect(&mut snapshot, &mut outcomes, true);
        self.snapshot = Some(snapshot);
        self.note(&outcomes);
        self.release_if_idle();
        outcomes
    }

    /// Writes the other files, starts hooks, and keeps the record.
    fn take_effect(&mut self, snapshot: &mut Snapshot, outcomes: &mut Outcomes, has_changed: bool) {
        let wrote = effects::write(snapshot, outcomes);
        let ended = self.hooks.note_ends(snapshot);
        let started = self.hooks.start(snapshot);
        let mut looked = self.secrets.note_ends(snapshot, &mut self.backoff);
        // Whoever only wants a live password leaves them to others.
        if !matches!(self.request, RotateRequest::ValidFor(_)) {
            self.secrets.start(snapshot, &self.backoff, self.rotation.time_for_secrets());
        }
        // What could not even be begun has ended already.
        looked |= self.secrets.note_ends(snapshot, &mut self.backoff);
        if self.patience.is_endless() {
            fail_with_secrets(snapshot, outcomes);
        }
        if has_changed || wrote || ended || started || looked {
            self.rotation.keep(&mut snapshot.record);
        }
    }

    /// Notes the ends of hooks and of looks at Secrets in the record if the lock is free; otherwise later.
    fn note_ends(&mut self) {
        let taken = self.held.is_none().then(|| self.rotation.store.try_lock()).flatten();
        if self.held.is_none() && taken.is_none() {
            return;
        }
        if let Ok(mut snapshot) = self.look() {
            self.take_effect(&mut snapshot, &mut Outcomes::new(), false);
            self.snapshot = Some(snapshot);
        }
        if self.held.is_none() {
            self.snapshot = None;
        }
    }

    /// Waits until no Secret is looked at any more, and notes how they were found. `limit` is how long to wait for another instance.
    pub(super) async fn secrets_end(&mut self, limit: Duration) {
        // To note an end may begin another look: there is a newer credential by then.
        while !self.secrets.looks.is_idle() || self.secrets.looks.has_ends() {
            if !self.secrets.looks.has_ends() {
                self.secrets.looks.one_ends().await;
                continue;
            }
            if self.hold(limit, |_| None::<()>).await.is_err() {
                return;
            }
            self.note_ends();
            self.release_if_idle();
        }
    }

    /// The selected connections whose Secret could not be read or written, and why.
    pub(super) fn failed_secrets(&self) -> Vec<(usize, Failure)> {
        let Ok(snapshot) = self.rotation.snapshot() else { return Vec::new() };
        let failure = |index: &usize| Some((*index, secret_error(&snapshot, *index)?.clone()));
        self.selected.iter().filter_map(failure).collect()
    }

    /// Before a command ends: waits for its hooks, and notes their ends.
    pub(super) async fn finish(&mut self, limit: Duration) {
        while self.has_hooks() {
            self.hooks.programs.one_ends().await;
            self.note_ends();
        }
        if self.hooks.programs.has_ends() && self.hold(limit, |_| None::<()>).await.is_ok() {
            self.note_ends();
            self.release_if_idle();
        }
    }

    /// Without the password file or the lock, no connection can be rotated.
    fn all_failed(&mut self, failure: &Failure) -> Outcomes {
        self.has_failed = true;
        if self.backoff.failed(RetryScope::PasswordFile, Step::Lock, failure, None, Moment::now(), fastrand::f64()).1 {
            let name = |index: &usize| self.rotation.config.connections[*index].name.as_str();
            announce::failed(failure, None, &self.selected.iter().map(name).collect::<Vec<_>>());
        }
        self.release_if_idle();
        self.selected.iter().map(|index| (*index, Outcome::Failed(failure.clone()))).collect()
    }

    fn note(&mut self, outcomes: &Outcomes) {
        self.has_failed |= outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Failed(_)));
    }

    fn release_if_idle(&mut self) {
        if self.is_in_flight() {
            return;
        }
        if self.has_news && !self.has_failed {
            announce::completed();
        }
        (self.has_news, self.has_failed) = (false, false);
        self.seen = self.snapshot.take().map(|snapshot| snapshot.statuses);
        self.held = None;
    }
}
