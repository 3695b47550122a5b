//! Shows that a loop is alive: to the service manager if it watches, else to a watchdog of our own.
//!
//! Invariant: it pings only when the loop comes round, or during a look, and then no longer than a look can rightly
//! take.

use std::time::Duration;

use super::notify::Manager;
use super::timer;
use super::watchdog::{self, Watchdog};
use crate::words;

/// Longer than one look can rightly take: a minute for the lock, and the files. A look does not wait for requests.
const LONGEST_STEP: Duration = Duration::from_secs(90);

/// The shortest watchdog timeout that the loop can meet: it pings at most once in each half of this.
const LEAST_PATIENCE: Duration = Duration::from_millis(100);

/// Where the pings go.
pub(crate) struct WatchdogKeepalive {
    manager: Manager,
    own: Option<Watchdog>,
    /// The longest time between two pings.
    pace: Duration,
}

impl WatchdogKeepalive {
    /// Pings that go nowhere: an application that embeds the loop watches itself.
    pub(crate) fn unheard(tick: Duration) -> Self {
        WatchdogKeepalive { manager: Manager::NONE, own: None, pace: tick }
    }

    /// Pings to the service manager, else to a watchdog of our own.
    pub(crate) fn new(manager: Manager, tick: Duration) -> Self {
        let pace = |patience: Duration| tick.min(patience.max(LEAST_PATIENCE) / 2);
        let asked_for = manager.patience().or(manager.unheard_patience());
        if let Some(patience) = asked_for.filter(|patience| *patience < LEAST_PATIENCE) {
            tracing::warn!("a watchdog of {patience:?} is too short for any program: give WatchdogSec= some seconds");
        }
        if let Some(patience) = manager.patience() {
            return WatchdogKeepalive { manager, own: None, pace: pace(patience) };
        }
        let patience = manager.unheard_patience().filter(|patience| *patience >= LEAST_PATIENCE);
        let patience = patience.unwrap_or(watchdog::PATIENCE);
        let own = Watchdog::start(patience)
            .inspect_err(|error| tracing::warn!("nobody watches whether this program hangs: {}", words::of_io(error)))
            .ok();
        WatchdogKeepalive { manager, own, pace: pace(patience) }
    }

    /// The longest that the loop may sleep.
    pub(crate) fn pace(&self) -> Duration {
        self.pace
    }

    /// The loop has come round.
    pub(crate) fn ping(&self) {
        self.manager.ping();
        if let Some(own) = &self.own {
            own.beat();
        }
    }

    /// Awaits `work`, which waits for another instance or for files. Pings and calls `each` meanwhile, but no longer than `work`
    /// may rightly take; after that it only waits, and the watchdog fires.
    pub(crate) async fn ping_during<T>(&self, work: impl Future<Output = T>, each: impl Fn()) -> T {
        let pinging = async {
            let mut left = LONGEST_STEP;
            while !left.is_zero() {
                self.ping();
                each();
                timer::sleep(self.pace).await;
                left = left.saturating_sub(self.pace);
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            result = work => result,
            () = pinging => std::future::pending().await,
        }
    }
}
