//! Who of several replicas writes, decided as client-go's leader election does, whose rules other programs keep as well.
//!
//! Pure: the time since boot is handed in. Nobody's clock is believed: a holder is taken for gone when this replica has seen its
//! Lease unchanged for as long as it says. A holder stops earlier than that, by its own count from before it asked.

use std::time::Duration;

/// How long a Lease is good that is not renewed.
pub(super) const DURATION: Duration = Duration::from_secs(15);

/// Who could not renew it for this long does not write any more. The difference is more than a request under way can take.
pub(super) const RENEWED_WITHIN: Duration = Duration::from_secs(10);

/// How often it is renewed, and how often the others look.
pub(super) const RENEW: Duration = Duration::from_secs(3);
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// The longest that a Lease is believed to be good, whatever it says.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// What a Lease said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Another one with each change.
    pub(super) version: String,
    /// Empty if it was given back.
    pub(super) holder: String,
    pub(super) lasts: Duration,
}

/// What follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is free.
    Take,
    /// Somebody holds it, for this long at least.
    Wait(Duration),
}

/// One replica's view.
#[derive(Debug)]
pub(super) struct Election {
    pub(super) me: String,
    seen: Option<(Seen, Duration)>,
}

impl Election {
    pub(super) fn new(me: String) -> Self {
        Election { me, seen: None }
    }

    /// What to do about a Lease that has just been read.
    pub(super) fn judge(&mut self, lease: Seen, now: Duration) -> Verdict {
        let is_news = self.seen.as_ref().is_none_or(|(seen, _)| *seen != lease);
        if is_news {
            self.seen = Some((lease.clone(), now));
        }
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        let end = since.saturating_add(lease.lasts.clamp(Duration::from_secs(1), LONGEST));
        if lease.holder.is_empty() || lease.holder == self.me || end <= now {
            return Verdict::Take;
        }
        Verdict::Wait(end.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(version: &str, holder: &str, seconds: u64) -> Seen {
        Seen { version: version.to_owned(), holder: holder.to_owned(), lasts: Duration::from_secs(seconds) }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_holder_is_gone_when_its_lease_has_not_changed_for_as_long_as_it_lasts() {
        let mut election = Election::new("b".to_owned());
        assert_eq!(election.judge(lease("1", "a", 15), at(100)), Verdict::Wait(at(15)));
        assert_eq!(election.judge(lease("1", "a", 15), at(110)), Verdict::Wait(at(5)));
        assert_eq!(election.judge(lease("2", "a", 15), at(114)), Verdict::Wait(at(15)), "it was renewed");
        assert_eq!(election.judge(lease("2", "a", 15), at(128)), Verdict::Wait(at(1)));
        assert_eq!(election.judge(lease("2", "a", 15), at(129)), Verdict::Take);
    }

    #[test]
    fn what_was_given_back_or_is_our_own_is_free_at_once_and_nothing_lasts_for_ever() {
        let mut election = Election::new("b".to_owned());
        assert_eq!(election.judge(lease("1", "", 1), at(100)), Verdict::Take);
        assert_eq!(election.judge(lease("2", "b", 15), at(100)), Verdict::Take);
        assert_eq!(election.judge(lease("3", "a", u64::MAX), at(100)), Verdict::Wait(LONGEST));
        assert_eq!(election.judge(lease("4", "a", 0), at(100)), Verdict::Wait(at(1)));
    }

    #[test]
    fn a_replica_that_slept_does_not_take_what_was_renewed_meanwhile() {
        let mut election = Election::new("b".to_owned());
        election.judge(lease("1", "a", 15), at(100));
        assert_eq!(election.judge(lease("9", "a", 15), at(5_000)), Verdict::Wait(at(15)));
    }

    #[test]
    fn a_holder_stops_before_another_can_begin() {
        // From its last renewal a holder writes for 10 s, and a request that it has begun then ends within that time as well.
        assert!(RENEWED_WITHIN + RENEW < DURATION);
        assert!(RENEW + super::super::api::LIMIT < RENEWED_WITHIN, "one renewal may fail");
    }
}
