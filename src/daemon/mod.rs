//! The loop of the long-running command.
//!
//! It never sleeps longer than [`TICK`], then reads the wall clock and the password file again. So a deleted entry is noticed
//! within that time, and a clock that was set or a machine that woke up at once. A failure that needs a person does not end
//! the loop: it is reported once, retried slowly, and retried at once when a file changes that may repair it.

mod lease;
mod status;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::auth::external_browser::Login;
use crate::config::{Config, ConfigError};
use crate::failure::Failure;
use crate::logging::announce;
use crate::model::Connection;
use crate::os::clock::Moment;
use crate::os::heap;
use crate::os::keepalive::WatchdogKeepalive;
use crate::os::notify::{Manager, News};
use crate::os::timer;
use crate::os::watch::{self, Stamps};
use crate::os::zone;
use crate::rotation::backoff::Change;
use crate::rotation::schedule::{Spread, after_boot};
use crate::rotation::{ConnectionStatus, Outcome, Rotation, Running, Session, spread_of_this_machine};
use status::Row;

/// The longest sleep: a deleted entry is noticed within this time.
const TICK: Duration = Duration::from_secs(60);

/// The shortest sleep: the loop never spins, whatever the schedule says.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest sleep while another program still writes to a password file that has been replaced.
const SOON: Duration = Duration::from_secs(1);

/// How long one look waits for another instance's rotation.
const LOCK_LIMIT: Duration = Duration::from_secs(60);

/// Reads the configuration again.
type Load<'a> = dyn Fn() -> Result<Config, ConfigError> + Sync + 'a;

/// Rotates until `stop` is ready. It ends at the next await, even inside a request, with nothing half-written. For an
/// application that embeds the loop: nothing is reported to a service manager.
pub(crate) async fn run(rotation: &Rotation, stop: impl Future) {
    let mut daemon = Daemon::new(rotation.clone(), Manager::NONE, WatchdogKeepalive::unheard(TICK), None);
    until(stop, daemon.keep(std::future::pending)).await;
    daemon.end().await;
}

/// The same for a service: reports to the service manager, and reads the configuration again with `load` whenever `reload` is
/// ready or a file changes that may end a failure.
pub(crate) async fn serve(rotation: Rotation, load: &Load<'_>, reload: impl AsyncFnMut(), stop: impl Future) {
    let manager = Manager::of_this_process();
    let mut daemon = Daemon::new(rotation, manager, WatchdogKeepalive::new(manager, TICK), Some(load));
    until(stop, daemon.keep(reload)).await;
    manager.tell(News::Stopping);
    daemon.end().await;
}

async fn until(stop: impl Future, keep: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        _ = stop => {}
        () = keep => {}
    }
}

/// What the service manager is waiting for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// For every connection to be live, except those that need a person.
    Starting,
    /// For the new configuration to be in use.
    Reloading,
    Up,
}

/// What ended a wait.
enum Wake {
    /// The time has come, or a request has ended.
    Look,
    Reload,
    /// Files have changed that can end a failure.
    Changed(Change),
}

struct Daemon<'a> {
    rotation: Rotation,
    session: Session,
    /// Nobody sits in front of this machine, and there may be thousands like it.
    is_server: bool,
    spread: Spread,
    /// How all connections stand, as the present look has found them.
    seen: Option<Vec<ConnectionStatus>>,
    /// Why the last try of a connection failed, by its place in the configuration.
    failures: BTreeMap<usize, Failure>,
    /// Why the new configuration cannot be used.
    refused: Option<String>,
    /// The files as they were when they last caused a new try.
    heeded: Heeded,
    phase: Phase,
    manager: Manager,
    keepalive: WatchdogKeepalive,
    load: Option<&'a Load<'a>>,
    /// Tells `status` that this daemon runs.
    running: Running,
}

/// The files whose changes can end a failure, as they were.
struct Heeded {
    people: Stamps,
    logins: Stamps,
    password_file: Stamps,
}

/// The files that change when a person logs in.
fn login_files(config: &Config) -> Vec<PathBuf> {
    config.login_files(|workspace| Login::of(workspace, &config.environment).description())
}

impl Heeded {
    fn of(config: &Config) -> Self {
        Heeded {
            people: Stamps::of(&config.files_of_people()),
            logins: Stamps::of(&login_files(config)),
            password_file: Stamps::of(&config.password_files_to_watch()),
        }
    }

    /// What has changed since. Of several changes, the one that can repair most.
    fn changed(&self, config: &Config) -> Option<Change> {
        let now = Heeded::of(config);
        if now.people != self.people {
            Some(Change::Settings)
        } else if now.logins != self.logins {
            Some(Change::TokenCache)
        } else if now.password_file != self.password_file {
            Some(Change::PasswordFile)
        } else {
            None
        }
    }
}

impl<'a> Daemon<'a> {
    fn new(rotation: Rotation, manager: Manager, keepalive: WatchdogKeepalive, load: Option<&'a Load<'a>>) -> Self {
        let spread = spread_of_this_machine();
        let is_server = rotation.config().is_server();
        let led = lease::of(rotation.config());
        let rotation = rotation.spread(spread).led_by(led);
        let running = Running::mark(&rotation.config().state_dir);
        Daemon {
            session: Session::of_daemon(rotation.clone(), is_server),
            is_server,
            spread,
            heeded: Heeded::of(rotation.config()),
            rotation,
            seen: None,
            failures: BTreeMap::new(),
            refused: None,
            phase: Phase::Starting,
            manager,
            keepalive,
            load,
            running,
        }
    }

    /// Nothing is written from now on, so that another replica may begin at once.
    async fn end(self) {
        let Daemon { session, rotation, .. } = self;
        drop(session);
        if let Some(leadership) = rotation.leadership() {
            leadership.release().await;
        }
    }

    /// Spreads the requests of servers that start together, after a power cut for example.
    async fn wait_after_boot(&self) {
        let wait = if self.is_server { after_boot(Moment::now().since_boot, self.spread) } else { Duration::ZERO };
        if !wait.is_zero() {
            let text = format!("waiting {} s after the boot of this machine", wait.as_secs());
            let each = || self.manager.tell(News::StillStarting(&text));
            self.keepalive.ping_during(timer::sleep(wait), each).await;
        }
    }

    async fn keep(&mut self, mut reload: impl AsyncFnMut()) {
        self.wait_after_boot().await;
        loop {
            self.keepalive.ping();
            self.running.beat();
            let wake = tokio::select! {
                biased;
                () = reload() => Wake::Reload,
                () = self.look() => Wake::Look,
            };
            let wake = match wake {
                Wake::Look => self.rest(&mut reload).await,
                cut_short => cut_short,
            };
            match wake {
                Wake::Look => {}
                Wake::Reload => {
                    // A service that is starting must not report a reload (sd_notify(3)).
                    if self.phase != Phase::Starting {
                        self.manager.tell(News::Reloading);
                        self.phase = Phase::Reloading;
                    }
                    self.reload(Change::Settings);
                }
                Wake::Changed(changed) => self.reload(changed),
            }
        }
    }

    /// Starts whatever is due and may be tried now.
    async fn look(&mut self) {
        self.rotation.begin_round();
        self.seen = None;
        if !self.session.is_in_flight()
            && let Some(snapshot) =
                self.rotation.snapshot().ok().filter(|snapshot| self.rotation.is_nothing_to_do(snapshot))
        {
            self.session.backoff.clear_troubles();
            self.failures.clear();
            self.seen = Some(snapshot.statuses);
            return;
        }
        let starting = self.phase == Phase::Starting;
        let (manager, step) = (self.manager, self.session.step(LOCK_LIMIT));
        let each = || {
            if starting {
                manager.tell(News::StillStarting("rotating"));
            }
        };
        let outcomes = self.keepalive.ping_during(step, each).await;
        self.seen = self.session.statuses();
        self.note(outcomes);
    }

    fn note(&mut self, outcomes: Vec<(usize, Outcome)>) {
        for (index, outcome) in outcomes {
            match outcome {
                Outcome::Failed(failure) => drop(self.failures.insert(index, failure)),
                Outcome::Rotated { .. } | Outcome::NotDue { .. } => drop(self.failures.remove(&index)),
            }
        }
    }

    /// Reports to the service manager, and waits until there is something to do.
    async fn rest(&mut self, reload: &mut impl AsyncFnMut()) -> Wake {
        let pause = self.report();
        // The heap of an application that embeds the loop is its own affair.
        if self.load.is_some() && !self.session.is_in_flight() {
            heap::give_back();
        }
        let mut arrived = Vec::new();
        let wake = {
            let standing = self.rotation.leadership().map(|leadership| leadership.standing());
            let Daemon { session, rotation, heeded, refused, failures, .. } = self;
            let led = lease::changes(rotation, standing.as_ref());
            let watched = async { files_have_changed(rotation.config(), heeded, refused.is_some(), failures).await };
            tokio::select! {
                biased;
                () = reload() => Wake::Reload,
                outcomes = session.wait() => {
                    arrived = outcomes;
                    Wake::Look
                }
                changed = watched => Wake::Changed(changed),
                () = led => Wake::Look,
                () = timer::sleep(pause) => Wake::Look,
            }
        };
        self.note(arrived);
        wake
    }

    /// Reports to the service manager. Returns how long there is nothing to do.
    fn report(&mut self) -> Duration {
        // Without the password file nothing is known of anybody.
        let read = || self.rotation.snapshot().map(|snapshot| snapshot.statuses).unwrap_or_default();
        let statuses = self.seen.take().unwrap_or_else(read);
        self.report_expired(&statuses);
        self.rotation.note_lease();
        let rows = self.rows(&statuses);
        let settled = rows.iter().all(|row| {
            row.left.is_some() || row.holder.is_some() || row.failure.is_some_and(|why| !why.is_transient())
        });
        // If a failing connection's credential expires, that must be reported when it happens.
        let deaths = rows.iter().filter(|row| row.failure.is_some()).filter_map(|row| row.left);
        let ours = || rows.iter().filter(|row| row.holder.is_none());
        let next = ours().filter(|row| !row.in_flight).map(|row| row.next).chain(deaths);
        let next = next.chain(ours().filter_map(|row| row.look)).min();
        let pace = self.keepalive.pace().max(PAUSE);
        let pause = next.map_or(pace, |next| Duration::try_from(next).unwrap_or_default()).clamp(PAUSE, pace);
        // What others write to the replaced file is read by nobody until it is carried over.
        let pause = if self.rotation.is_settled() { pause } else { pause.min(SOON) };
        let text = status::text(&rows, self.refused.as_deref(), Timestamp::now(), &zone::local());
        match self.phase {
            Phase::Starting if !settled => self.manager.tell(News::StillStarting(&text)),
            // Whoever waits for a reload also waits for the requests that it started.
            Phase::Reloading if !settled && self.session.is_in_flight() => self.manager.tell(News::Status(&text)),
            Phase::Starting | Phase::Reloading => {
                self.phase = Phase::Up;
                self.manager.tell(News::Ready(&text));
            }
            Phase::Up => self.manager.tell(News::Status(&text)),
        }
        pause
    }

    /// Reports once for each connection that its credential expired before there was a new one.
    fn report_expired(&mut self, statuses: &[ConnectionStatus]) {
        for (index, failure) in &self.failures {
            let Some(connection) = self.rotation.config().connections().get(*index) else { continue };
            let expired = statuses.get(*index).and_then(ConnectionStatus::expired_at);
            if let Some(at) = expired.filter(|at| self.session.backoff.expired(*index, *at)) {
                announce::expired(connection.name(), at, failure);
            }
        }
    }

    fn rows<'r>(&'r self, statuses: &[ConnectionStatus]) -> Vec<Row<'r>> {
        let now = Moment::now();
        let row = |(index, connection): (usize, &'r Connection)| {
            let status = statuses.get(index);
            let left = status.and_then(ConnectionStatus::left_to_clients);
            let refresh = status.filter(|status| !status.is_due()).and_then(ConnectionStatus::until_refresh);
            let retry = || self.session.next_try(index, left.is_some(), now);
            let next = refresh.or_else(|| Some(retry()?.duration_since(now.wall))).unwrap_or(SignedDuration::ZERO);
            let in_flight = self.session.is_one_in_flight(index);
            let holder = (!self.rotation.is_ours(index)).then(|| lease::holder(&self.rotation));
            let (look, failure) = (self.session.next_look(index), self.failures.get(&index));
            let look = look.map(|at| at.duration_since(now.wall)).filter(|_| left.is_some());
            // What fails of a connection that is not due is its Secret.
            let next = look.filter(|_| failure.is_some() && refresh.is_some()).unwrap_or(next);
            Row { name: connection.name(), left, next, look, in_flight, holder, failure }
        };
        self.rotation.config().connections().iter().enumerate().map(row).collect()
    }

    /// Reads the configuration again, and retries at once what this change may have repaired. An unusable new configuration is
    /// reported and ignored. The entries of unchanged connections stay.
    fn reload(&mut self, changed: Change) {
        self.heeded = Heeded::of(self.rotation.config());
        self.session.backoff.retry_now(|scope| changed.can_repair(scope));
        if changed == Change::PasswordFile {
            return;
        }
        let Some(load) = self.load else { return };
        let watched = self.rotation.config().files_of_people();
        match load() {
            Ok(config) => {
                let is_same = config.says_the_same_as(self.rotation.config());
                if is_same {
                    tracing::debug!("the configuration says the same as before");
                } else {
                    tracing::info!("The configuration has changed. {}", config.summary());
                    if config.log_file() != self.rotation.config().log_file() {
                        tracing::warn!("another log file is used after a restart, not yet");
                    }
                }
                if config.state_dir != self.rotation.config().state_dir {
                    self.running = Running::mark(&config.state_dir);
                }
                self.rotation = lease::follow(self.rotation.clone(), &config).with_config(config);
                if is_same {
                    self.session.set_rotation(self.rotation.clone());
                } else {
                    // What the old session has started runs to its end, but is not published.
                    self.session = Session::of_daemon(self.rotation.clone(), self.is_server);
                    self.failures.clear();
                }
                let mut now = Heeded::of(self.rotation.config());
                if self.rotation.config().files_of_people() == watched {
                    // As they were before they were read: what was saved since is seen.
                    std::mem::swap(&mut now.people, &mut self.heeded.people);
                }
                self.heeded = now;
                self.refused = None;
            }
            Err(error) => {
                tracing::error!(
                    "the old configuration stays in use, since the new one cannot be: {}",
                    error.sentence()
                );
                self.refused = Some(error.message().to_owned());
            }
        }
    }
}

/// Waits until a file changes that can end a failure which needs a person. Never returns if there is no such failure.
async fn files_have_changed(
    config: &Config,
    heeded: &Heeded,
    is_refused: bool,
    failures: &BTreeMap<usize, Failure>,
) -> Change {
    if !is_refused && failures.values().all(Failure::is_transient) {
        return std::future::pending().await;
    }
    let files = [config.files_of_people(), login_files(config), config.password_files_to_watch()].concat();
    loop {
        // A file may have changed while the last look was reading it.
        watch::changed(&files, || heeded.changed(config).is_some()).await;
        if let Some(changed) = heeded.changed(config) {
            return changed;
        }
    }
}
