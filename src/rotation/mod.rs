//! The rotation: which are due, obtain, verify, publish, record.
//!
//! A *round* is one attempt for everything that is due, under the lock, with one write of the password file. `rotate` repeats
//! rounds until all is done or its time is up, `run` for ever. Invariants: a live credential is never replaced by a worse one;
//! what has been obtained is published in one write; a failure touches nothing but the record.

mod due;
mod locate;
mod obtain;
mod outputs;
mod publication;
mod record;
mod report;
mod retry;
mod round;
mod schedule;
mod verify;
mod visible;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

pub(crate) use due::{Standing, State};
pub(crate) use record::{ConnectionRecord, Record};
pub use report::{Outcome, Report};
pub(crate) use retry::Retries;
pub(crate) use round::Wish;
pub(crate) use visible::{Visible, visible};

use crate::config::{Config, ConfigError, Overrides};
use crate::failure::{Code, Failure};
use crate::os::{clock, timer};
use crate::pgpass::{Contents, PasswordFile, StoreError};

/// How long a rotation goes on trying unless told otherwise: as long as the vendor's SDKs do (databricks-sdk-go, retry.go).
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A credential handed out with less than this left may be dead before it is used.
const LEAST_VALID: Duration = Duration::from_secs(30);

/// How long the renewal of a credential that still lives may keep somebody waiting who wants to connect.
const MOMENT: Duration = Duration::from_secs(2);

/// How long after a failure nobody who wants to connect tries to renew a credential that still lives.
const QUIET: SignedDuration = SignedDuration::from_secs(15);

/// Keeps passwords alive: the program's main job, as a library.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use dbx_rotator::Rotator;
///
/// let rotator = Rotator::builder()
///     .workspace_url("https://dbc-1234.cloud.databricks.com")
///     .client_id("0b1c2d3e-0000-4000-8000-000000000000")
///     .client_secret_file("/run/secrets/client-secret")
///     .pg_host("ep-one-two-x.database.eu-west-1.cloud.databricks.com")
///     .build()?;
///
/// // Keep ~/.pgpass fresh beside the application ...
/// let keeper = rotator.clone();
/// tokio::spawn(async move { keeper.run(std::future::pending::<()>()).await });
///
/// // ... and ask for a live password wherever a pool opens a connection.
/// let credential = rotator.credential("default").await?;
/// # let _ = credential;
/// # Ok(())
/// # }
/// ```
///
/// Blocking programs bring a small runtime of their own:
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let rotator = dbx_rotator::Rotator::builder().build()?;
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// let report = runtime.block_on(rotator.run_once());
/// assert!(report.succeeded());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Rotator {
    pub(crate) config: Arc<Config>,
    store: record::Store,
}

/// A live password, until when it lives, and whose it is.
#[derive(Clone, Debug)]
pub struct Credential {
    pub(crate) password: SecretString,
    pub(crate) expires_at: Timestamp,
    pub(crate) left: SignedDuration,
    pub(crate) subject: Option<String>,
}

impl Credential {
    /// The password for PostgreSQL.
    pub fn password(&self) -> &SecretString {
        &self.password
    }

    /// When it expires, by the workspace's clock. Checked by the server at login only: open sessions live on.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// How long it was still valid when it was handed out, with the clock's error taken out.
    pub fn valid_for(&self) -> Duration {
        Duration::try_from(self.left).unwrap_or_default()
    }

    /// Whose it is, where the token says so.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }
}

impl Rotator {
    /// Starts a configuration by hand; what is not set comes from the environment and the files, as for the program.
    pub fn builder() -> Builder {
        Builder { overrides: Overrides::default(), environment: true, state_directory: None, service_file: None }
    }

    /// A rotator for a configuration that is loaded already.
    pub fn new(config: Config) -> Self {
        let store = record::Store::new(&config.state_dir);
        Rotator { config: Arc::new(config), store }
    }

    /// The same rotator with another configuration; what it remembers beside the disk stays.
    pub(crate) fn with_config(&self, config: Config) -> Self {
        let same_place = config.state_dir == self.config.state_dir;
        let store = if same_place { self.store.clone() } else { record::Store::new(&config.state_dir) };
        Rotator { config: Arc::new(config), store }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Rotates every connection now; tries again for up to a minute where that can help.
    pub async fn run_once(&self) -> Report {
        let report = self.rotate(&Wish::All { since: Timestamp::now() }, None, PATIENCE).await;
        self.settle().await;
        report
    }

    /// Rotates what is due; does nothing, and asks nobody, where nothing is.
    pub async fn run_if_due(&self) -> Report {
        match self.nothing_to_do(&Wish::Due, None) {
            Some(report) => report,
            None => {
                let report = self.rotate(&Wish::Due, None, PATIENCE).await;
                self.settle().await;
                report
            }
        }
    }

    /// Stays and keeps every connection alive until `stop` is ready. Dropping it is as good: nothing is left half-written.
    pub async fn run(&self, stop: impl Future) {
        crate::daemon::run(self, stop).await;
    }

    /// A live password for a connection by its name: the published one, or a new one where that is due.
    ///
    /// # Errors
    /// The name is unknown, or there is no live credential and none can be got.
    pub async fn credential(&self, name: &str) -> Result<Credential, Failure> {
        self.credential_valid_for(name, LEAST_VALID).await
    }

    /// The same, with at least `least` of its life left.
    ///
    /// # Errors
    /// As [`Rotator::credential`]; also where even a new one does not live that long.
    pub async fn credential_valid_for(&self, name: &str, least: Duration) -> Result<Credential, Failure> {
        let index = self.index_of(name)?;
        let least = SignedDuration::try_from(least).unwrap_or(SignedDuration::MAX);
        let published = self.published(index)?;
        if let Some((standing, credential)) = published.filter(|(_, credential)| credential.left >= least) {
            return if standing.is_due() { self.renewed_or(index, credential).await } else { Ok(credential) };
        }
        let report = self.rotate(&Wish::ValidFor(least), Some(&[index]), PATIENCE).await;
        match (self.published(index)?, report.failure_of(index)) {
            (Some((_, credential)), _) if credential.left >= least => Ok(credential),
            (_, Some(failure)) => Err(failure.clone()),
            (Some((_, credential)), None) => {
                let left = credential.left.as_secs();
                Err(Failure::transient(
                    Code::TryAgain,
                    format!("the credential of {name} lives {left} s, {} s were asked for", least.as_secs()),
                )
                .hint("ask for less, or try again shortly before it is renewed"))
            }
            (None, None) => {
                Err(Failure::transient(Code::Unavailable, format!("there is no live credential for {name}")))
            }
        }
    }

    /// A new credential if one can be had within a moment, else the present one, which lives: a pool must not wait for an outage
    /// to end. After a failure nobody is asked again for a while.
    async fn renewed_or(&self, index: usize, present: Credential) -> Result<Credential, Failure> {
        let record = self.record();
        let here = self.located(&record);
        let known = record.connection(&here.config, &here.config.connections[index]);
        let failed_at = known.filter(|known| known.last_error.is_some()).and_then(|known| known.last_attempt_at);
        if failed_at.is_some_and(|at| Timestamp::now().duration_since(at).abs() < QUIET) {
            return Ok(present);
        }
        let mut retries = Retries::default();
        let only = [index];
        let round = self.round(&Wish::Due, Some(&only), &mut retries, Duration::ZERO);
        if tokio::time::timeout(MOMENT, round).await.is_err() {
            tracing::debug!("the credential is due, and could not be renewed in a moment");
        }
        Ok(self.published(index)?.map_or(present, |(_, credential)| credential))
    }

    /// Where a connection of that name stands in the configuration.
    pub(crate) fn index_of(&self, name: &str) -> Result<usize, Failure> {
        self.config.connections.iter().position(|connection| connection.name == name).ok_or_else(|| {
            let names: Vec<&str> =
                self.config.connections.iter().map(|connection| connection.name.as_str()).take(20).collect();
            Failure::permanent(Code::Configuration, format!("there is no connection named {name}"))
                .hint(format!("the connections there are: {}", names.join(", ")))
        })
    }

    /// The report, where nothing that is wished for is to be done; found without a runtime, a lock or the network.
    pub(crate) fn nothing_to_do(&self, wish: &Wish, only: Option<&[usize]>) -> Option<Report> {
        let outcomes = self.outcomes_if_none_covered(wish, &self.selected(only), true)?;
        let mut report = Report::new(&self.config);
        report.add(outcomes);
        Some(report)
    }

    /// The record as it is on disk.
    pub(crate) fn record(&self) -> Record {
        self.store.read()
    }

    /// How all connections stand now.
    pub(crate) fn standings(&self, record: &Record) -> Result<Vec<Standing>, Failure> {
        let file = self.read_password_file()?;
        Ok(due::survey(&self.located(record).config, record, &file, &clock::Reading::now()))
    }

    fn read_password_file(&self) -> Result<Contents, Failure> {
        PasswordFile::new(&self.config.password_file).read().map_err(|error| store_failure(&error))
    }

    /// What is published for one connection, if that lives.
    fn published(&self, index: usize) -> Result<Option<(Standing, Credential)>, Failure> {
        let standing = self.standings(&self.record())?.swap_remove(index);
        if standing.state == State::Missing {
            return Ok(None);
        }
        let credential = standing.token.as_ref().zip(standing.left()).map(|(token, left)| Credential {
            password: token.password.clone(),
            expires_at: token.expires_at,
            left,
            subject: token.subject.clone(),
        });
        Ok(credential.map(|credential| (standing, credential)))
    }

    /// Rounds until everything wished for is done, cannot be done, or `patience` has run out.
    pub(crate) async fn rotate(&self, wish: &Wish, only: Option<&[usize]>, patience: Duration) -> Report {
        let by_timer = matches!(wish, Wish::DueBeforeNextRun);
        let mut retries = Retries::of_a_command(patience, by_timer);
        let mut report = Report::new(&self.config);
        loop {
            let left = retries.time_left();
            let round = self.round(wish, only, &mut retries, left).await;
            report.add(round);
            let now = Timestamp::now();
            let left = retries.time_left();
            let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
            let next = report.next_try(&self.config, &retries, now).map(until);
            // A source that only repeats what is due is no failure, but the next run may be too late for it.
            let renewed = if by_timer { self.renewed_at(&report, &retries).map(until) } else { None };
            let renewed = renewed.filter(|wait| *wait < left);
            let Some(wait) = next.into_iter().chain(renewed).min() else { break };
            if wait >= left {
                report.give_up(wait);
                break;
            }
            timer::sleep(wait).await;
        }
        if by_timer {
            self.leave_to_next_run(&mut report);
        }
        report
    }

    /// When the first source that only repeated a due token will have a newer one, unless it is known to be in trouble.
    fn renewed_at(&self, report: &Report, retries: &Retries) -> Option<Timestamp> {
        let record = self.record();
        let here = self.located(&record);
        let connections = here.config.connections.iter().enumerate();
        let well = connections.filter(|(index, connection)| {
            let known = record.connection(&here.config, connection);
            report.failure_of(*index).is_none() && known.is_none_or(|known| known.last_error.is_none())
        });
        well.filter_map(|(index, _)| retries.renewed_at(index)).min()
    }

    /// A failure that may pass is none yet for what lives until the next run has had its time, and one for what does not.
    fn leave_to_next_run(&self, report: &mut Report) {
        let standings = self.standings(&self.record()).unwrap_or_default();
        if report.leave_to_next_run(|index| standings.get(index).is_some_and(Standing::outlives_next_run)) {
            tracing::info!("What is published lives long enough: the next run will try again");
        }
    }
}

fn store_failure(error: &StoreError) -> Failure {
    let kind = if matches!(error, StoreError::Unsettled { .. }) { Failure::transient } else { Failure::permanent };
    kind(Code::CannotWrite, error.to_string()).hint(error.hint())
}

/// Settings by hand: the same as the program's flags.
#[derive(Clone)]
pub struct Builder {
    overrides: Overrides,
    environment: bool,
    state_directory: Option<std::path::PathBuf>,
    service_file: Option<std::path::PathBuf>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $convert:expr;)*) => {
        $($(#[$doc])* #[must_use] pub fn $name(mut self, value: impl Into<$type>) -> Self {
            self.overrides.$name = Some($convert(value.into()));
            self
        })*
    };
}

impl Builder {
    setters! {
        /// The workspace's address.
        workspace_url: String => std::convert::identity;
        /// The client id of a service principal.
        client_id: String => std::convert::identity;
        /// Its OAuth secret.
        client_secret: String => SecretString::from;
        /// The file that holds the OAuth secret.
        client_secret_file: std::path::PathBuf => std::convert::identity;
        /// The profile of `~/.databrickscfg` to take what is missing from.
        profile: String => std::convert::identity;
        /// The PostgreSQL host.
        pg_host: String => std::convert::identity;
        /// The PostgreSQL port.
        pg_port: u16 => std::convert::identity;
        /// The PostgreSQL database; `*` for every one.
        pg_database: String => std::convert::identity;
        /// The PostgreSQL user.
        pg_username: String => std::convert::identity;
        /// The password file.
        pgpass_file: std::path::PathBuf => std::convert::identity;
        /// The configuration file.
        config: std::path::PathBuf => std::convert::identity;
    }

    /// Rotate so long after a credential was issued; whole minutes.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.overrides.interval = Some(interval.as_secs() / 60);
        self
    }

    /// Where the record and the lock are kept, instead of `$XDG_STATE_HOME/dbx-rotator`.
    #[must_use]
    pub fn state_directory(mut self, directory: impl Into<std::path::PathBuf>) -> Self {
        self.state_directory = Some(directory.into());
        self
    }

    /// libpq's connection service file, instead of what PGSERVICEFILE names or `~/.pg_service.conf`.
    #[must_use]
    pub fn service_file(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.service_file = Some(path.into());
        self
    }

    /// Take nothing from environment variables that set anything.
    #[must_use]
    pub fn without_environment(mut self) -> Self {
        self.environment = false;
        self
    }

    /// Loads the rest and makes the rotator.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn build(self) -> Result<Rotator, ConfigError> {
        let load = if self.environment { Config::load } else { Config::load_without_environment };
        let mut config = load(&self.overrides)?;
        if let Some(directory) = self.state_directory {
            config.state_dir = directory;
        }
        config.service_file = self.service_file.or(config.service_file);
        Ok(Rotator::new(config))
    }
}
