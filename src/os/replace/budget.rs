//! How long replacing files may take for the sake of others who write to the same files.
//!
//! Invariant: every wait, and every attempt but the first of a file, asks here whether there is time for it. So a command, or a round
//! of the daemon, comes at most a second later than without the others, whatever number of files it replaces ([`Allowance`]). Only
//! attempts that take half a second by themselves exceed that: of those there are two. A file that cannot be exchanged is tried twice
//! in any case.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What others may cost in all. What is left of the second is for what nobody can foresee, such as a busy disk.
pub(super) const LIMIT: Duration = Duration::from_millis(900);

/// What one file may have of that which is left. The rest is for the next, which is not to go without.
const SHARE: f64 = 0.75;

/// With less than this, a file is not worth looking for a gap.
const LITTLE: Duration = Duration::from_millis(200);

/// For what part of its time we look for a gap between the edits of others. From then on, what they made of the file meanwhile is
/// displaced and carried over instead.
const PATIENCE: f64 = 0.6;

/// How many times longer an attempt takes that carries over what others wrote: it edits three files instead of one.
pub(super) const CARRYING: u32 = 3;

/// How long a pause of somebody who has the file open for writing is waited for before it is displaced. Most programs write at
/// once and close it.
const GAP: Duration = Duration::from_millis(100);

/// The same where what was written to a displaced file has been carried over once: they do not pause.
const NEXT_GAP: Duration = Duration::from_millis(20);

/// What is kept back from waits in any case, for what comes after them.
const RESERVE: Duration = Duration::from_millis(100);

/// The source of time. Tests have their own.
pub(crate) trait Clock {
    fn now(&self) -> Instant;
    fn sleep(&self, duration: Duration);
}

/// The real clock.
pub(super) struct Wall;

impl Clock for Wall {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// The time that others may cost one command, or one round of the daemon, with all the files that it reads and replaces. Clones share
/// it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowance {
    /// In microseconds.
    spent: Arc<AtomicU64>,
}

impl Allowance {
    /// Another round begins.
    pub(crate) fn renew(&self) {
        self.spent.store(0, Ordering::Relaxed);
    }

    /// What others may still cost.
    pub(crate) fn left(&self) -> Duration {
        LIMIT.saturating_sub(Duration::from_micros(self.spent.load(Ordering::Relaxed)))
    }

    /// They have cost so much more.
    pub(crate) fn spend(&self, cost: Duration) {
        let cost = u64::try_from(cost.as_micros()).unwrap_or(u64::MAX);
        let _ = self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| Some(spent.saturating_add(cost)));
    }
}

/// The time that one file has, with all the attempts to replace it. What that cost beyond the first of them is spent when it is
/// dropped.
pub(crate) struct Budget<'a> {
    clock: &'a dyn Clock,
    allowance: &'a Allowance,
    /// Its share of the allowance.
    limit: Duration,
    started: Instant,
    /// When the current attempt began, since the start.
    began: Cell<Duration>,
    /// How long it has waited for others.
    waited: Cell<Duration>,
    /// How long the first attempt took, not counting such waits: what this takes without others.
    own: Cell<Option<Duration>>,
    /// The longest that an attempt has taken so far, likewise.
    longest: Cell<Duration>,
    /// Whether something was written to what has been displaced.
    is_behind: Cell<bool>,
}

impl<'a> Budget<'a> {
    /// What is left of this, from now on.
    pub(crate) fn of(allowance: &'a Allowance) -> Self {
        Self::by(&Wall, allowance)
    }

    pub(super) fn by(clock: &'a dyn Clock, allowance: &'a Allowance) -> Self {
        let none = Cell::default;
        let (limit, started) = (allowance.left().mul_f64(SHARE), clock.now());
        let (own, is_behind) = (Cell::default(), Cell::default());
        Self { clock, allowance, limit, started, began: none(), waited: none(), own, longest: none(), is_behind }
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
        self.own.set(self.own.get().or(Some(self.taken())));
        self.longest.set(self.longest.get().max(self.taken()));
        outcome
    }

    /// How long the current attempt has taken so far, without waits.
    fn taken(&self) -> Duration {
        self.elapsed().saturating_sub(self.began.get()).saturating_sub(self.waited.get())
    }

    /// Waits for others.
    pub(super) fn wait(&self, pause: Duration) {
        let began = self.elapsed();
        self.clock.sleep(pause);
        self.waited.set(self.waited.get() + self.elapsed().saturating_sub(began));
    }

    /// How long a wait for somebody who writes may last, so that this attempt and another can end in time. The length of the
    /// first attempt is unknown; it is assumed to be half done.
    pub(super) fn until(&self) -> Instant {
        let needed = (2 * self.longest.get()).max(3 * self.taken()).max(RESERVE);
        self.started + self.limit.saturating_sub(needed)
    }

    /// How long a pause of somebody who writes is waited for.
    pub(super) fn gap(&self) -> Duration {
        if self.is_behind() { NEXT_GAP } else { GAP }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.get()
    }

    /// What somebody wrote to what was displaced is to be carried over.
    pub(super) fn fall_behind(&self) {
        self.is_behind.set(true);
    }

    /// Whether another attempt after this pause would end in time, if it takes `times` as long as the longest so far.
    pub(super) fn has_room_after(&self, pause: Duration, times: u32) -> bool {
        self.elapsed() + pause + times * self.longest.get() <= self.limit
    }

    /// Whether the file must now be replaced whatever others do, because the time left is just enough for that and for carrying
    /// over what they wrote.
    pub(super) fn is_patience_over(&self) -> bool {
        let (elapsed, longest) = (self.elapsed(), self.longest.get());
        self.limit < LITTLE
            || elapsed >= self.limit.mul_f64(PATIENCE)
            || !longest.is_zero() && elapsed + (2 + CARRYING) * longest > self.limit
    }
}

impl Drop for Budget<'_> {
    fn drop(&mut self) {
        self.allowance.spend(self.elapsed().saturating_sub(self.own.get().unwrap_or_default()));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A clock that moves only when somebody sleeps.
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
        let (clock, allowance) = (Still::new(), Allowance::default());
        let budget = Budget::by(&clock, &allowance);
        let (limit, until) = (LIMIT.mul_f64(SHARE), || budget.until() - clock.began);
        assert_eq!(until(), limit - RESERVE);
        budget.attempt(|| {
            clock.sleep(Duration::from_millis(100));
            assert_eq!(until(), limit - Duration::from_millis(300), "another third of this, and the other");
            budget.wait(Duration::from_millis(200));
            clock.sleep(Duration::from_millis(50));
        });
        budget.attempt(|| assert_eq!(until(), limit - Duration::from_millis(300), "what was waited does not count"));
        assert!(budget.has_room_after(limit - Duration::from_millis(500), 1));
        assert!(!budget.has_room_after(limit - Duration::from_millis(499), 1));
    }

    #[test]
    fn what_one_file_has_cost_the_next_does_not_have_and_the_first_attempt_costs_nothing() {
        let (clock, allowance) = (Still::new(), Allowance::default());
        let own = Duration::from_millis(40);
        for left in [LIMIT, LIMIT - Duration::from_millis(270)] {
            assert_eq!(allowance.left(), left);
            let budget = Budget::by(&clock, &allowance);
            assert_eq!(budget.until() - clock.now(), left.mul_f64(SHARE) - RESERVE);
            for _ in 0..3 {
                budget.attempt(|| clock.sleep(own));
            }
            budget.attempt(|| budget.wait(Duration::from_millis(190)));
        }
        let alone = Budget::by(&clock, &allowance);
        alone.attempt(|| clock.sleep(own));
        drop(alone);
        assert_eq!(allowance.left(), LIMIT - Duration::from_millis(540));
        allowance.spend(LIMIT);
        assert!(Budget::by(&clock, &allowance).is_patience_over());
        assert_eq!(Budget::by(&clock, &allowance).until(), clock.now(), "nobody is waited for any more");
        allowance.renew();
        assert_eq!(allowance.left(), LIMIT);
    }
}
