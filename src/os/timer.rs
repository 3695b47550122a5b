//! Sleeps by the wall clock, with a single wake-up at the end or when the clock is set or the machine resumes.
//!
//! Tokio's timer follows a clock that stops in suspend (CLOCK_MONOTONIC, on macOS CLOCK_UPTIME_RAW), and wakes up three times in a
//! minute's sleep. Linux has a better one; elsewhere the sleep is cut into steps.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// Sleeps for `duration` by the wall clock, or until the clock is set or the machine resumes, where the system can tell.
/// The caller must read the clock afterwards.
pub(crate) async fn sleep(duration: Duration) {
    #[cfg(target_os = "linux")]
    if by_wall_clock(duration).await.is_ok() {
        return;
    }
    in_steps(duration, STEP, Timestamp::now).await;
}

/// The longest time between two looks at the clock where the system does not report jumps. A resume is noticed after the rest of a
/// step plus the system's delay: timers of background jobs may come up to 10 s late on macOS (xnu, latency_qos_ns_max in
/// osfmk/kern/timer_call.c). Both together stay within 15 s.
const STEP: Duration = Duration::from_secs(5);

/// The wall clock has jumped if it differs by this much from the clock that stops in suspend.
const JUMP: SignedDuration = SignedDuration::from_secs(1);

/// Sleeps in steps until `duration` has passed by the wall clock, or the wall clock has jumped. Each step uses a clock that stops
/// in suspend.
async fn in_steps(duration: Duration, step: Duration, wall: impl Fn() -> Timestamp) {
    let mut left = duration;
    // Each step reads the clock once: with two readings, a jump between them would be missed.
    let mut last = (wall(), Instant::now());
    while !left.is_zero() {
        tokio::time::sleep(left.min(step)).await;
        let now = (wall(), Instant::now());
        let by_wall = now.0.duration_since(last.0);
        let awake = SignedDuration::try_from(now.1.duration_since(last.1)).unwrap_or(SignedDuration::MAX);
        if by_wall.saturating_sub(awake).abs() > JUMP {
            return;
        }
        left = left.saturating_sub(Duration::try_from(by_wall).unwrap_or_default());
        last = now;
    }
}

/// A timer that is cancelled when the clock jumps, and every resume counts as a jump (TFD_TIMER_CANCEL_ON_SET,
/// timerfd_create(2)). The descriptor becomes readable both then and at the end.
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
    // Deprecated because it accepts any type that refers to a descriptor. This one owns its descriptor, and nobody closes it
    // meanwhile.
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
        // The wall clock may run a little faster than the other one.
        assert!(started.elapsed() >= Duration::from_millis(15));
    }

    /// A wall clock that jumps by `jump` at its `nth` reading from now.
    fn jumping(nth: u32, jump: SignedDuration) -> impl Fn() -> Timestamp {
        let readings = std::cell::Cell::new(0);
        move || {
            readings.set(readings.get() + 1);
            let jump = if readings.get() >= nth { jump } else { SignedDuration::ZERO };
            Timestamp::now().saturating_add(jump).unwrap()
        }
    }

    #[tokio::test]
    async fn a_machine_that_slept_or_whose_clock_was_set_wakes_the_sleeper_within_a_step() {
        let step = Duration::from_millis(20);
        for jump in [SignedDuration::from_mins(8), SignedDuration::from_secs(-90), SignedDuration::from_hours(9)] {
            for nth in [2, 3, 8] {
                let sleeping = in_steps(Duration::from_secs(600), step, jumping(nth, jump));
                tokio::time::timeout(Duration::from_secs(20), sleeping).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn without_a_jump_the_steps_add_up_to_the_whole_and_no_more() {
        let started = Instant::now();
        in_steps(Duration::from_millis(200), Duration::from_millis(15), Timestamp::now).await;
        assert!((180..20_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        assert!(STEP + Duration::from_secs(10) <= Duration::from_secs(15), "a resume must be noticed within 15 s");
    }
}
