//! When a failed rotation is tried again: within a second at first, backing off with jitter, for ever.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::failure::Failure;

/// The first wait: a hiccup is over by then.
const FIRST: Duration = Duration::from_millis(250);

/// The longest wait after a transient failure (DESIGN decision 1: backing off to one minute).
const LONGEST: Duration = Duration::from_secs(60);

/// The wait after a permanent one: a person is needed, and may have been quick.
const PROBE: Duration = Duration::from_secs(5 * 60);

/// With a live credential the waits stay so short a part of what is left of it that there is time for several tries ...
const PART_OF_LEFT: i32 = 8;

/// ... but no shorter than this.
const SHORTEST_CAP: Duration = Duration::from_millis(500);

/// A server that asks for more than this is asked again all the same.
const LONGEST_ASKED: Duration = Duration::from_secs(60 * 60);

/// The wait after the next failure in a row: twice the one before, within what `left` of a live credential allows. Once that
/// is dead the waits go on growing from where they were, not from how many there have been.
fn backoff(before: Option<Duration>, left: Option<SignedDuration>) -> Duration {
    let part = left.filter(|left| left.is_positive()).and_then(|left| Duration::try_from(left / PART_OF_LEFT).ok());
    let longest = part.map_or(LONGEST, |part| part.clamp(SHORTEST_CAP, LONGEST));
    before.map_or(FIRST, |before| before.saturating_mul(2)).min(longest)
}

/// The wait with its jitter, which lies in 0..1: half of it is kept, so that machines that failed together do not come back
/// together; or what the other side asked for, where that is longer.
fn jittered(wait: Duration, jitter: f64, asked: Option<Duration>) -> Duration {
    wait.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0).max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

/// Which workspaces are waiting for their next try. Invariant: a success forgets all about a workspace.
#[derive(Default)]
pub(crate) struct Retries(HashMap<usize, Waiting>);

struct Waiting {
    /// Before jitter.
    wait: Duration,
    until: Timestamp,
    /// What was said last, so that it is said once.
    message: String,
}

impl Retries {
    /// Notes a failure, with `left` of a live credential; returns the next try and whether this very failure is news.
    pub(crate) fn failed(
        &mut self,
        workspace: usize,
        failure: &Failure,
        left: Option<SignedDuration>,
        now: Timestamp,
    ) -> (Timestamp, bool) {
        let before = self.0.get(&workspace);
        let news = before.is_none_or(|waiting| waiting.message != failure.message);
        let wait = if failure.is_transient() { backoff(before.map(|waiting| waiting.wait), left) } else { PROBE };
        let until = after(now, jittered(wait, fastrand::f64(), failure.retry_after));
        self.0.insert(workspace, Waiting { wait, until, message: failure.message.clone() });
        (until, news)
    }

    /// Notes that a source still hands out a token with `left` of its life; `until` is when it will have a newer one, where
    /// that is known. Returns whether that is news.
    pub(crate) fn repeated(
        &mut self,
        workspace: usize,
        until: Option<Timestamp>,
        left: SignedDuration,
        now: Timestamp,
    ) -> bool {
        let before = self.0.get(&workspace);
        let news = before.is_none_or(|waiting| !waiting.message.is_empty());
        let wait = backoff(before.map(|waiting| waiting.wait), Some(left));
        let until = until.unwrap_or_else(|| after(now, wait));
        self.0.insert(workspace, Waiting { wait, until, message: String::new() });
        news
    }

    /// Notes a success.
    pub(crate) fn succeeded(&mut self, workspace: usize) {
        self.0.remove(&workspace);
    }

    /// Whether a workspace may be asked now. A wait that lies further ahead than any wait can is a clock that was set back.
    pub(crate) fn may_try(&self, workspace: usize, now: Timestamp) -> bool {
        self.0.get(&workspace).is_none_or(|waiting| waiting.until <= now || waiting.until > after(now, LONGEST_ASKED))
    }

    /// When a workspace is asked next, if it is waiting.
    pub(crate) fn next_try(&self, workspace: usize) -> Option<Timestamp> {
        self.0.get(&workspace).map(|waiting| waiting.until)
    }
}

fn after(now: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| now.saturating_add(wait).ok()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    fn transient() -> Failure {
        Failure::transient(Code::Unavailable, "x")
    }

    #[test]
    fn waits_grow_from_a_quarter_of_a_second_to_a_minute() {
        let waits: Vec<u128> =
            std::iter::successors(Some(backoff(None, None)), |wait| Some(backoff(Some(*wait), None)))
                .take(10)
                .map(|wait| wait.as_millis())
                .collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
    }

    #[test]
    fn with_a_live_credential_there_is_time_for_several_tries_and_after_its_death_waits_start_short() {
        let longest = |seconds| backoff(Some(LONGEST), Some(SignedDuration::from_secs(seconds))).as_millis();
        assert_eq!((longest(1_200), longest(80), longest(1), longest(-1)), (60_000, 10_000, 500, 60_000));
        let while_alive = (0..50).fold(None, |before, _| Some(backoff(before, Some(SignedDuration::from_secs(2)))));
        assert_eq!(backoff(while_alive, None).as_millis(), 1_000);
    }

    #[test]
    fn what_the_server_asks_for_is_honoured_within_reason_and_jitter_keeps_half() {
        let asked = |seconds| jittered(FIRST, 0.5, Some(Duration::from_secs(seconds))).as_secs();
        assert_eq!((asked(7), asked(86_400)), (7, 3_600));
        assert_eq!(jittered(LONGEST, 0.0, None).as_secs(), 30);
        assert_eq!(jittered(LONGEST, 1.0, Some(Duration::ZERO)), LONGEST);
    }

    #[test]
    fn a_refusal_is_probed_slowly_and_said_once() {
        let refused = Failure::permanent(Code::SignInRefused, "no");
        let now = Timestamp::UNIX_EPOCH;
        let mut retries = Retries::default();
        let (next, is_news) = retries.failed(0, &refused, None, now);
        assert!(is_news && next.as_second() >= 150, "{next}");
        assert!(!retries.failed(0, &refused, None, now).1);
        assert!(retries.failed(0, &transient(), None, now).1);
        assert!(!retries.may_try(0, now));
        assert!(retries.may_try(1, now));
        retries.succeeded(0);
        assert!(retries.may_try(0, now));
    }

    #[test]
    fn a_clock_set_back_does_not_postpone_a_retry() {
        let late = Timestamp::from_second(1_000_000).unwrap();
        let mut retries = Retries::default();
        retries.failed(0, &transient(), None, late);
        assert!(retries.may_try(0, Timestamp::from_second(10).unwrap()));
    }
}
