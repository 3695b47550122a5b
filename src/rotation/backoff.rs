//! When to try again after a failure: within a second at first, then later and later with jitter, without end.
//!
//! Pure: the time and the jitter are passed in. Waits are measured by the time since boot, so setting the wall clock neither
//! ends nor prolongs one. Invariants, whatever the clocks do: nothing is tried again at once, each scope is tried at most
//! [`MOST_PER_HOUR`] times in any hour, and a wait that a server asked for is kept.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::failure::{Code, Failure, Kind};
use crate::os::clock::Moment;

/// The first wait: long enough for a hiccup.
const FIRST: Duration = Duration::from_millis(250);

/// The longest wait after a transient failure, so that a repaired service is noticed within a minute.
const LONGEST: Duration = Duration::from_secs(60);

/// The wait after a permanent failure: a person is needed, and may have been quick.
const PROBE: Duration = Duration::from_secs(5 * 60);

/// The wait after a success, before the next one can be due.
const PAUSE: Duration = Duration::from_secs(1);

/// While a credential is live, each wait is at most this part of the time left, so that there is time for several tries ...
const PART_OF_LEFT: u32 = 8;

/// ... but no shorter than this.
const SHORTEST_CAP: Duration = Duration::from_millis(500);

/// While a credential is live, a failure that needs a person is retried after half of the time left, but not sooner
/// than this.
const SHORTEST_PROBE: Duration = Duration::from_secs(10);

/// The longest wait that a server can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60 * 60);

/// A wait that a server asked for is prolonged by at most a tenth and at most this, so that clients that were told the same
/// time do not come back together.
const LONGEST_SPREAD: Duration = Duration::from_secs(60);

/// A server waits at most this part of the time that its failures have lasted ...
const PART_OF_TROUBLE: u32 = 4;

/// ... and never longer than this. 10,000 servers that come back within 5 to 10 minutes are 22 requests a second.
const LONGEST_OF_SERVER: Duration = Duration::from_secs(10 * 60);

/// What is kept of the time of a timer's run for its tries.
pub const TIME_FOR_TRIES: Duration = Duration::from_secs(60);

/// Without network each wait is this part of the time for which there has been none, so that its return is noticed soon ...
const PART_OF_TIME_WITHOUT_NETWORK: u32 = 8;

/// ... but no shorter than this, and no longer than [`LONGEST`].
const SHORTEST_WITHOUT_NETWORK: Duration = Duration::from_secs(1);

/// Who comes so late to a try has slept, and the time without network begins anew: after a wake-up it is a matter of seconds.
const OVERSLEPT: Duration = Duration::from_secs(10);

/// This many tries of one scope may follow each other as fast as their waits allow ...
const BURST: u32 = 300;

/// ... and on average there is this much time between two of them. Even tokens that live for 20 s get all tries they need.
const LEAST_BETWEEN: Duration = Duration::from_secs(3);

/// How often one scope is tried in any hour, at most: the burst, and one try every 3 s.
pub const MOST_PER_HOUR: u32 = BURST + 1_200;

/// What is tried and waits on its own. Each wait belongs to what failed, so that one bad connection never delays the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryScope {
    /// An identity: its sign-in, and failures that concern all of its connections.
    Identity(usize),
    /// One connection: its token was not acceptable, was handed out again, or has just been published.
    Connection(usize),
    /// The password file and the lock.
    PasswordFile,
    /// The Secret of one connection.
    Secret(usize),
}

/// The step of a rotation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Getting an access token.
    SignIn,
    /// Finding the database and its host.
    Resolve,
    /// Getting a database credential.
    Mint,
    /// Proving a credential with a login.
    Login,
    /// Checking the token.
    Verify,
    /// Replacing the password file.
    Write,
    /// Waiting for another instance.
    Lock,
    /// Writing a file or a Secret beside the password file, or running a hook.
    Output,
}

/// What has changed on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A file that a person edits: the configuration, a profile, a client secret.
    Settings,
    /// The vendor CLI's stored login; it concerns the identities that sign in through the CLI.
    TokenCache,
    /// The password file.
    PasswordFile,
}

impl Change {
    /// Whether this can end a failure of `scope`: a change of the password file cannot repair a sign-in.
    pub fn can_repair(self, scope: RetryScope) -> bool {
        match self {
            Change::Settings => true,
            Change::TokenCache => matches!(scope, RetryScope::Identity(_) | RetryScope::Connection(_)),
            Change::PasswordFile => scope == RetryScope::PasswordFile,
        }
    }
}

/// What makes a failure news. Not its text, which may hold the id of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Said {
    kind: Kind,
    code: Code,
    step: Step,
}

/// The last event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// None if it failed in an earlier process.
    Failed(Option<Step>),
    Repeated,
    Succeeded,
}

/// All times are since boot.
struct Waiting {
    /// Before jitter.
    wait: Duration,
    until: Duration,
    /// The end of the wait that the server asked for.
    asked_until: Duration,
    /// When the failures began in this process; `before` is how long they had lasted in earlier ones.
    since: Duration,
    before: Duration,
    last: Last,
    /// The failures that have been reported since they began.
    said: Vec<Said>,
}

impl Waiting {
    fn failing_for(&self, now: Moment) -> Duration {
        self.before.saturating_add(now.since_boot.saturating_sub(self.since))
    }
}

/// Which scopes wait for their next try, and since when.
#[derive(Default)]
pub struct Backoff {
    waiting: HashMap<RetryScope, Waiting>,
    /// Counts tries: each moves this time on by [`LEAST_BETWEEN`], from now or from where it was if that is later.
    used: HashMap<RetryScope, Duration>,
    /// Connections whose expired credential has been reported, with its expiry.
    expired: HashMap<usize, Timestamp>,
    is_server: bool,
    /// Since when this machine has had no network, and when it is looked for again; since boot.
    without_network: Option<(Duration, Duration)>,
}

impl Backoff {
    /// For machines that nobody sits in front of, and of which there may be thousands: lasting failures are retried more
    /// slowly, so that the machines do not come back together when an outage ends.
    pub fn for_servers() -> Self {
        Backoff { is_server: true, ..Backoff::default() }
    }

    /// Whether it is that of such a machine.
    pub fn is_server(&self) -> bool {
        self.is_server
    }

    /// Notes a failure, with `left` of a live credential and a `jitter` of 0 to 1; returns the next try by the wall clock, and
    /// whether this failure is news: the first of its kind, code and step since the trouble began.
    pub fn failed(
        &mut self,
        scope: RetryScope,
        step: Step,
        failure: &Failure,
        left: Option<SignedDuration>,
        now: Moment,
        jitter: f64,
    ) -> (Timestamp, bool) {
        let left = left.and_then(|left| Duration::try_from(left).ok()).filter(|left| !left.is_zero());
        let before = self.waiting.remove(&scope).filter(|waiting| waiting.last != Last::Succeeded);
        let failing_for = before.as_ref().map_or(Duration::ZERO, |waiting| waiting.failing_for(now));
        let grown = before.as_ref().map(|waiting| waiting.wait);
        let wait = match (failure.is_transient() || scope == RetryScope::PasswordFile, failure.code) {
            (true, _) if self.is_server => server_backoff(grown, left, failing_for),
            (true, _) => backoff(grown, left, LONGEST),
            // An untrusted certificate may be a captive portal's.
            (false, Code::Unavailable) => probe(LONGEST, left),
            // A Secret is looked at as often anyway.
            (false, _) if matches!(scope, RetryScope::Secret(_)) => LONGEST,
            (false, _) => probe(PROBE, left),
        };
        let asked = failure.retry_after.map(|asked| asked_for(asked, jitter)).unwrap_or_default();
        let (since, before, mut said) = before.map_or((now.since_boot, Duration::ZERO, Vec::new()), |waiting| {
            (waiting.since, waiting.before, waiting.said)
        });
        let one = Said { kind: failure.kind, code: failure.code, step };
        let is_news = !said.contains(&one);
        if is_news {
            said.push(one);
        }
        let asked_until = now.since_boot.saturating_add(asked);
        let until = now.since_boot.saturating_add(jittered(wait, jitter)).max(asked_until);
        let last = Last::Failed(Some(step));
        self.waiting.insert(scope, Waiting { wait, until, asked_until, since, before, last, said });
        self.use_one(scope, now);
        (at(self.earliest(scope, true).unwrap_or(until), now), is_news)
    }

    /// Notes that a failure which has just been noted came of this machine having no network: a try costs nobody anything then, so
    /// the next one comes soon, and the waits do not grow by it. Not so of servers, whose network returns to all of them at once.
    /// Returns the next try by the wall clock.
    pub fn without_network(&mut self, scope: RetryScope, now: Moment, jitter: f64) -> Option<Timestamp> {
        let waiting = self.waiting.get_mut(&scope).filter(|_| !self.is_server)?;
        let known = self.without_network.filter(|(_, next)| now.since_boot <= next.saturating_add(OVERSLEPT));
        let since = known.map_or(now.since_boot, |(since, _)| since);
        let part = now.since_boot.saturating_sub(since) / PART_OF_TIME_WITHOUT_NETWORK;
        let wait = part.clamp(SHORTEST_WITHOUT_NETWORK, LONGEST);
        let until = now.since_boot.saturating_add(jittered(wait, jitter)).max(waiting.asked_until);
        (waiting.wait, waiting.until) = (FIRST, until);
        self.without_network = Some((since, until));
        Some(at(self.earliest(scope, true).unwrap_or(until), now))
    }

    /// Notes that a source still hands out the token that is published, with `left` of its life; `until` is when it will have
    /// a newer one by the wall clock, where that is known. Returns whether that is news.
    pub fn repeated(&mut self, scope: RetryScope, until: Option<Timestamp>, left: SignedDuration, now: Moment) -> bool {
        let before = self.waiting.remove(&scope);
        let is_news = before.as_ref().is_none_or(|waiting| waiting.last != Last::Repeated);
        let before = before.filter(|waiting| waiting.last != Last::Succeeded);
        let left = Duration::try_from(left).ok().filter(|left| !left.is_zero());
        let wait = backoff(before.as_ref().map(|waiting| waiting.wait), left, LONGEST);
        let known = until.map(|until| Duration::try_from(until.duration_since(now.wall)).unwrap_or_default());
        let until = now.since_boot.saturating_add(known.unwrap_or(wait));
        let (since, before) =
            before.map_or((now.since_boot, Duration::ZERO), |waiting| (waiting.since, waiting.before));
        let (last, said) = (Last::Repeated, Vec::new());
        self.waiting.insert(scope, Waiting { wait, until, asked_until: Duration::ZERO, since, before, last, said });
        self.use_one(scope, now);
        is_news
    }

    /// Notes a success. If a rotation is due again as soon as it is allowed (because somebody keeps overwriting the entry, or the
    /// tokens are due on arrival), the pause grows as after a failure, but not beyond a quarter of what is `left` of the new
    /// credential, so that a short-lived one does not expire during it.
    pub fn succeeded(&mut self, scope: RetryScope, left: Option<SignedDuration>, now: Moment) {
        let at_once = |waiting: &&Waiting| {
            let until = waiting.until;
            waiting.last == Last::Succeeded && (until..until + waiting.wait / 2).contains(&now.since_boot)
        };
        let before = self.waiting.get(&scope).filter(at_once);
        let quarter = left.and_then(|left| Duration::try_from(left / 4).ok()).unwrap_or(LONGEST);
        let longest = quarter.clamp(PAUSE, LONGEST);
        let wait = before.map_or(PAUSE, |waiting| waiting.wait.saturating_mul(2).min(longest));
        let (since, until) = (now.since_boot, now.since_boot.saturating_add(wait));
        let last = Last::Succeeded;
        let (asked_until, before, said) = (Duration::ZERO, Duration::ZERO, Vec::new());
        self.waiting.insert(scope, Waiting { wait, until, asked_until, since, before, last, said });
        self.use_one(scope, now);
    }

    /// Clears the failures of a scope.
    pub fn clear(&mut self, scope: RetryScope) {
        self.waiting.remove(&scope);
    }

    /// Clears all failures: nothing is due, whoever repaired it.
    pub fn clear_troubles(&mut self) {
        self.waiting.retain(|_, waiting| waiting.last == Last::Succeeded);
    }

    /// Allows the failed ones of these scopes to be tried now, since the cause may have been repaired. Waits that a server
    /// asked for stay, and reported failures are remembered.
    pub fn retry_now(&mut self, scopes: impl Fn(RetryScope) -> bool) {
        let failed = self.waiting.iter_mut().filter(|(_, waiting)| waiting.last != Last::Succeeded);
        for (_, waiting) in failed.filter(|(scope, _)| scopes(**scope)) {
            waiting.until = waiting.asked_until;
        }
    }

    /// Goes on from a trouble that has lasted for `failing_for` in processes before this one. It may be tried now; but timers
    /// run close together, so servers spread once they try slowly: over at most `longest_wait`, and as far as what is `left`
    /// of a live credential allows.
    pub fn resume(
        &mut self,
        scope: RetryScope,
        failing_for: Duration,
        left: Option<SignedDuration>,
        longest_wait: Duration,
        now: Moment,
        jitter: f64,
    ) {
        let (since, before) = (now.since_boot, failing_for);
        let longest = longest_of_server(failing_for);
        let part =
            left.and_then(|left| Duration::try_from(left).ok()).map_or(Duration::MAX, |left| left / PART_OF_LEFT);
        let spread =
            if self.is_server && longest > LONGEST { longest.min(longest_wait).min(part) } else { Duration::ZERO };
        let until = now.since_boot.saturating_add(spread.mul_f64(jitter.clamp(0.0, 1.0)));
        let (wait, asked_until) = (Duration::ZERO, Duration::ZERO);
        let (last, said) = (Last::Failed(None), Vec::new());
        self.waiting.insert(scope, Waiting { wait, until, asked_until, since, before, last, said });
    }

    /// How long a scope has been failing; none if it is not.
    pub fn failing_for(&self, scope: RetryScope, now: Moment) -> Option<Duration> {
        self.in_trouble(scope).map(|waiting| waiting.failing_for(now))
    }

    /// Whether the expiry of this connection's credential at this time is news.
    pub fn expired(&mut self, connection: usize, at: Timestamp) -> bool {
        self.expired.insert(connection, at) != Some(at)
    }

    /// When the source that handed out a due token again will have a newer one, by the wall clock.
    pub fn renewed_at(&self, connection: usize, now: Moment) -> Option<Timestamp> {
        let waiting = self.waiting.get(&RetryScope::Connection(connection))?;
        (waiting.last == Last::Repeated).then(|| at(waiting.until, now))
    }

    /// Whether the last try brought nothing new: it failed, or got the same token.
    pub fn is_in_trouble(&self, scope: RetryScope) -> bool {
        self.in_trouble(scope).is_some()
    }

    /// Whether the last try failed.
    pub fn has_failed(&self, scope: RetryScope) -> bool {
        self.waiting.get(&scope).is_some_and(|waiting| matches!(waiting.last, Last::Failed(_)))
    }

    /// The step that failed in the last try. Success of an earlier step is then no news.
    pub fn failed_step(&self, scope: RetryScope) -> Option<Step> {
        match self.waiting.get(&scope)?.last {
            Last::Failed(step) => step,
            Last::Repeated | Last::Succeeded => None,
        }
    }

    /// When all of these scopes may be tried, by the wall clock; none if that is now. If the connection's password is not
    /// `live`, it does not wait for a newer token.
    pub fn next_try(&self, all: &[RetryScope], live: bool, now: Moment) -> Option<Timestamp> {
        let until = all.iter().filter_map(|scope| self.earliest(*scope, live)).max()?;
        (until > now.since_boot).then(|| at(until, now))
    }

    fn in_trouble(&self, scope: RetryScope) -> Option<&Waiting> {
        self.waiting.get(&scope).filter(|waiting| waiting.last != Last::Succeeded)
    }

    /// Counts one try.
    fn use_one(&mut self, scope: RetryScope, now: Moment) {
        let used = self.used.entry(scope).or_default();
        *used = (*used).max(now.since_boot).saturating_add(LEAST_BETWEEN);
    }

    /// When a scope may be tried, since boot.
    fn earliest(&self, scope: RetryScope, live: bool) -> Option<Duration> {
        let waiting = self.waiting.get(&scope).filter(|waiting| live || waiting.last != Last::Repeated);
        let used = self.used.get(&scope).map(|used| used.saturating_sub(LEAST_BETWEEN.saturating_mul(BURST - 1)));
        waiting.map(|waiting| waiting.until).max(used)
    }
}

/// The wait after the next failure in a row: twice the previous one, within what `left` of a live credential allows. Once
/// that has expired, the waits grow on from the last one; the number of failures does not matter.
fn backoff(before: Option<Duration>, left: Option<Duration>, longest: Duration) -> Duration {
    let part = left.map(|left| left / PART_OF_LEFT);
    let longest = part.map_or(longest, |part| part.clamp(SHORTEST_CAP, longest));
    before.map_or(FIRST, |before| before.saturating_mul(2)).clamp(FIRST, longest)
}

/// The same for a server. Failures that have lasted for minutes and outlived the credential are retried at the slow pace at
/// once, without a burst of quick tries when the credential expires.
fn server_backoff(before: Option<Duration>, left: Option<Duration>, failing_for: Duration) -> Duration {
    let longest = longest_of_server(failing_for);
    if longest > LONGEST && left.is_none() { longest } else { backoff(before, left, longest) }
}

fn longest_of_server(failing_for: Duration) -> Duration {
    (failing_for / PART_OF_TROUBLE).clamp(LONGEST, LONGEST_OF_SERVER)
}

/// The wait after a failure that needs a person: short enough for one more try before a live credential expires.
fn probe(longest: Duration, left: Option<Duration>) -> Duration {
    left.map_or(longest, |left| (left / 2).clamp(SHORTEST_PROBE, longest))
}

/// The wait with jitter: between half and all of it, so that machines that failed together do not come back together.
fn jittered(wait: Duration, jitter: f64) -> Duration {
    wait.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// The wait that the other side asked for, and up to a tenth more.
fn asked_for(asked: Duration, jitter: f64) -> Duration {
    let asked = asked.min(LONGEST_ASKED);
    asked.saturating_add((asked / 10).min(LONGEST_SPREAD).mul_f64(jitter.clamp(0.0, 1.0)))
}

/// Converts a time since boot to the wall clock.
fn at(since_boot: Duration, now: Moment) -> Timestamp {
    let wait = since_boot.saturating_sub(now.since_boot);
    SignedDuration::try_from(wait).ok().and_then(|wait| now.wall.saturating_add(wait).ok()).unwrap_or(now.wall)
}

#[cfg(test)]
mod tests;
