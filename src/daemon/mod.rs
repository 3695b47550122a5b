//! The loop that stays and rotates.
//!
//! It never sleeps longer than [`TICK`] and then looks at the wall clock and at the password file again: a machine that wakes
//! with a stale credential, and an entry that somebody deleted, are noticed within that time.

use std::time::Duration;

use jiff::Timestamp;

use crate::os::timer;
use crate::rotation::{Retries, Rotator, Wish};

/// The longest sleep: this bounds how late it is noticed that an entry was deleted, or that a clock was set.
const TICK: Duration = Duration::from_secs(60);

/// The shortest: whatever the schedule says, the loop does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// How long another instance's rotation is waited for before looking again.
const LOCK_LIMIT: Duration = Duration::from_secs(60);

/// Rotates until `stop` is ready; ends at the next await even inside a request, with nothing half-written.
pub(crate) async fn run(rotator: &Rotator, stop: impl Future) {
    let rotating = async {
        let mut retries = Retries::default();
        loop {
            match rotator.nothing_to_do(&Wish::Due, None) {
                Some(_) => retries.forget_troubles(),
                None => drop(rotator.round(&Wish::Due, None, &mut retries, LOCK_LIMIT).await),
            }
            timer::sleep(until_next(rotator, &retries)).await;
        }
    };
    tokio::select! {
        biased;
        _ = stop => {}
        () = rotating => {}
    }
}

/// How long there is nothing to do: until the first refresh point or retry.
fn until_next(rotator: &Rotator, retries: &Retries) -> Duration {
    let now = Timestamp::now();
    let until = |at: Timestamp, from: Timestamp| Duration::try_from(at.duration_since(from)).unwrap_or_default();
    let Ok(standings) = rotator.standings(&rotator.record()) else { return TICK };
    let waits = standings.iter().enumerate().map(|(index, standing)| {
        match standing.token.as_ref().filter(|_| !standing.is_due()) {
            Some(token) => until(token.refresh_at, standing.now),
            None => rotator.next_try(index, standing, retries, now).map_or(PAUSE, |next| until(next, now)),
        }
    });
    waits.min().unwrap_or(TICK).clamp(PAUSE, TICK)
}
