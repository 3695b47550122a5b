//! When a credential is to be replaced: pure functions of when it was issued and when it expires.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The vendor's own SDKs refresh this long before the expiry, or half a life where that is shorter (databricks-sdk-go, cache.go).
const LEAD: SignedDuration = SignedDuration::from_mins(20);

/// Whatever its life, a credential is not kept longer than users of the Python original are used to.
const OLDEST: SignedDuration = SignedDuration::from_mins(50);

/// However late the user wants it: less than this must not be left, so that a failure can be got over.
const LEAST_LEFT: SignedDuration = SignedDuration::from_secs(60);

/// The packaged timer runs every ten minutes, up to two minutes late; after that there must be time for one try.
pub(super) const NEXT_RUN: SignedDuration = SignedDuration::from_mins(13);

/// The vendor's CLI hands out the same token until less than this is left (databricks-sdk-go, u2m/persistent_auth.go).
const CLI_WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// The longest that one request or child may take.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(30);

/// The longest and the shortest that one identity may take, with all that it asks for.
const LONGEST_ROUND: Duration = Duration::from_secs(60);
const SHORTEST_ROUND: Duration = Duration::from_secs(10);

/// The shortest limit that a slow network can still meet.
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(2);

/// The moment from which a credential is due.
///
/// Without an interval: half of its life, at most 20 minutes, before the expiry, and never more than 50 minutes after the
/// issue. With one: that long after the issue, but never so late that less than the larger of a twelfth of the life and
/// 60 s is left (half of the life where it is too short even for that).
pub(crate) fn refresh_at(issued: Timestamp, expires: Timestamp, interval: Option<Duration>) -> Timestamp {
    let life = expires.duration_since(issued).max(SignedDuration::ZERO);
    let (lead, age) = match interval.and_then(|interval| SignedDuration::try_from(interval).ok()) {
        None => ((life / 2).min(LEAD), OLDEST),
        Some(interval) => ((life / 12).max(LEAST_LEFT).min(life / 2), interval),
    };
    let latest = expires.saturating_sub(lead).unwrap_or(issued);
    let wanted = issued.saturating_add(age).unwrap_or(latest);
    latest.min(wanted)
}

/// Whether a credential will be dead before the next run of a timer has had time to mend a failure: then this run is the one to
/// replace it, however late the user wants that.
pub(crate) fn dies_before_next_run(issued: Timestamp, expires: Timestamp, now: Timestamp) -> bool {
    expires.duration_since(now) < NEXT_RUN.min(expires.duration_since(issued) / 2)
}

/// How long one request or child may take: a quarter of what is left of the live credential, so that there is time for
/// another, within 2 and 30 s.
pub(crate) fn attempt_limit(left: Option<SignedDuration>) -> Duration {
    let quarter = left.filter(|left| left.is_positive()).and_then(|left| Duration::try_from(left / 4).ok());
    quarter.map_or(LONGEST_ATTEMPT, |quarter| quarter.clamp(SHORTEST_ATTEMPT, LONGEST_ATTEMPT))
}

/// How long an identity may take for all of it: half of what is left of the live credential, within 10 and 60 s.
pub(crate) fn round_deadline(left: Option<SignedDuration>) -> Duration {
    let half = left.filter(|left| left.is_positive()).and_then(|left| Duration::try_from(left / 2).ok());
    half.map_or(LONGEST_ROUND, |half| half.clamp(SHORTEST_ROUND, LONGEST_ROUND))
}

/// When to ask again a CLI that still hands out a due token: once it will have a new one; none when it should have by now.
pub(crate) fn ask_cli_again(now: Timestamp, expires: Timestamp) -> Option<Timestamp> {
    let window = expires.saturating_sub(CLI_WINDOW).ok()?.saturating_add(SignedDuration::from_secs(1)).ok()?;
    (window > now).then_some(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60;

    fn refresh(life_seconds: i64, interval_minutes: Option<u64>) -> i64 {
        let at = |second| Timestamp::from_second(second).unwrap();
        let interval = interval_minutes.map(|minutes| Duration::from_secs(minutes * 60));
        refresh_at(at(1_000_000), at(1_000_000 + life_seconds), interval).as_second() - 1_000_000
    }

    #[test]
    fn an_hour_long_token_is_replaced_at_minute_40() {
        assert_eq!(refresh(60 * MINUTE, None), 40 * MINUTE);
    }

    #[test]
    fn a_short_token_is_replaced_at_half_of_its_life_and_a_long_one_after_50_minutes() {
        assert_eq!(refresh(20, None), 10);
        assert_eq!(refresh(5 * MINUTE, None), 150);
        assert_eq!(refresh(24 * 60 * MINUTE, None), 50 * MINUTE);
    }

    #[test]
    fn the_interval_moves_it_but_never_too_near_the_expiry() {
        assert_eq!(refresh(60 * MINUTE, Some(10)), 10 * MINUTE);
        assert_eq!(refresh(60 * MINUTE, Some(50)), 50 * MINUTE);
        assert_eq!(refresh(60 * MINUTE, Some(59)), 55 * MINUTE);
        assert_eq!(refresh(5 * MINUTE, Some(50)), 4 * MINUTE);
        assert_eq!(refresh(60, Some(50)), 30);
        assert_eq!(refresh(-5, Some(50)), -5);
    }

    #[test]
    fn an_attempt_leaves_time_for_another() {
        let limit = |seconds| attempt_limit(Some(SignedDuration::from_secs(seconds))).as_secs();
        assert_eq!((limit(1200), limit(40), limit(1), limit(-5)), (30, 10, 2, 30));
        assert_eq!(attempt_limit(None), LONGEST_ATTEMPT);
    }

    #[test]
    fn a_cli_that_repeats_its_token_is_asked_again_when_it_will_have_another() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(ask_cli_again(at(0), at(1_200)), Some(at(901)));
        assert_eq!(ask_cli_again(at(950), at(1_200)), None);
    }
}
