//! Sleeping on a clock that counts the machine's own sleep, with one wake-up at the end.
//!
//! Tokio's timer follows CLOCK_MONOTONIC, which stands still in suspend, and wakes up thrice for a minute's sleep.

use std::time::Duration;

/// Sleeps for `duration`, of which time in suspend is a part where the system has such a clock.
pub(crate) async fn sleep(duration: Duration) {
    #[cfg(target_os = "linux")]
    if boottime(duration).await.is_ok() {
        return;
    }
    tokio::time::sleep(duration).await;
}

#[cfg(target_os = "linux")]
async fn boottime(duration: Duration) -> std::io::Result<()> {
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    // A value of zero would disarm it (timerfd_settime(2)).
    let value = Timespec::try_from(duration.max(Duration::from_nanos(1))).map_err(std::io::Error::other)?;
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
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
        assert!(started.elapsed() >= Duration::from_millis(20));
    }
}
