//! How long one replacement may take for the sake of others who write to the same file.
//!
//! Invariant: every wait, and every attempt but the first, asks here whether there is time for it. So a rotation comes at most a
//! second later than without the others. Only attempts that take half a second by themselves exceed that: of those there are two.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// When everything is to be over. What is left of the second is for what nobody can foresee, such as a busy disk.
const LIMIT: Duration = Duration::from_millis(900);

/// How long we look for a gap between the edits of others. After that, what they made of the file meanwhile is displaced and carried
/// over instead, which needs the rest of the time.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many times as long an attempt takes that carries over what others wrote: it edits three files, not one.
pub(super) const CARRYING: u32 = 3;

/// What is kept back from waits in any case, for what comes after them.
const RESERVE: Duration = Duration::from_millis(100);

/// Where time comes from. Tests have their own.
pub(crate) trait Clock {
    fn now(&self) -> Instant;
    fn sleep(&self, duration: Duration);
}

/// The clock on the wall.
pub(super) struct Wall;

impl Clock for Wall {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// The time that one replacement has, with all its attempts.
pub(crate) struct Budget<'a> {
    clock: &'a dyn Clock,
    started: Instant,
    /// When the attempt of now began, since the start.
    began: Cell<Duration>,
    /// What it has spent waiting for others.
    waited: Cell<Duration>,
    /// The longest that an attempt has taken so far, not counting such waits.
    longest: Cell<Duration>,
}

impl Budget<'static> {
    /// From now on.
    pub(crate) fn start() -> Self {
        Self::by(&Wall)
    }
}

impl<'a> Budget<'a> {
    pub(super) fn by(clock: &'a dyn Clock) -> Self {
        let none = Cell::default;
        Self { clock, started: clock.now(), began: none(), waited: none(), longest: none() }
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    fn elapsed(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.started)
    }

    /// Makes an attempt, and remembers how long it took.
    pub(super) fn attempt<T>(&self, attempt: impl FnOnce() -> T) -> T {
        self.began.set(self.elapsed());
        self.waited.set(Duration::ZERO);
        let outcome = attempt();
        self.longest.set(self.longest.get().max(self.taken()));
        outcome
    }

    /// What the attempt of now has taken by itself so far.
    fn taken(&self) -> Duration {
        self.elapsed().saturating_sub(self.began.get()).saturating_sub(self.waited.get())
    }

    /// Waits for somebody else.
    pub(super) fn wait(&self, pause: Duration) {
        let began = self.elapsed();
        self.clock.sleep(pause);
        self.waited.set(self.waited.get() + self.elapsed().saturating_sub(began));
    }

    /// Until when somebody who writes may be waited for, so that this attempt can end, and another be made, in time. Nobody knows
    /// how long the first takes: then it is taken to be half done.
    pub(super) fn until(&self) -> Instant {
        let needed = (2 * self.longest.get()).max(3 * self.taken()).max(RESERVE);
        self.started + LIMIT.saturating_sub(needed)
    }

    /// Whether another attempt after this pause would end in time, if it takes so many times as long as the longest before.
    pub(super) fn has_room_after(&self, pause: Duration, times: u32) -> bool {
        self.elapsed() + pause + times * self.longest.get() <= LIMIT
    }

    /// Whether the file is to be replaced whatever others do, because there is time left for that, and for carrying over what they
    /// did, but not for more.
    pub(super) fn is_patience_over(&self) -> bool {
        let (elapsed, longest) = (self.elapsed(), self.longest.get());
        elapsed >= PATIENCE || !longest.is_zero() && elapsed + (2 + CARRYING) * longest > LIMIT
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Stands still unless somebody sleeps.
    pub(in crate::os::replace) struct Still {
        began: Instant,
        passed: Cell<Duration>,
    }

    impl Still {
        pub(in crate::os::replace) fn new() -> Self {
            Self { began: Instant::now(), passed: Cell::default() }
        }

        pub(in crate::os::replace) fn passed(&self) -> Duration {
            self.passed.get()
        }
    }

    impl Clock for Still {
        fn now(&self) -> Instant {
            self.began + self.passed.get()
        }

        fn sleep(&self, duration: Duration) {
            self.passed.set(self.passed.get() + duration);
        }
    }

    #[test]
    fn waits_leave_time_for_the_attempt_that_they_are_part_of_and_for_another() {
        let clock = Still::new();
        let budget = Budget::by(&clock);
        let until = || budget.until() - clock.began;
        assert_eq!(until(), LIMIT - RESERVE);
        budget.attempt(|| {
            clock.sleep(Duration::from_millis(100));
            assert_eq!(until(), LIMIT - Duration::from_millis(300), "another third of this, and the other");
            budget.wait(Duration::from_millis(200));
            clock.sleep(Duration::from_millis(50));
        });
        budget.attempt(|| assert_eq!(until(), LIMIT - Duration::from_millis(300), "what was waited does not count"));
        assert!(budget.has_room_after(Duration::from_millis(400), 1));
        assert!(!budget.has_room_after(Duration::from_millis(401), 1));
    }
}
