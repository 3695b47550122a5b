//! Sleeping by the wall clock, with one wake-up at the end, and one when the clock is set or the machine wakes up.
//!
//! Tokio's timer follows CLOCK_MONOTONIC, which stands still in suspend, and wakes up thrice for a minute's sleep.

use std::time::Duration;

/// Sleeps for `duration` by the wall clock, or until that is set or the machine comes back from suspend, where the system
/// can tell. Whoever sleeps looks at the clock afterwards.
pub(crate) async fn sleep(duration: Duration) {
    #[cfg(target_os = "linux")]
    if by_wall_clock(duration).await.is_ok() {
        return;
    }
    tokio::time::sleep(duration).await;
}

/// A timer that is cancelled when the clock jumps, and every resume counts as a jump (TFD_TIMER_CANCEL_ON_SET,
/// timerfd_create(2)): both make its descriptor readable.
#[cfg(target_os = "linux")]
async fn by_wall_clock(duration: Duration) -> std::io::Result<()> {
    use rustix::time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    let end = Timespec::try_from(duration)
        .ok()
        .and_then(|length| clock_gettime(ClockId::Realtime).checked_add(length))
        .ok_or_else(|| std::io::Error::other("too long a sleep"))?;
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: end };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &once)?;
    // Deprecated since it takes any type that names a descriptor; this one owns its descriptor, and nobody closes it meanwhile.
    #[allow(deprecated, reason = "its successor is an unsafe function, and there is nothing unsafe about an OwnedFd")]
    let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
    timer.readable().await?.retain_ready();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleep_ends_and_even_none_at_all_does() {
        let started = std::time::Instant::now();
        sleep(Duration::from_millis(20)).await;
        sleep(Duration::ZERO).await;
        // The wall clock may run a little faster than the other.
        assert!(started.elapsed() >= Duration::from_millis(15));
    }
}
