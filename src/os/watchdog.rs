//! Our own watchdog, for where no service manager watches (launchd, a terminal): a thread that ends the process when the loop
//! that rotates has not come round for too long. Whoever started the process starts it again.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A loop that has not come round for this long is hung: three times the longest that it sleeps.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3 * 60);

/// The thread calls nothing but the system, so the smallest stack will do.
const STACK: usize = 64 * 1024;

/// The loop's side of the watchdog.
#[derive(Clone, Debug)]
pub(crate) struct Watchdog {
    started: Instant,
    /// When the loop last came round, in milliseconds after `started`.
    last: Arc<AtomicU64>,
}

impl Watchdog {
    /// Starts the thread. The process ends once `patience` passes without a [`Watchdog::beat`]. Time in suspend does not count
    /// for it, nor for the loop (`Instant`).
    pub(crate) fn start(patience: Duration) -> std::io::Result<Self> {
        Self::start_with(patience, end_this_process)
    }

    fn start_with(patience: Duration, hung: impl FnOnce(Duration) + Send + 'static) -> std::io::Result<Self> {
        let watchdog = Watchdog { started: Instant::now(), last: Arc::default() };
        let watched = watchdog.clone();
        std::thread::Builder::new().name("watchdog".to_owned()).stack_size(STACK).spawn(move || {
            loop {
                let since = watched.since_last_beat();
                let Some(left) = patience.checked_sub(since).filter(|left| !left.is_zero()) else { break hung(since) };
                let before = Instant::now();
                std::thread::sleep(left);
                // This thread was not running either (a stopped process, a frozen container): the loop gets its full time again.
                if before.elapsed() > left + patience / 2 {
                    watched.beat();
                }
            }
        })?;
        Ok(watchdog)
    }

    /// The loop has come round.
    pub(crate) fn beat(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn since_last_beat(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

/// Does not use the log, since the loop may hang in it.
fn end_this_process(since: Duration) {
    let said = format!("error: the loop that rotates has hung for {} s: ended, to be started again\n", since.as_secs());
    // Never block on stderr: a full pipe must not keep a hung process alive.
    let _ = rustix::io::ioctl_fionbio(std::io::stderr(), true);
    let _ = std::io::stderr().write_all(said.as_bytes());
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_loop_that_beats_lives_and_one_that_stops_is_ended() {
        let (ended, end) = mpsc::channel();
        let patience = Duration::from_secs(3);
        let watchdog = Watchdog::start_with(patience, move |since| ended.send(since).unwrap()).unwrap();
        let started = Instant::now();
        while started.elapsed() < patience.mul_f64(1.5) {
            watchdog.beat();
            assert!(end.recv_timeout(Duration::from_millis(50)).is_err(), "it beats");
        }
        assert!(end.recv_timeout(Duration::from_secs(20)).unwrap() >= patience);
    }
}
