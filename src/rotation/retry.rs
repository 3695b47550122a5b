//! When a failed rotation is tried again: within a second at first, backing off with jitter, for ever.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::failure::{Code, Failure};

/// The first wait: a hiccup is over by then.
const FIRST: Duration = Duration::from_millis(250);

/// The longest wait after a transient failure: whoever mends it is not kept waiting longer.
const LONGEST: Duration = Duration::from_secs(60);

/// The wait after a permanent one: a person is needed, and may have been quick.
const PROBE: Duration = Duration::from_secs(5 * 60);

/// The wait after a success, before the next one can be due.
const PAUSE: Duration = Duration::from_secs(1);

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

/// What can be waiting for its next try. A wait is kept where the trouble is, so that one bad connection never delays its
/// siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// The sign-in of a workspace.
    Workspace(usize),
    /// One connection: its token did not pass, is repeated, or was published just now.
    Connection(usize),
    /// The password file.
    File,
}

/// Who is waiting for the next try. Invariant: whatever happens, nobody is asked again at once.
#[derive(Default)]
pub(crate) struct Retries {
    waiting: HashMap<Who, Waiting>,
    /// Connections whose credential was said to have expired, with that expiry.
    expired: HashMap<usize, Timestamp>,
    /// None where nobody ever gives up.
    patience: Option<Patience>,
}

/// How long a command goes on trying.
#[derive(Clone, Copy)]
struct Patience {
    end: Instant,
    by_timer: bool,
}

struct Waiting {
    /// Before jitter.
    wait: Duration,
    since: Timestamp,
    until: Timestamp,
    last: Last,
}

/// What happened last.
#[derive(PartialEq)]
enum Last {
    /// With the words that were said, so that they are said once.
    Failed(String),
    Repeated,
    Succeeded,
}

impl Retries {
    /// Those of a command that gives up after a while; a timer runs it again.
    pub(super) fn of_a_command(patience: Duration, by_timer: bool) -> Self {
        let patience = Instant::now().checked_add(patience).map(|end| Patience { end, by_timer });
        Retries { patience, ..Retries::default() }
    }

    /// How long it goes on trying.
    pub(super) fn time_left(&self) -> Duration {
        self.patience.map_or(Duration::MAX, |patience| patience.end.saturating_duration_since(Instant::now()))
    }

    /// Whether a command fails rather than wait so long; a timer's does not where all that is concerned outlives its next run.
    pub(super) fn gives_up(&self, wait: Duration, outlives_next_run: bool) -> bool {
        let next_run_will_do = outlives_next_run && self.patience.is_some_and(|patience| patience.by_timer);
        !next_run_will_do && wait >= self.time_left()
    }

    /// Notes a failure, with `left` of a live credential; returns the next try and whether this very failure is news.
    pub(crate) fn failed(
        &mut self,
        who: Who,
        failure: &Failure,
        left: Option<SignedDuration>,
        now: Timestamp,
    ) -> (Timestamp, bool) {
        let last = Last::Failed(failure.message.clone());
        let news = self.waiting.get(&who).is_none_or(|waiting| waiting.last != last);
        let wait = match (failure.is_transient() || who == Who::File, failure.code) {
            (true, _) => backoff(self.grown(who), left),
            // A certificate that is not trusted may be a captive portal's.
            (false, Code::Unavailable) => LONGEST,
            (false, _) => PROBE,
        };
        let until = after(now, jittered(wait, fastrand::f64(), failure.retry_after));
        self.waiting.insert(who, Waiting { wait, since: now, until, last });
        (until, news)
    }

    /// Notes that a source still hands out the token that is published, with `left` of its life; `until` is when it will have
    /// a newer one, where that is known. Returns whether that is news.
    pub(crate) fn repeated(
        &mut self,
        who: Who,
        until: Option<Timestamp>,
        left: SignedDuration,
        now: Timestamp,
    ) -> bool {
        let news = self.waiting.get(&who).is_none_or(|waiting| waiting.last != Last::Repeated);
        let wait = backoff(self.grown(who), Some(left));
        let until = until.unwrap_or_else(|| after(now, wait));
        self.waiting.insert(who, Waiting { wait, since: now, until, last: Last::Repeated });
        news
    }

    /// Notes a success. Where the next rotation is due as soon as it may be (somebody else keeps overwriting the entry, or the
    /// tokens are due on arrival), the pause after it grows as after a failure.
    pub(crate) fn succeeded(&mut self, who: Who, now: Timestamp) {
        let at_once = |waiting: &&Waiting| {
            waiting.last == Last::Succeeded && waiting.until <= now && now < after(waiting.until, waiting.wait / 2)
        };
        let wait =
            self.waiting.get(&who).filter(at_once).map_or(PAUSE, |waiting| waiting.wait.saturating_mul(2).min(LONGEST));
        self.waiting.insert(who, Waiting { wait, since: now, until: after(now, wait), last: Last::Succeeded });
    }

    /// Forgets the troubles of somebody who has none any more.
    pub(crate) fn forget(&mut self, who: Who) {
        self.waiting.remove(&who);
    }

    /// Forgets all troubles: nothing is due, whoever mended it.
    pub(crate) fn forget_troubles(&mut self) {
        self.waiting.retain(|_, waiting| waiting.last == Last::Succeeded);
    }

    /// Lets all that failed be tried at once: what was wrong may have been mended. What was said of it is remembered.
    pub(crate) fn hurry(&mut self) {
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.last != Last::Succeeded) {
            waiting.until = Timestamp::MIN;
        }
    }

    /// The same for what a new login can have repaired.
    pub(crate) fn hurry_sign_ins(&mut self) {
        self.hurry_those(|who| !matches!(who, Who::File));
    }

    /// The same for what a change of the password file can have repaired.
    pub(crate) fn hurry_password_file(&mut self) {
        self.hurry_those(|who| matches!(who, Who::File));
    }

    fn hurry_those(&mut self, is_concerned: impl Fn(&Who) -> bool) {
        let concerned =
            self.waiting.iter_mut().filter(|(who, waiting)| is_concerned(who) && waiting.last != Last::Succeeded);
        for (_, waiting) in concerned {
            waiting.until = Timestamp::MIN;
        }
    }

    /// Whether it is news that this connection's credential expired at this time.
    pub(crate) fn expired(&mut self, connection: usize, at: Timestamp) -> bool {
        self.expired.insert(connection, at) != Some(at)
    }

    /// When the source that repeated a connection's due token will have a newer one.
    pub(crate) fn renewed_at(&self, connection: usize) -> Option<Timestamp> {
        let waiting = self.waiting.get(&Who::Connection(connection))?;
        (waiting.last == Last::Repeated).then_some(waiting.until)
    }

    /// The wait to grow from: that after a success is none.
    fn grown(&self, who: Who) -> Option<Duration> {
        self.waiting.get(&who).filter(|waiting| waiting.last != Last::Succeeded).map(|waiting| waiting.wait)
    }

    /// Whether the last try brought nothing new.
    pub(crate) fn is_in_trouble(&self, who: Who) -> bool {
        self.waiting.get(&who).is_some_and(|waiting| waiting.last != Last::Succeeded)
    }

    /// Whether the last try failed.
    pub(crate) fn has_failed(&self, who: Who) -> bool {
        self.waiting.get(&who).is_some_and(|waiting| matches!(waiting.last, Last::Failed(_)))
    }

    /// When all of these may be tried, where that lies ahead. The wait for a newer token does not hold for a connection whose
    /// password is not `live`. A wait that began later than now is a clock that was set back.
    pub(crate) fn next_try(&self, all: &[Who], live: bool, now: Timestamp) -> Option<Timestamp> {
        let waits =
            all.iter().filter_map(|who| self.waiting.get(who)).filter(|waiting| live || waiting.last != Last::Repeated);
        waits.filter(|waiting| waiting.since <= now).map(|waiting| waiting.until).filter(|until| *until > now).max()
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
        let (now, who) = (Timestamp::UNIX_EPOCH, Who::Workspace(0));
        let mut retries = Retries::default();
        let (next, is_news) = retries.failed(who, &refused, None, now);
        assert!(is_news && next.as_second() >= 150, "{next}");
        assert!(!retries.failed(who, &refused, None, now).1);
        assert!(retries.failed(who, &transient(), None, now).1);
        assert!(retries.next_try(&[who, Who::File], true, now).is_some());
        assert_eq!(retries.next_try(&[Who::Workspace(1)], true, now), None);
        retries.succeeded(who, now);
        assert!(retries.next_try(&[who], true, after(now, PAUSE)).is_none() && !retries.is_in_trouble(who));
    }

    #[test]
    fn a_command_gives_up_where_the_next_try_would_be_too_late_and_a_timers_only_what_dies_before_its_next_run() {
        let (soon, late) = (Duration::ZERO, Duration::from_secs(600));
        let minute = Duration::from_secs(60);
        assert!(!Retries::default().gives_up(late, false), "a daemon never does");
        for by_timer in [false, true] {
            let retries = Retries::of_a_command(minute, by_timer);
            assert!(!retries.gives_up(soon, false) && retries.gives_up(late, false));
            assert_eq!(retries.gives_up(late, true), !by_timer);
        }
        assert!(Retries::of_a_command(Duration::ZERO, false).gives_up(soon, false));
        assert!(!Retries::of_a_command(Duration::MAX, false).gives_up(late, false));
    }

    #[test]
    fn a_wait_for_a_newer_token_does_not_hold_for_a_password_that_is_gone() {
        let (now, who) = (Timestamp::UNIX_EPOCH, Who::Connection(0));
        let mut retries = Retries::default();
        let later = after(now, Duration::from_secs(900));
        assert!(retries.repeated(who, Some(later), SignedDuration::from_mins(20), now));
        assert_eq!(retries.next_try(&[who], true, now), Some(later));
        assert_eq!(retries.next_try(&[who], false, now), None);
    }

    #[test]
    fn successes_that_are_undone_at_once_do_not_make_a_storm() {
        let (mut now, who) = (Timestamp::UNIX_EPOCH, Who::Connection(0));
        let mut retries = Retries::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            retries.succeeded(who, now);
            let next = retries.next_try(&[who], true, now).unwrap();
            pauses.push(next.duration_since(now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        let later = after(now, Duration::from_secs(600));
        retries.succeeded(who, later);
        assert_eq!(retries.next_try(&[who], true, later), Some(after(later, PAUSE)));
    }

    #[test]
    fn what_may_have_been_mended_is_tried_at_once_and_said_only_if_it_is_news() {
        let refused = Failure::permanent(Code::SignInRefused, "no");
        let (now, who) = (Timestamp::UNIX_EPOCH, Who::Workspace(0));
        let mut retries = Retries::default();
        retries.failed(who, &refused, None, now);
        retries.hurry();
        assert_eq!(retries.next_try(&[who], true, now), None);
        assert!(!retries.failed(who, &refused, None, now).1);
    }

    #[test]
    fn a_clock_set_back_does_not_postpone_a_retry() {
        let late = Timestamp::from_second(1_000_000).unwrap();
        let mut retries = Retries::default();
        retries.failed(Who::File, &transient(), None, late);
        for earlier in [10, 999_995] {
            assert_eq!(retries.next_try(&[Who::File], true, Timestamp::from_second(earlier).unwrap()), None);
        }
    }
}
