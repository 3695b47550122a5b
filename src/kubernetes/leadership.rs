//! Keeps the Lease, or waits for it, for as long as the process runs; and tells the others whether this replica writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;

use super::api::ApiServer;
use super::election::{Election, LOOK, RENEW, RENEWED_WITHIN, Verdict};
use super::lease::{Changed, Lease, Leases};
use crate::failure::Failure;
use crate::foreign::quoted;
use crate::model::{Cluster, ObjectName};
use crate::os::clock::Moment;
use crate::os::dirs::Environment;

/// How soon it is tried again after a failure, at first and at most.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);

/// The longest wait that the API server can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// How long the Lease may take to be given back: whoever stops this process does not wait long.
const LAST: Duration = Duration::from_millis(800);

/// How this replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The first answer is still awaited.
    Unknown,
    /// It holds the Lease.
    Ours,
    /// Another one does.
    Others(String),
    /// Nobody is known to, since the API does not answer, or not well.
    Nobodys(Failure),
}

/// The Lease of this process, given back by [`Leadership::release`].
pub(crate) struct Leadership {
    name: ObjectName,
    standing: watch::Receiver<Standing>,
    held: Held,
    candidate: Arc<Mutex<Candidate>>,
    task: AbortHandle,
}

/// Until when the Lease is held, in milliseconds since boot.
#[derive(Clone, Default)]
struct Held(Arc<AtomicU64>);

struct Candidate {
    api: ApiServer,
    name: ObjectName,
    election: Election,
    /// As it was read or written last.
    lease: Option<Lease>,
    held: Held,
    failures: u32,
}

impl Leadership {
    /// Begins to try. Call it within a runtime.
    ///
    /// # Errors
    /// Permanent: this is no pod.
    pub(crate) fn start(name: &ObjectName, cluster: &Cluster, environment: &Environment) -> Result<Self, Failure> {
        let api = ApiServer::of(cluster, environment)?;
        let held = Held::default();
        let (sender, standing) = watch::channel(Standing::Unknown);
        let election = Election::new(identity());
        let candidate = Candidate { api, name: name.clone(), election, lease: None, held: held.clone(), failures: 0 };
        let candidate = Arc::new(Mutex::new(candidate));
        let task = tokio::spawn(keep(Arc::clone(&candidate), sender)).abort_handle();
        Ok(Leadership { name: name.clone(), standing, held, candidate, task })
    }

    pub(crate) fn name(&self) -> &ObjectName {
        &self.name
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// How long this replica may write; none if it may not.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.held.left()
    }

    /// Waits until it stands otherwise than `known`.
    pub(crate) async fn changes(&self, known: &Standing) {
        if self.standing.clone().wait_for(|standing| standing != known).await.is_err() {
            std::future::pending().await
        }
    }

    /// Gives the Lease back, so that another replica need not wait for its end. Nothing may be written any more when this is called.
    pub(crate) async fn release(&self) {
        self.task.abort();
        if self.held.left().is_none() {
            return;
        }
        self.held.end();
        let release = async {
            let candidate = self.candidate.lock().await;
            candidate.release().await
        };
        match tokio::time::timeout(LAST, release).await {
            Ok(Ok(())) => tracing::info!("Gave back the Lease {}", self.name),
            Ok(Err(failure)) => tracing::warn!("{failure}; another replica takes the Lease over when it ends"),
            Err(_) => tracing::warn!("The Lease {} could not be given back in time: it ends by itself", self.name),
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Held {
    fn left(&self) -> Option<Duration> {
        let until = Duration::from_millis(self.0.load(Ordering::Relaxed));
        until.checked_sub(since_boot()).filter(|left| !left.is_zero())
    }

    fn until(&self, end: Duration) {
        self.0.store(u64::try_from(end.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A suspended replica must not go on as if no time had passed.
fn since_boot() -> Duration {
    Moment::now().since_boot
}

/// The pod's name, and something that another process in it does not have.
fn identity() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{name}_{:08x}", fastrand::u32(..))
}

async fn keep(candidate: Arc<Mutex<Candidate>>, standing: watch::Sender<Standing>) {
    loop {
        let pause = {
            let mut candidate = candidate.lock().await;
            let before = standing.borrow().clone();
            let (now, pause) = candidate.round(&before).await;
            standing.send_if_modified(|known| {
                let is_news = *known != now;
                if is_news {
                    say(&candidate.name, known, &now);
                    *known = now;
                }
                is_news
            });
            pause
        };
        tokio::time::sleep(pause).await;
    }
}

fn say(name: &ObjectName, before: &Standing, now: &Standing) {
    let lost = *before == Standing::Ours;
    match now {
        Standing::Ours => tracing::info!("This replica writes from now on: it holds the Lease {name}"),
        Standing::Others(holder) if lost => {
            tracing::warn!("Lost the Lease {name} to {holder}: this replica stands by");
        }
        Standing::Others(holder) => tracing::info!("This replica stands by: {holder} holds the Lease {name}"),
        Standing::Nobodys(failure) => {
            let what = if lost { "Lost the Lease" } else { "cannot take the Lease" };
            tracing::error!("{what} {name}, so that no Secret is written: {}", failure.sentence());
        }
        Standing::Unknown => {}
    }
}

impl Candidate {
    /// Takes or renews the Lease, or looks who has it. Returns how this replica stands, and when to do so again.
    async fn round(&mut self, before: &Standing) -> (Standing, Duration) {
        match self.try_once().await {
            Ok(None) => {
                self.failures = 0;
                (Standing::Ours, RENEW)
            }
            Ok(Some((holder, wait))) => {
                self.failures = 0;
                self.held.end();
                (Standing::Others(quoted(&holder)), wait)
            }
            Err(failure) => {
                let pause = self.pause_after(&failure);
                let standing = match before {
                    // It is held until it has not been renewed for too long.
                    Standing::Ours => match self.held.left() {
                        Some(left) => return (Standing::Ours, pause.min(left)),
                        None => Standing::Nobodys(failure),
                    },
                    // Who holds it may go on to do so.
                    Standing::Others(holder) => Standing::Others(holder.clone()),
                    // The same trouble is not news, though it may be told in other words.
                    Standing::Nobodys(known) if known.code == failure.code => Standing::Nobodys(known.clone()),
                    Standing::Unknown | Standing::Nobodys(_) => Standing::Nobodys(failure),
                };
                (standing, pause)
            }
        }
    }

    fn pause_after(&mut self, failure: &Failure) -> Duration {
        let grown = FIRST.saturating_mul(1 << self.failures.min(4)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let jittered = grown.mul_f64(0.5 + fastrand::f64() / 2.0);
        let asked = failure.retry_after.unwrap_or_default().min(LONGEST_ASKED);
        jittered.max(asked)
    }

    /// None if it is ours now; else who has it, and when to look again.
    async fn try_once(&mut self) -> Result<Option<(String, Duration)>, Failure> {
        let namespace = self.api.namespace_of(&self.name)?;
        let leases = Leases { api: &self.api, namespace: &namespace, name: &self.name.name };
        let me = self.election.me.clone();
        // Counted from before the request: when it arrives is not known.
        let began = since_boot();
        if self.held.left().is_some()
            && let Some(lease) = self.lease.take()
            && let Changed::Done(renewed) = leases.change(&lease, Some(&me)).await?
        {
            self.lease = Some(renewed);
            self.held.until(began.saturating_add(RENEWED_WITHIN));
            return Ok(None);
        }
        let found = leases.read().await?;
        if let Some(lease) = &found {
            let seen = lease.seen();
            let holder = seen.holder.clone();
            if let Verdict::Wait(wait) = self.election.judge(seen, since_boot()) {
                let look = LOOK.mul_f64(0.8 + fastrand::f64() / 5.0);
                return Ok(Some((holder, wait.min(look))));
            }
        }
        let began = since_boot();
        let changed = match &found {
            Some(lease) => leases.change(lease, Some(&me)).await?,
            None => leases.create(&me).await?,
        };
        Ok(match changed {
            Changed::Done(lease) => {
                self.lease = Some(lease);
                self.held.until(began.saturating_add(RENEWED_WITHIN));
                None
            }
            Changed::Overtaken => Some(("another replica".to_owned(), FIRST.mul_f64(fastrand::f64()))),
        })
    }

    async fn release(&self) -> Result<(), Failure> {
        let namespace = self.api.namespace_of(&self.name)?;
        let leases = Leases { api: &self.api, namespace: &namespace, name: &self.name.name };
        // A renewal may just have been under way, and come through between the two.
        while let Some(lease) = leases.read().await?.filter(|lease| lease.seen().holder == self.election.me) {
            if let Changed::Done(_) = leases.change(&lease, None).await? {
                break;
            }
        }
        Ok(())
    }
}
