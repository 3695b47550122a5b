//! The local proxy, for programs that keep passwords: they connect here with any password or none, and the proxy logs in to PostgreSQL
//! with the credential that is live at that moment. After the login it copies bytes.
//!
//! Invariants: a credential goes to its own server only, over TLS that is verified as for our own logins; who may connect is decided by
//! the kernel's word, or by a password of the proxy's own; what comes before a login is bounded in size and time; nothing that a client
//! or a server says after the login is looked at, but for what tells that a session is idle.

mod certificate;
mod client;
mod crowd;
mod drain;
mod figures;
pub(crate) mod first;
mod forget;
mod listeners;
mod message;
mod password;
mod peer;
mod relay;
mod room;
mod scram;
mod session;
mod sessions;
mod signpost;
mod turned_away;
mod wanted;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use secrecy::SecretString;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

pub(crate) use certificate::check_certificate;
pub(crate) use certificate::remarks as remarks_on_certificate;
pub(crate) use figures::{Figures, told};
pub(crate) use forget::forget;
pub(crate) use password::path as password_path;
pub(crate) use password::remark as remark_on_password;
pub(crate) use turned_away::turn_away;

use crate::config::{Config, ConfigError};
use crate::failure::{Code, Failure};
use crate::model::User;
use crate::os::accounts;
use crate::os::activation::Listening;
use crate::os::blocking::on_a_thread;
use crate::os::heap;
use crate::os::keepalive::WatchdogKeepalive;
use crate::os::notify::{Manager, News};
use crate::os::timer;
use crate::postgres::Doors;
use crate::rotation::{PROXY, Running};
use crate::rotator::Rotator;
use crate::words;
use crowd::{Crowd, Place};
use figures::Counting;
use listeners::{Accepted, Listeners, is_of_this_machine};
use message::TOO_MANY;
use peer::{Access, Verdict};
use scram::Verifier;
use sessions::Sessions;

/// The longest time between two looks at the figures and at how long there was no session.
const TICK: Duration = Duration::from_secs(2);

/// The same while there is no session.
const IDLE_TICK: Duration = Duration::from_secs(30);

/// How many clients beyond the limit are told so at once; more are dropped without a word.
const MOST_TURNED_AWAY: usize = 100;

/// How many of those who may not use the proxy are heard at once. When one more comes, another one has to go. They take nobody's place
/// who may.
const MOST_REFUSED: usize = 32;

/// The same of those who have yet to prove that they may. More, since nobody of them is to go who proves it in time.
const MOST_UNPROVEN: usize = 100;

/// How long it rests when the system has no descriptor for another client.
const BREATH: Duration = Duration::from_millis(100);

/// What the configuration says at present. Sessions that have begun do not look at it any more.
struct Served {
    rotator: Rotator,
    access: Access,
    /// How many sessions there may be at once.
    most: usize,
    /// None where clients get no TLS.
    tls: Option<TlsAcceptor>,
    /// None where there is no port.
    own_password: Option<OwnPassword>,
}

/// The proxy's own password, and what it is checked by.
struct OwnPassword {
    password: SecretString,
    verifier: Verifier,
}

/// What all sessions share.
struct Shared {
    doors: Doors,
    sessions: Sessions,
    counting: Counting,
    password_path: PathBuf,
    /// Each session, and each that is being opened, has one more of these.
    places: Arc<()>,
    /// Whether the proxy is stopping, said again at each look.
    stopping: watch::Sender<bool>,
}

/// Reads the configuration again.
type Load<'a> = dyn Fn() -> Result<Config, ConfigError> + 'a;

/// Serves clients until `stop` is ready, and then lets busy sessions end, unless it is ready once more; or until nobody has needed it
/// for as long as is set, where whoever handed its sockets over starts it again.
///
/// # Errors
/// A socket cannot be opened, or a file that is needed not be read.
pub(crate) async fn serve(
    config: Config,
    handed_over: Vec<Listening>,
    load: &Load<'_>,
    reload: impl AsyncFnMut(),
    mut stop: impl AsyncFnMut(),
) -> Result<(), Failure> {
    let manager = Manager::of_this_process();
    let waiting = handed_over.iter().filter_map(|listening| listening.try_clone().ok()).collect();
    let mut proxy = match Proxy::open(config, handed_over, manager).await {
        Ok(proxy) => proxy,
        Err(failure) => {
            turn_away(waiting, &failure).await;
            return Err(failure);
        }
    };
    drop(waiting);
    proxy.publish().await;
    proxy.announce();
    let told_to_stop = proxy.run(load, reload, stop()).await;
    manager.tell(News::Stopping);
    if told_to_stop {
        proxy.drain(stop()).await;
    }
    proxy.shared.counting.write_news();
    Ok(())
}

struct Proxy {
    listeners: Listeners,
    served: Arc<Served>,
    shared: Arc<Shared>,
    sessions: JoinSet<()>,
    strangers: Strangers,
    manager: Manager,
    keepalive: WatchdogKeepalive,
    /// Whether the last client could be taken.
    can_accept: bool,
    /// When it last had a session.
    needed_at: Instant,
    /// How many connections had no host or user when what leads clients here was written; so large that it is written again where
    /// that has failed.
    unlocated: usize,
    /// What the machine calls the proxy's own user.
    own_name: Option<String>,
    /// Tells `status` that it runs.
    running: Running,
    /// When it told so last, by the clock that goes on while the machine sleeps.
    told_at: SystemTime,
}

impl Proxy {
    async fn open(config: Config, handed_over: Vec<Listening>, manager: Manager) -> Result<Self, Failure> {
        let listeners = Listeners::open(handed_over, &config)?;
        let state_dir = config.state_dir.clone();
        let served = Served::of(config, &listeners).await?;
        let own_name = own_name().await;
        let running = Running::mark_as(PROXY, &state_dir);
        let shared = Shared {
            doors: Doors::default(),
            sessions: Sessions::default(),
            counting: Counting::new(&state_dir),
            password_path: password_path(&state_dir),
            places: Arc::default(),
            stopping: watch::Sender::new(false),
        };
        Ok(Proxy {
            listeners,
            served: Arc::new(served),
            shared: Arc::new(shared),
            sessions: JoinSet::new(),
            strangers: Strangers::default(),
            manager,
            keepalive: WatchdogKeepalive::new(manager, IDLE_TICK),
            can_accept: true,
            needed_at: Instant::now(),
            unlocated: 0,
            own_name,
            running,
            told_at: SystemTime::now(),
        })
    }

    fn config(&self) -> &Config {
        self.served.rotator.config()
    }

    fn announce(&self) {
        self.say_where();
        self.manager.tell(News::Ready(&self.status()));
        self.shared.counting.write_news();
    }

    fn say_where(&self) {
        let names = self.listeners.names();
        if names.is_empty() {
            tracing::error!("nobody can connect to this proxy any more: it has neither a socket nor a port");
        } else {
            tracing::info!("Serving {} at {}", of_connections(self.config()), names.join(", "));
        }
        for address in self.listeners.ports().filter(|address| !is_of_this_machine(address.ip())) {
            if self.served.tls.is_none() {
                tracing::warn!(
                    "clients on other machines can reach {address}, and what they ask and get is not encrypted: set proxy_tls"
                );
            }
        }
    }

    fn status(&self) -> String {
        words::count(self.shared.counting.sessions(), "session")
    }

    /// Returns whether it was told to stop; else nobody has needed it.
    async fn run(&mut self, load: &Load<'_>, mut reload: impl AsyncFnMut(), stop: impl Future) -> bool {
        tokio::pin!(stop);
        let mut told = self.status();
        let mut looked = Instant::now();
        loop {
            self.comes_round();
            let tick = self.tick();
            // Here, where it cannot be put off by clients that come and go.
            if looked.elapsed() >= tick {
                self.look(&mut told).await;
                looked = Instant::now();
            }
            let pause = tick.saturating_sub(looked.elapsed()).min(self.keepalive.pace());
            let pause = self.left_until_idle().map_or(pause, |left| left.min(pause));
            tokio::select! {
                biased;
                _ = &mut stop => return true,
                () = reload() => self.reload(load).await,
                Some(_) = self.sessions.join_next() => {
                    self.needed_at = Instant::now();
                }
                accepted = self.listeners.accept() => if let Some(accepted) = self.taken(accepted).await {
                    self.admit(accepted).await;
                },
                () = timer::sleep(pause) => {
                    if self.left_until_idle().is_some_and(|left| left.is_zero()) {
                        tracing::info!("Nobody has needed the proxy for a while: it ends until a client comes");
                        return false;
                    }
                }
            }
        }
    }

    fn comes_round(&mut self) {
        self.keepalive.ping();
        // Not with each client that comes and goes: it is written to a file.
        if self.told_at.elapsed().is_ok_and(|since| since < self.keepalive.pace()) {
            return;
        }
        self.running.beat();
        self.told_at = SystemTime::now();
    }

    /// The longest time from one look to the next.
    fn tick(&self) -> Duration {
        let is_idle = self.sessions.is_empty() && !self.shared.counting.is_news() && self.unlocated != signpost::LATER;
        if is_idle { IDLE_TICK } else { TICK }
    }

    /// Tells how many sessions there are, and what else is new.
    async fn look(&mut self, told: &mut String) {
        self.tell(told, self.status());
        self.strangers.look();
        // Sessions look whether a side was lost.
        self.shared.stopping.send_replace(false);
        self.publish_news().await;
        if self.sessions.is_empty() {
            heap::give_back();
        }
    }

    fn tell(&self, told: &mut String, status: String) {
        if status != *told {
            self.manager.tell(News::Status(&status));
            *told = status;
        }
        self.shared.counting.write_news();
    }

    /// How long it stays if no client comes; none where it stays for ever.
    fn left_until_idle(&self) -> Option<Duration> {
        let timeout = self.config().local_proxy.idle_timeout?;
        let may_end = self.listeners.are_handed_over && !self.listeners.has_own() && self.sessions.is_empty();
        may_end.then(|| timeout.saturating_sub(self.needed_at.elapsed()))
    }

    /// The client that was accepted, if one was.
    async fn taken(&mut self, accepted: io::Result<Accepted>) -> Option<Accepted> {
        match accepted {
            Ok(accepted) => {
                self.can_accept = true;
                return Some(accepted);
            }
            // A client that has gone already, as macOS tells it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if std::mem::replace(&mut self.can_accept, false) {
                    tracing::warn!("no more clients can be served now: {}", words::of_io(&error));
                }
                timer::sleep(BREATH).await;
            }
        }
        None
    }

    async fn admit(&mut self, accepted: Accepted) {
        let most = self.served.most;
        let count = self.sessions.len().saturating_sub(self.strangers.count());
        if count >= most + MOST_TURNED_AWAY {
            self.shared.counting.refused(TOO_MANY);
            return;
        }
        self.needed_at = Instant::now();
        let verdict = self.served.access.verdict(accepted.peer);
        let (shared, served, sessions) = (Arc::clone(&self.shared), Arc::clone(&self.served), &mut self.sessions);
        let serve = |stranger| sessions.spawn(session::serve(shared, served, accepted, stranger));
        let had_one_to_go = match verdict {
            Verdict::Welcome => {
                serve(None);
                return;
            }
            Verdict::Refused(_) => self.strangers.refused.add(MOST_REFUSED, |place| serve(Some(place))),
            Verdict::NeedsPassword => self.strangers.unproven.add(MOST_UNPROVEN, |place| serve(Some(place))),
        };
        if had_one_to_go {
            self.shared.counting.refused(TOO_MANY);
            self.strangers.has_left(verdict);
            // Those who are left are heard before the next one comes.
            tokio::task::yield_now().await;
        }
    }

    /// Reads the configuration again. Sessions go on.
    async fn reload(&mut self, load: &Load<'_>) {
        self.manager.tell(News::Reloading);
        let followed = match load() {
            Ok(config) => self.follow(config).await.map_err(|failure| failure.sentence()),
            Err(error) => Err(error.sentence()),
        };
        match followed {
            Ok(()) => {
                self.publish().await;
                self.say_where();
            }
            Err(why) => {
                tracing::error!("the old configuration stays in use, since the new one cannot be: {why}");
            }
        }
        self.manager.tell(News::Ready(&self.status()));
        self.shared.counting.write_news();
    }

    async fn follow(&mut self, config: Config) -> Result<(), Failure> {
        let served = Served::of(config, &self.listeners).await?;
        // Nobody loses access for that.
        if !served.access.is_whole {
            let message = "the directory service has not said who the users of proxy_allow are";
            return Err(Failure::transient(Code::Unavailable, message).hint("reload the proxy once it answers"));
        }
        if self.own_name.is_none() {
            self.own_name = own_name().await;
        }
        self.listeners.follow(served.rotator.config())?;
        served.rotator.follow(&self.served.rotator);
        self.served = Arc::new(served);
        Ok(())
    }
}

/// Clients that have no session and perhaps may have none: each holds its place until it is known to be welcome, or has gone.
#[derive(Default)]
struct Strangers {
    refused: Crowd,
    unproven: Crowd,
    /// Whether it was said that there are too many.
    is_told: bool,
}

/// The place of one; none of who is known to be welcome.
type Stranger = Option<Arc<Place>>;

impl Strangers {
    fn count(&mut self) -> usize {
        self.refused.len() + self.unproven.len()
    }

    /// One had to go for another.
    fn has_left(&mut self, verdict: Verdict) {
        if verdict == Verdict::NeedsPassword && !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(
                "{MOST_UNPROVEN} clients have yet to prove that they may use the proxy: for each one that comes another one is dropped, first \
                 those that say nothing"
            );
        }
    }

    fn look(&mut self) {
        self.is_told &= self.unproven.len() > MOST_UNPROVEN / 2;
    }
}

impl Served {
    async fn of(config: Config, listeners: &Listeners) -> Result<Self, Failure> {
        let most = room::make(config.local_proxy.max_sessions, MOST_TURNED_AWAY + MOST_REFUSED + MOST_UNPROVEN);
        let (access, mut remarks) = access(&config).await?;
        let tls = certificate::acceptor(&config)?;
        remarks.extend(certificate::remarks(&config));
        let own_password = own_password(&config, listeners)?;
        remarks.extend(password::remark(&config.state_dir));
        for remark in remarks {
            tracing::warn!("{remark}");
        }
        Ok(Served { rotator: Rotator::new(config), access, most, tls, own_password })
    }
}

/// What the machine calls the user that the proxy runs as, as far as it is known.
async fn own_name() -> Option<String> {
    let uid = rustix::process::geteuid().as_raw();
    let account = match accounts::listed(uid) {
        Some(account) => Some(account),
        None => beside(move || accounts::of_uid(uid)).await.ok()?,
    };
    Some(account?.name)
}

/// Who may use the proxy, and what is to be said of them.
async fn access(config: &Config) -> Result<(Access, Vec<String>), Failure> {
    let (own, users) = (rustix::process::geteuid().as_raw(), config.local_proxy.allow.clone());
    let are_named = users.iter().any(|user| matches!(user, User::Name(_)));
    let access = move || Access::new(own, &users);
    if are_named { beside(access).await } else { Ok(access()) }
}

/// Asks a directory service, which may take its time, beside the sessions.
async fn beside<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    on_a_thread(ask).await.map_err(|error| {
        let what = format!("the users of this machine cannot be looked up: {}", words::of_io(&error));
        Failure::transient(Code::Unavailable, what)
    })
}

/// The proxy's own password, where there are ports.
fn own_password(config: &Config, listeners: &Listeners) -> Result<Option<OwnPassword>, Failure> {
    let has_ports =
        listeners.ports().next().is_some() || config.connections.iter().any(|one| one.proxied.port.is_some());
    if !has_ports {
        return Ok(None);
    }
    let made = || {
        let password = password::kept(&config.state_dir)?;
        let mut salt = [0; 16];
        password::random(&mut salt)?;
        io::Result::Ok(OwnPassword { verifier: Verifier::of(&password, salt), password })
    };
    made().map(Some).map_err(|error| {
        let path = password_path(&config.state_dir);
        Failure::permanent(
            Code::CannotWrite,
            format!("the proxy's own password cannot be kept in {}: {}", path.display(), words::of_io(&error)),
        )
        .hint("check who owns the file and its directory")
    })
}

fn of_connections(config: &Config) -> String {
    words::count(config.connections.len(), "connection")
}
