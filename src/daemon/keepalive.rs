//! The loop's sign of life, from the loop itself: to the service manager where that watches, else to a watchdog of our own.
//!
//! Invariant: it pings only when the loop comes round, or while a look takes no longer than it rightly can.

use std::time::Duration;

use crate::os::notify::Manager;
use crate::os::timer;
use crate::os::watchdog::{self, Watchdog};
use crate::words;

/// Longer than one look can rightly take: a minute for the lock, and the files. Requests are not waited for in it.
const LONGEST_STEP: Duration = Duration::from_secs(90);

/// The least patience that a loop can live up to: it beats no more often than each half of this.
const LEAST_PATIENCE: Duration = Duration::from_millis(100);

/// Where the beats go.
pub(super) struct WatchdogKeepalive {
    manager: Manager,
    own: Option<Watchdog>,
    /// The longest time between two beats.
    pace: Duration,
}

impl WatchdogKeepalive {
    /// A keepalive that nobody hears: an application that embeds the loop watches itself.
    pub(super) fn unheard(tick: Duration) -> Self {
        WatchdogKeepalive { manager: Manager::NONE, own: None, pace: tick }
    }

    /// A keepalive that the service manager hears, else a watchdog of our own.
    pub(super) fn new(manager: Manager, tick: Duration) -> Self {
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
    pub(super) fn pace(&self) -> Duration {
        self.pace
    }

    /// The loop has come round.
    pub(super) fn ping(&self) {
        self.manager.ping();
        if let Some(own) = &self.own {
            own.beat();
        }
    }

    /// Waits for another instance or for files, at most as long as `work` may rightly take, pinging meanwhile with `each`; goes on
    /// waiting in silence for one that takes too long.
    pub(super) async fn ping_during<T>(&self, work: impl Future<Output = T>, each: impl Fn()) -> T {
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
