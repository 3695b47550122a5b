//! The library's face.
//!
//! All work is done on the rotator's own thread, which starts with the first call: blocking file operations never hold up the
//! caller's executor, and work that has started goes on when a caller stops waiting.

mod renewal;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use crate::config::{Config, ConfigError, Overrides};
use crate::failure::Failure;
use crate::model::Connection;
use crate::rotation::{PATIENCE, Report, RotateRequest, Rotation};
use renewal::Renewals;
use worker::Worker;

/// A credential with less than this left may expire before it is used.
pub(crate) const LEAST_VALID: Duration = Duration::from_secs(30);

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
    rotation: Rotation,
    renewals: Arc<Renewals>,
    worker: Arc<Worker>,
}

/// A live password, when it expires, and which identity it was issued to.
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

    /// When it expires, by the workspace's clock. The server checks this only at login: open sessions stay open.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// How long it was still valid when it was handed out, corrected for errors of the machine's clock.
    pub fn valid_for(&self) -> Duration {
        Duration::try_from(self.left).unwrap_or_default()
    }

    /// The identity that it was issued to, if the token says so.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }
}

impl Rotator {
    /// Starts a configuration in code. What is not set comes from the environment and the files, as for the program.
    pub fn builder() -> Builder {
        Builder { overrides: Overrides::default(), environment: true, state_directory: None, service_file: None }
    }

    /// A rotator for a configuration that is already loaded.
    pub fn new(config: Config) -> Self {
        Rotator { rotation: Rotation::new(config), renewals: Arc::default(), worker: Arc::default() }
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        self.rotation.config()
    }

    /// How many connections have no host or no user yet.
    #[cfg(feature = "cli")]
    pub(crate) fn unlocated(&self) -> usize {
        self.rotation.unlocated()
    }

    /// Rotates every connection now, with retries for up to a minute if they can help. Goes on if the future is
    /// dropped.
    pub async fn run_once(&self) -> Report {
        self.rotate(RotateRequest::All { since: Timestamp::now() }).await
    }

    /// Rotates what is due; if nothing is, it does nothing and sends no request. Goes on if the future is dropped.
    pub async fn run_if_due(&self) -> Report {
        self.rotate(RotateRequest::Due).await
    }

    async fn rotate(&self, request: RotateRequest) -> Report {
        let rotation = self.rotation.for_a_command();
        let work = async move {
            if matches!(request, RotateRequest::Due)
                && let Some(report) = rotation.nothing_to_do(&request, None)
            {
                return report;
            }
            let report = rotation.rotate(&request, None, PATIENCE).await;
            rotation.settle(&request).await;
            report
        };
        match self.worker.run(work).await {
            Ok(report) => report,
            Err(failure) => Report::of_failure(self.config(), &failure),
        }
    }

    /// Keeps every connection alive until `stop` is ready. Dropping the future stops it too: nothing is left half-written.
    pub async fn run(&self, stop: impl Future) {
        let (running, dropped) = tokio::sync::oneshot::channel::<()>();
        let rotation = self.rotation.for_a_command();
        let work = async move { crate::daemon::run(&rotation, dropped).await };
        let daemon = self.worker.run(work);
        tokio::pin!(daemon, stop);
        tokio::select! {
            biased;
            _ = &mut stop => {
                drop(running);
                // It may have something to give back.
                let _ = daemon.await;
            }
            ended = &mut daemon => {
                if let Err(failure) = ended {
                    tracing::error!("{failure}");
                }
                // The daemon has ended with a failure, but the caller expects to wait for `stop`.
                stop.await;
            }
        }
    }

    /// A live password for the connection with this name: the published one, or a new one if that is due.
    ///
    /// Any number of simultaneous calls share one renewal. If the published credential is still live, nobody waits for the new one
    /// for longer than 2 s after the renewal began.
    ///
    /// # Errors
    /// The name is unknown, or there is no live credential and a new one cannot be obtained.
    pub async fn credential(&self, name: &str) -> Result<Credential, Failure> {
        self.credential_valid_for(name, LEAST_VALID).await
    }

    /// The same, with at least `least` of its life left.
    ///
    /// # Errors
    /// As [`Rotator::credential`]; also if even a new one does not live that long.
    pub async fn credential_valid_for(&self, name: &str, least: Duration) -> Result<Credential, Failure> {
        let index = self.rotation.index_of(name)?;
        let least = SignedDuration::try_from(least).unwrap_or(SignedDuration::MAX);
        let (rotation, renewals) = (self.rotation.for_a_command(), Arc::clone(&self.renewals));
        let login = async move { renewal::login(&rotation, &renewals, index, least).await };
        Ok(self.worker.run(login).await??.credential)
    }
}

/// A live password, and the connection that it is for, with its host and its user.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) credential: Credential,
    pub(crate) connection: Connection,
}

/// What the proxy asks for.
impl Rotator {
    /// As [`Rotator::credential`], for the connection at this place of the configuration.
    pub(crate) async fn login(&self, index: usize) -> Result<Login, Failure> {
        let (rotation, renewals) = (self.rotation.for_a_command(), Arc::clone(&self.renewals));
        self.worker.run(async move { renewal::login_of_many(&rotation, &renewals, index).await }).await?
    }

    /// Goes on from one with an earlier configuration: what PostgreSQL has refused there a moment ago leads to nothing new here.
    pub(crate) fn follow(&self, earlier: &Rotator) {
        for (index, at) in earlier.renewals.refusals().iter() {
            if let Ok(index) = self.rotation.index_of(&earlier.config().connections[*index].name) {
                self.renewals.refusals().insert(index, *at);
            }
        }
    }

    /// Another one than PostgreSQL has refused: what was published since, or a new one. None where a refusal has led to a new one a
    /// moment ago already: then it is not the credential.
    pub(crate) async fn login_instead_of(&self, index: usize, refused: Login) -> Result<Option<Login>, Failure> {
        let (rotation, renewals) = (self.rotation.for_a_command(), Arc::clone(&self.renewals));
        self.worker.run(async move { renewal::login_instead_of(&rotation, &renewals, index, &refused).await }).await?
    }
}

/// As [`Rotator::credential_valid_for`], on the caller's runtime: for a command that asks only once.
pub(crate) async fn credential_now(rotation: &Rotation, name: &str, least: Duration) -> Result<Credential, Failure> {
    let index = rotation.index_of(name)?;
    let least = SignedDuration::try_from(least).unwrap_or(SignedDuration::MAX);
    Ok(renewal::login(rotation, &Arc::default(), index, least).await?.credential)
}

/// Settings in code, the same as the program's flags.
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
        /// The profile of `~/.databrickscfg` that supplies missing settings.
        profile: String => std::convert::identity;
        /// The PostgreSQL host.
        pg_host: String => std::convert::identity;
        /// The PostgreSQL port.
        pg_port: u16 => std::convert::identity;
        /// The PostgreSQL database; `*` for every one.
        pg_database: String => std::convert::identity;
        /// The PostgreSQL user.
        pg_username: String => std::convert::identity;
        /// The configuration file.
        config: std::path::PathBuf => std::convert::identity;
    }

    /// The password file; called again, it adds another one that holds the same.
    #[must_use]
    pub fn pgpass_file(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.overrides.pgpass_file.push(path.into());
        self
    }

    /// The user is a role that other identities may log in as.
    #[must_use]
    pub fn any_identity(mut self) -> Self {
        self.overrides.any_identity = true;
        self
    }

    /// Rotate so long after a credential was issued: 1 minute to 24 hours.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.overrides.interval = Some(interval);
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

    /// Ignores all environment variables that are settings.
    #[must_use]
    pub fn without_environment(mut self) -> Self {
        self.environment = false;
        self
    }

    /// Loads the other settings and makes the rotator.
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
