//! The rotation: one snapshot of everything, a plan made from it, credentials acquired within a deadline and committed in one
//! write; then the other files follow.
//!
//! Invariants: a live credential is never replaced by a worse one; no identity waits for another; a failure changes nothing except
//! the record.

mod acquire;
pub(crate) mod backoff;
#[cfg(feature = "cli")]
mod beside;
mod claim;
mod commit;
mod discover;
mod effects;
mod followers;
#[cfg(feature = "cli")]
mod given;
mod hooks;
mod in_step;
mod notify;
mod password_files;
mod plan;
mod record;
pub(crate) mod refusals;
mod report;
mod request;
mod running;
pub(crate) mod schedule;
mod secrets;
mod session;
mod side_by_side;
mod snapshot;
mod status;
mod store;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

pub(crate) use discover::{Discovered, discover, try_sign_in};
pub(crate) use record::{ConnectionRecord, LeaseRecord, Record};
pub use report::{Outcome, Report};
pub(crate) use request::RotateRequest;
#[cfg(feature = "cli")]
pub(crate) use running::PROXY;
pub(crate) use running::Running;
pub(crate) use secrets::{SecretState, wanted as wanted_secret};
pub(crate) use session::Session;
pub(crate) use side_by_side::SideBySide;
pub(crate) use snapshot::Snapshot;
pub(crate) use status::{ConnectionStatus, State};

use backoff::Backoff;
use report::Outcomes;
use request::Patience;
use schedule::{Spread, after_boot};

use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::kubernetes::{Leadership, Standing};
use crate::os::clock::Moment;
use crate::os::files::read_bytes;
use crate::os::replace::Allowance;
use crate::os::timer;
use crate::words;

/// How long a rotation goes on trying by default: as long as the vendor's SDKs do (databricks-sdk-go, retry.go).
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a timer's run waits, at most, for somebody who still writes to a file that it has replaced. What they write would not be
/// where clients look until the next run, and nobody waits for this one.
const TIMERS_SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// How often a command looks whether they have done.
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

/// How long to wait for the lock in order to finish what was begun.
pub(crate) const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// A configuration, and where the record of its rotations is.
#[derive(Clone)]
pub(crate) struct Rotation {
    config: Arc<Config>,
    store: store::Store,
    spread: Spread,
    /// What others who write to the same files may cost a command, or a round of the daemon.
    allowance: Allowance,
    /// By which of several replicas one alone writes Secrets.
    leadership: Option<Arc<Leadership>>,
}

impl Rotation {
    pub(crate) fn new(config: Config) -> Self {
        let store = store::Store::new(&config.state_dir);
        Rotation {
            config: Arc::new(config),
            store,
            spread: Spread::NONE,
            allowance: Allowance::default(),
            leadership: None,
        }
    }

    /// The same for a daemon, so that many machines with one workspace do not refresh at the same time.
    pub(crate) fn spread(self, spread: Spread) -> Self {
        Rotation { spread, ..self }
    }

    /// The same with another configuration. A record that is only in memory stays.
    pub(crate) fn with_config(&self, config: Config) -> Self {
        let same_place = config.state_dir == self.config.state_dir;
        let store = if same_place { self.store.clone() } else { store::Store::new(&config.state_dir) };
        let (allowance, leadership) = (self.allowance.clone(), self.leadership.clone());
        Rotation { config: Arc::new(config), store, spread: self.spread, allowance, leadership }
    }

    /// The same for one of several replicas; none where there is but one.
    pub(crate) fn led_by(self, leadership: Option<Arc<Leadership>>) -> Self {
        Rotation { leadership, ..self }
    }

    pub(crate) fn leadership(&self) -> Option<&Arc<Leadership>> {
        self.leadership.as_ref()
    }

    /// Whether this process rotates a connection: not where it has a Secret that another replica writes, or may be about to.
    pub(crate) fn is_ours(&self, index: usize) -> bool {
        let Some(leadership) = &self.leadership else { return true };
        let has_secret = self.config.connections.get(index).is_some_and(|one| one.outputs.kubernetes_secret.is_some());
        // The password file is kept even where the API does not answer.
        !has_secret || matches!(leadership.standing(), Standing::Ours | Standing::Nobodys(_))
    }

    /// How long this process may write Secrets; none if it may not.
    fn time_for_secrets(&self) -> Option<Duration> {
        self.leadership.as_ref().map_or(Some(Duration::MAX), |leadership| leadership.left())
    }

    /// Notes who writes Secrets, for `status`.
    pub(crate) fn note_lease(&self) {
        let Some(leadership) = &self.leadership else { return };
        let standing = match leadership.standing() {
            Standing::Unknown => None,
            Standing::Ours => Some((true, None)),
            Standing::Others(holder) => Some((false, Some(holder))),
            Standing::Nobodys(_) => Some((false, None)),
        };
        let name = leadership.name().to_string();
        let lease = standing.map(|(is_ours, holder)| LeaseRecord { name, is_ours, holder });
        let Some(_held) = self.store.try_lock() else { return };
        let mut record = self.record();
        if record.lease != lease {
            record.lease = lease;
            self.keep(&mut record);
        }
    }

    /// The same for another command of this process.
    pub(crate) fn for_a_command(&self) -> Self {
        Rotation { allowance: Allowance::default(), ..self.clone() }
    }

    /// Another round of the daemon begins.
    pub(crate) fn begin_round(&self) {
        self.allowance.renew();
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The place of the connection with this name in the configuration.
    ///
    /// # Errors
    /// Permanent: there is no connection with this name.
    pub(crate) fn index_of(&self, name: &str) -> Result<usize, Failure> {
        self.config.connections.iter().position(|connection| connection.name == name).ok_or_else(|| {
            let names: Vec<&str> =
                self.config.connections.iter().map(|connection| connection.name.as_str()).take(20).collect();
            Failure::permanent(Code::Configuration, format!("there is no connection named {name}"))
                .hint(format!("the connections there are: {}", names.join(", ")))
        })
    }

    /// Whether a daemon runs that shares this record, under whatever manager.
    pub(crate) fn is_kept_by_a_daemon(&self) -> bool {
        Running::is_marked(&self.config.state_dir)
    }

    /// The files that hold the record and tell whether a daemon runs.
    pub(crate) fn record_files(&self) -> Vec<PathBuf> {
        let directory = std::path::absolute(&self.config.state_dir).unwrap_or_else(|_| self.config.state_dir.clone());
        vec![directory.join(store::RECORD), directory.join(running::NAME)]
    }

    /// How everything stands now.
    ///
    /// # Errors
    /// No password file can be read.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Failure> {
        self.snapshot_with(self.record())
    }

    fn snapshot_with(&self, record: Record) -> Result<Snapshot, Failure> {
        Snapshot::take(&self.config, record, self.spread, &self.allowance)
    }

    fn record(&self) -> Record {
        self.store.read()
    }

    fn keep(&self, record: &mut Record) {
        record.prune(Timestamp::now());
        if let Err(error) = self.store.write(record) {
            tracing::warn!("cannot keep a record in {}: {}", self.config.state_dir.display(), words::of_io(&error));
        }
    }

    fn selected(&self, only: Option<&[usize]>) -> Vec<usize> {
        only.map_or_else(|| (0..self.config.connections.len()).collect(), <[usize]>::to_vec)
    }

    /// The report if there is nothing to do for this request. Needs no runtime, lock or network.
    pub(crate) fn nothing_to_do(&self, request: &RotateRequest, only: Option<&[usize]>) -> Option<Report> {
        let outcomes = self.outcomes_if_nothing_due(&self.snapshot().ok()?, request, &self.selected(only), true)?;
        let mut report = Report::new(&self.config);
        report.add(outcomes);
        Some(report)
    }

    /// Whether nothing is due, and nothing beside the password file is to be done either.
    pub(crate) fn is_nothing_to_do(&self, snapshot: &Snapshot) -> bool {
        let ours: Vec<usize> = self.selected(None).into_iter().filter(|index| self.is_ours(*index)).collect();
        self.outcomes_if_nothing_due(snapshot, &RotateRequest::Due, &ours, true).is_some()
    }

    /// The outcomes, where the request selects nothing; with `strictly`, and nothing beside the password file is to be done either.
    fn outcomes_if_nothing_due(
        &self,
        snapshot: &Snapshot,
        request: &RotateRequest,
        selected: &[usize],
        strictly: bool,
    ) -> Option<Outcomes> {
        if selected.iter().any(|index| request.selects(&snapshot.statuses[*index], snapshot.past(*index))) {
            return None;
        }
        if strictly
            && !(effects::are_current(snapshot, selected)
                && effects::is_settled(&self.config)
                && !hooks::are_waiting(&self.config, snapshot, selected)
                && (self.time_for_secrets().is_none() || secrets::are_current(snapshot, selected, Timestamp::now())))
        {
            return None;
        }
        let expires_at = |index: &usize| snapshot.statuses[*index].token.as_ref().map(|token| token.expires_at);
        Some(selected.iter().map(|index| (*index, Outcome::NotDue { expires_at: expires_at(index) })).collect())
    }

    /// Tries until everything requested is done, cannot be done, or `patience` has run out.
    pub(crate) async fn rotate(&self, request: &RotateRequest, only: Option<&[usize]>, patience: Duration) -> Report {
        let by_timer = request.is_of_timer();
        let patience = Patience::of_command(patience, by_timer);
        let is_of_server = by_timer && self.config.is_server();
        let backoff = if is_of_server { Backoff::for_servers() } else { Backoff::default() };
        if is_of_server {
            self.wait_after_boot(patience).await;
        }
        let mut session = Session::new(self.clone(), request.clone(), only, patience, backoff);
        let mut report = Report::new(&self.config);
        self.bring_credentials(&mut session, &mut report, patience).await;
        if !matches!(request, RotateRequest::ValidFor(_)) && self.config.has_secrets() {
            self.bring_secrets(&mut session, &mut report, patience).await;
        }
        session.finish(LOCK_LIMIT).await;
        drop(session);
        if by_timer {
            self.leave_to_next_run(&mut report);
        }
        report
    }

    /// Starts what is due, and tries again while there is time for it. Nothing is in flight afterwards.
    async fn bring_credentials(&self, session: &mut Session, report: &mut Report, patience: Patience) {
        report.add(session.step(patience.left()).await);
        loop {
            let next = self.next_wait(report, session, patience);
            if session.is_in_flight() {
                let wait = next.filter(|wait| *wait < patience.left());
                tokio::select! {
                    biased;
                    outcomes = session.wait() => report.add(outcomes),
                    () = timer::sleep(wait.unwrap_or_default()), if wait.is_some() => {
                        report.add(session.step(patience.left()).await);
                    }
                }
                continue;
            }
            let Some(wait) = next else { break };
            if wait >= patience.left() {
                report.give_up(wait);
                report.add(session.left_untried(report));
                break;
            }
            tokio::select! {
                biased;
                // A hook has ended.
                outcomes = session.wait() => report.add(outcomes),
                () = timer::sleep(wait) => report.add(session.step(patience.left()).await),
            }
        }
    }

    /// Waits until the Secrets hold what clients read, tries again while there is time for it, and adds what has failed. Whoever only
    /// wants a live password does not wait for them.
    async fn bring_secrets(&self, session: &mut Session, report: &mut Report, patience: Patience) {
        loop {
            session.secrets_end(LOCK_LIMIT).await;
            let failures = session.failed_secrets();
            let next = failures.iter().filter(|(_, failure)| failure.is_transient());
            let next = next.filter_map(|(index, _)| session.next_look(*index)).min();
            let wait = next.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
            match wait.filter(|wait| *wait < patience.left()) {
                Some(wait) => {
                    timer::sleep(wait.max(SETTLE_PAUSE)).await;
                    // Another connection may have become due.
                    self.bring_credentials(session, report, patience).await;
                }
                None => {
                    report
                        .add(failures.into_iter().map(|(index, failure)| (index, Outcome::Failed(failure))).collect());
                    return;
                }
            }
        }
    }

    /// Servers that start together, after a power cut, do not ask the workspace together. A timer's first run comes at once.
    async fn wait_after_boot(&self, patience: Patience) {
        let wait = after_boot(Moment::now().since_boot, spread_of_this_machine()).min(patience.for_waiting());
        if !wait.is_zero() {
            tracing::info!("Waiting {} s after the boot of this machine", wait.as_secs_f32().ceil());
            timer::sleep(wait).await;
        }
    }

    /// How long it is until something can be tried, or tried again; none where that helps nobody.
    fn next_wait(&self, report: &Report, session: &Session, patience: Patience) -> Option<Duration> {
        let now = Moment::now();
        let until = |at: Timestamp| Duration::try_from(at.duration_since(now.wall)).unwrap_or_default();
        let next = report.next_try(|index| session.is_one_in_flight(index), |index| session.next_try(index, true, now));
        let next = next.map(|at| at.map_or(Duration::ZERO, until));
        // What an earlier run has failed at may have to wait for its first try.
        let untried = session.untried(report).filter_map(|index| session.next_try(index, true, now)).map(until).min();
        // A source that only repeats what is due is no failure, but the next run may be too late for it.
        let renewed = if patience.is_of_timer() {
            let renewed =
                report.not_failed().filter_map(|index| Some((index, session.backoff.renewed_at(index, now)?)));
            self.first_without_trouble(renewed).map(until).filter(|wait| *wait < patience.left())
        } else {
            None
        };
        next.into_iter().chain(untried).chain(renewed).min()
    }

    /// The earliest of these whose source has no known failure.
    fn first_without_trouble(&self, renewed: impl Iterator<Item = (usize, Timestamp)>) -> Option<Timestamp> {
        let mut renewed = renewed.peekable();
        renewed.peek()?;
        let snapshot = self.snapshot().ok()?;
        let is_well = |index: usize| snapshot.past(index).is_none_or(|past| past.last_error.is_none());
        renewed.filter(|(index, _)| is_well(*index)).map(|(_, at)| at).min()
    }

    /// If the credential lives until the next run has had its time, a transient failure can be left to that run.
    fn leave_to_next_run(&self, report: &mut Report) {
        let snapshot = self.snapshot().ok();
        let outlives = |index| snapshot.as_ref().is_some_and(|seen| seen.worst_status(index).outlives_next_run());
        if report.leave_to_next_run(outlives) {
            tracing::info!("The published passwords live long enough: the next run will try again");
        }
    }

    /// Whether nothing was left behind, and nobody still writes to a replaced file.
    pub(crate) fn is_settled(&self) -> bool {
        effects::is_settled(&self.config)
    }

    /// Waits for whoever still writes to a file that was replaced, and takes over what they wrote, before a command ends. Usually
    /// there is nobody. Who takes longer than is left of the allowance is left to the next run, except by a timer's.
    pub(crate) async fn settle(&self, request: &RotateRequest) {
        if self.is_settled() {
            return;
        }
        let limit = if request.is_of_timer() { TIMERS_SETTLE_LIMIT } else { self.allowance.left() };
        let started = Instant::now();
        while effects::is_waited_for(&self.config) && started.elapsed() < limit {
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
        self.allowance.spend(started.elapsed());
        // Whoever holds it so long may be making what looks like a leftover.
        let Ok(_lock) = self.store.lock(LOCK_LIMIT, || None::<()>).await else { return };
        if let Ok(snapshot) = self.snapshot() {
            effects::tidy(&snapshot);
        }
    }
}

/// The same at every start, and another one on each machine and for each user.
pub(crate) fn spread_of_this_machine() -> Spread {
    let name = || rustix::system::uname().nodename().to_bytes().to_vec();
    let machine = read_bytes("/etc/machine-id".as_ref()).unwrap_or_else(|_| name());
    Spread::of(&machine, rustix::process::getuid().as_raw())
}
