//! The loop that stays and rotates.
//!
//! It never sleeps longer than [`TICK`] and then looks at the wall clock and at the password file again: an entry that
//! somebody deleted is noticed within that time, a clock that was set and a machine that woke up at once. What needs a person
//! is a state and no end: it is said once, probed slowly, and left at once when a file changes that a person mends.

mod heart;
mod status;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::config::{Config, ConfigError, Connection};
use crate::failure::Failure;
use crate::logging::announce;
use crate::os::notify::{Manager, News};
use crate::os::timer;
use crate::os::watch::{self, Stamps};
use crate::rotation::{Outcome, Retries, Rotator, Standing, Wish};
use heart::Heart;
use status::Row;

/// The longest sleep: this bounds how late it is noticed that an entry was deleted.
const TICK: Duration = Duration::from_secs(60);

/// The shortest: whatever the schedule says, the loop does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// How soon it is looked again where somebody still writes to a password file that was replaced meanwhile.
const SOON: Duration = Duration::from_secs(1);

/// How long another instance's rotation is waited for before looking again.
const LOCK_LIMIT: Duration = Duration::from_secs(60);

/// Reads the configuration again.
type Load<'a> = dyn Fn() -> Result<Config, ConfigError> + Sync + 'a;

/// Rotates until `stop` is ready; ends at the next await even inside a request, with nothing half-written. Nobody is told
/// anything: for an application that embeds the loop.
pub(crate) async fn run(rotator: &Rotator, stop: impl Future) {
    let mut daemon = Daemon::new(rotator.clone(), Manager::NONE, Heart::unheard(TICK), None);
    until(stop, daemon.keep(std::future::pending)).await;
}

/// The same as a service: tells the manager that started this process how it goes, and reads the configuration again by `load`
/// whenever `reload` is ready or what needs a person may have been mended.
pub(crate) async fn serve(rotator: Rotator, load: &Load<'_>, reload: impl AsyncFnMut(), stop: impl Future) {
    let manager = Manager::of_this_process();
    let mut daemon = Daemon::new(rotator, manager, Heart::new(manager, TICK), Some(load));
    until(stop, daemon.keep(reload)).await;
    manager.tell(News::Stopping);
}

async fn until(stop: impl Future, keep: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        _ = stop => {}
        () = keep => {}
    }
}

/// What the service manager waits to hear.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// That every connection which can be live is live.
    Starting,
    /// That the new configuration is in use.
    Reloading,
    Up,
}

/// What ended a sleep or cut a round short.
enum Wake {
    Time,
    Reload,
    /// A file that a person mends has changed.
    Changed,
}

struct Daemon<'a> {
    rotator: Rotator,
    retries: Retries,
    /// Why the last try of a connection failed, by its place in the configuration.
    troubles: BTreeMap<usize, Failure>,
    /// Why the new configuration is not in use.
    refused: Option<String>,
    /// The files of people as they were when they were last heeded.
    heeded: Stamps,
    phase: Phase,
    manager: Manager,
    heart: Heart,
    load: Option<&'a Load<'a>>,
}

impl<'a> Daemon<'a> {
    fn new(rotator: Rotator, manager: Manager, heart: Heart, load: Option<&'a Load<'a>>) -> Self {
        let heeded = Stamps::of(&rotator.config().files_of_people());
        let retries = Retries::default();
        let (troubles, refused, phase) = (BTreeMap::new(), None, Phase::Starting);
        Daemon { rotator, retries, troubles, refused, heeded, phase, manager, heart, load }
    }

    async fn keep(&mut self, mut reload: impl AsyncFnMut()) {
        loop {
            self.heart.beat();
            let wake = tokio::select! {
                biased;
                () = reload() => Wake::Reload,
                () = self.round() => Wake::Time,
            };
            let wake = match wake {
                Wake::Time => {
                    let pause = self.report();
                    tokio::select! {
                        biased;
                        () = reload() => Wake::Reload,
                        () = self.mended() => Wake::Changed,
                        () = timer::sleep(pause) => Wake::Time,
                    }
                }
                cut_short => cut_short,
            };
            match wake {
                Wake::Time => continue,
                // Who starts is not told to reload (sd_notify(3)).
                Wake::Reload if self.phase != Phase::Starting => {
                    self.manager.tell(News::Reloading);
                    self.phase = Phase::Reloading;
                }
                Wake::Reload | Wake::Changed => {}
            }
            self.reload();
        }
    }

    /// One attempt for whatever is due and may be tried now.
    async fn round(&mut self) {
        if self.rotator.nothing_to_do(&Wish::Due, None).is_some() {
            self.retries.forget_troubles();
            self.troubles.clear();
            return;
        }
        let (manager, starting) = (self.manager, self.phase == Phase::Starting);
        let each = || {
            if starting {
                manager.tell(News::StillStarting("rotating"));
            }
        };
        let round = self.rotator.round(&Wish::Due, None, &mut self.retries, LOCK_LIMIT);
        for (index, _, outcome) in self.heart.beat_during(round, each).await {
            match outcome {
                Outcome::Failed(failure) => drop(self.troubles.insert(index, failure)),
                Outcome::Rotated { .. } | Outcome::NotDue { .. } => drop(self.troubles.remove(&index)),
            }
        }
    }

    /// Tells the manager how it goes; returns how long there is nothing to do.
    fn report(&mut self) -> Duration {
        // Without the password file nothing is known of anybody.
        let standings = self.rotator.standings(&self.rotator.record()).unwrap_or_default();
        self.mourn(&standings);
        let rows = self.rows(&standings);
        let settled = rows.iter().all(|row| row.left.is_some() || row.trouble.is_some_and(|why| !why.is_transient()));
        // The death of what cannot be renewed is to be said when it happens.
        let deaths = rows.iter().filter(|row| row.trouble.is_some()).filter_map(|row| row.left);
        let next = rows.iter().map(|row| row.next).chain(deaths).min().and_then(|next| Duration::try_from(next).ok());
        let pause = next.unwrap_or_default().clamp(PAUSE, self.heart.pace().max(PAUSE));
        // What they write is not where anybody reads it before we put it there.
        let pause = if self.rotator.is_settled() { pause } else { pause.min(SOON) };
        let text = status::text(&rows, self.refused.as_deref(), Timestamp::now(), &TimeZone::system());
        match self.phase {
            Phase::Starting if !settled => self.manager.tell(News::StillStarting(&text)),
            Phase::Starting | Phase::Reloading => {
                self.phase = Phase::Up;
                self.manager.tell(News::Ready(&text));
            }
            Phase::Up => self.manager.tell(News::Status(&text)),
        }
        pause
    }

    /// Says once of each connection that its credential died before there was a new one.
    fn mourn(&mut self, standings: &[Standing]) {
        for (index, trouble) in &self.troubles {
            let Some(connection) = self.rotator.config().connections().get(*index) else { continue };
            let expired = standings.get(*index).and_then(Standing::expired_at);
            if let Some(at) = expired.filter(|at| self.retries.expired(*index, *at)) {
                announce::expired(connection.name(), at, trouble);
            }
        }
    }

    fn rows<'r>(&'r self, standings: &[Standing]) -> Vec<Row<'r>> {
        let now = Timestamp::now();
        let row = |(index, connection): (usize, &'r Connection)| {
            let standing = standings.get(index);
            let left = standing.and_then(Standing::left_to_clients);
            let refresh = standing.filter(|standing| !standing.is_due()).and_then(Standing::until_refresh);
            let retry = || self.rotator.next_try(index, left.is_some(), &self.retries, now);
            let next = refresh.or_else(|| Some(retry()?.duration_since(now))).unwrap_or(SignedDuration::ZERO);
            Row { name: connection.name(), left, next, trouble: self.troubles.get(&index) }
        };
        self.rotator.config().connections().iter().enumerate().map(row).collect()
    }

    /// Waits until what needs a person may have been mended: a file has changed. For ever where nothing needs a person.
    async fn mended(&self) {
        if self.refused.is_none() && self.troubles.values().all(Failure::is_transient) {
            return std::future::pending().await;
        }
        let config = self.rotator.config();
        let people = config.files_of_people();
        let files = [people.clone(), config.files_of_programs()].concat();
        // It may have changed while the last round was reading it.
        watch::changed(&files, || Stamps::of(&people) != self.heeded).await;
    }

    /// Reads the configuration again, and tries at once what failed. A new configuration that cannot be used is said and left
    /// aside; what an unchanged connection has in the password file stays.
    fn reload(&mut self) {
        self.heeded = Stamps::of(&self.rotator.config().files_of_people());
        self.retries.hurry();
        let Some(load) = self.load else { return };
        match load() {
            Ok(config) => {
                if config.says_the_same_as(self.rotator.config()) {
                    tracing::debug!("the configuration says the same as before");
                } else {
                    tracing::info!("The configuration has changed. {}", config.summary());
                    if config.log_file() != self.rotator.config().log_file() {
                        tracing::warn!("another log file is used after a restart, not yet");
                    }
                    self.retries = Retries::default();
                    self.troubles.clear();
                }
                self.rotator = self.rotator.with_config(config);
                self.heeded = Stamps::of(&self.rotator.config().files_of_people());
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
