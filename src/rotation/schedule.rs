//! When to replace a credential: pure functions of its issue, its expiry, and the machine.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use ring::digest::{Context, SHA256};

/// The vendor's own SDKs refresh this long before the expiry, or at half of a shorter life (databricks-sdk-go, cache.go).
const LEAD: SignedDuration = SignedDuration::from_mins(20);

/// Whatever its life, a credential is not kept longer than users of the Python original expect.
const OLDEST: SignedDuration = SignedDuration::from_mins(50);

/// However late the user wants it: at least this must be left, so that there is time to recover from a failure.
const LEAST_LEFT: SignedDuration = SignedDuration::from_secs(60);

/// The packaged timer runs every ten minutes, up to half a minute late; after that there must be time for a few tries.
pub const NEXT_RUN: SignedDuration = SignedDuration::from_mins(13);

/// The vendor's CLI hands out the same token until less than this is left (databricks-sdk-go, u2m/persistent_auth.go).
const CLI_WINDOW: SignedDuration = SignedDuration::from_mins(5);

/// The longest that one request or child may take.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(30);

/// The shortest limit, for a credential that lives for less than half a minute.
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(2);

/// The shortest limit for one that lives long enough: a slow network or a busy workspace can still meet it.
const SHORTEST_OF_LONG_LIFE: Duration = Duration::from_secs(5);

/// The longest that a round may take: its identity and the lock are not blocked for longer.
const LONGEST_ROUND: Duration = Duration::from_secs(60);

/// The shortest limit in which a sign-in and the requests after it can still be done.
const SHORTEST_ROUND: Duration = Duration::from_secs(5);

/// Machines refresh earlier by up to this part of the lead, each by a different amount.
const PART_OF_LEAD: f64 = 0.1;

/// After a power cut thousands of machines start at once. Servers spread their first requests over this time since boot.
const AFTER_BOOT: Duration = Duration::from_secs(90);

/// One machine's place among many, the same at every start, so that identical machines do not ask a workspace at the same time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Two independent numbers from 0 to 1. If they were related, machines that start later would refresh earlier, and all
    /// would meet at the first refresh.
    refresh: f64,
    boot: f64,
}

impl Spread {
    /// No spread: for tests, and for a timer, which has its own (`RandomizedDelaySec=`).
    pub const NONE: Spread = Spread { refresh: 0.0, boot: 0.0 };

    /// The spread of one user on one machine. `machine` is the content of `/etc/machine-id`, or else the host name. It is
    /// hashed, as machine-id(5) requires.
    pub fn of(machine: &[u8], user: u32) -> Spread {
        let mut context = Context::new(&SHA256);
        context.update(b"dbx-rotator spread");
        context.update(&user.to_be_bytes());
        context.update(machine);
        let digest = context.finish();
        let part = |from: usize| {
            let bytes = digest.as_ref().iter().skip(from).take(4);
            f64::from(bytes.fold(0_u32, |number, byte| (number << 8) | u32::from(*byte))) / (f64::from(u32::MAX) + 1.0)
        };
        Spread { refresh: part(0), boot: part(4) }
    }
}

/// When a credential becomes due.
///
/// Without an interval: half of its life, at most 20 minutes, before the expiry, and never more than 50 minutes after
/// it was issued. With one: that long after it was issued, but so that at least a twelfth of the life and at least 60 s are left (half
/// of the life if it is too short for that). The spread makes it earlier by up to a tenth of the lead (what is then left),
/// or of the age if that is less.
pub fn refresh_at(issued: Timestamp, expires: Timestamp, interval: Option<Duration>, spread: Spread) -> Timestamp {
    let life = expires.duration_since(issued).max(SignedDuration::ZERO);
    let (least, age) = match interval.and_then(|interval| SignedDuration::try_from(interval).ok()) {
        None => ((life / 2).min(LEAD), OLDEST),
        Some(interval) => ((life / 12).max(LEAST_LEFT).min(life / 2), interval),
    };
    let latest = expires.saturating_sub(least).unwrap_or(issued);
    let wanted = latest.min(issued.saturating_add(age).unwrap_or(latest));
    // For a credential that lives for days, a tenth of the lead would be hours.
    let shorter = expires.duration_since(wanted).min(wanted.duration_since(issued)).max(SignedDuration::ZERO);
    wanted.saturating_sub(shorter.mul_f64(PART_OF_LEAD * spread.refresh)).unwrap_or(wanted)
}

/// How long a server that has just started leaves the workspace alone; zero once it has been up for a while, or without a
/// spread. Not for machines that somebody sits in front of.
pub fn after_boot(since_boot: Duration, spread: Spread) -> Duration {
    AFTER_BOOT.mul_f64(spread.boot).saturating_sub(since_boot)
}

/// Whether a credential will expire before a timer's next run has had time to recover from a failure. Then this run must
/// replace it, however late the user wants that.
pub fn dies_before_next_run(issued: Timestamp, expires: Timestamp, now: Timestamp) -> bool {
    expires.duration_since(now) < NEXT_RUN.min(expires.duration_since(issued) / 2)
}

/// How long one request or child may take: a quarter of what is left of the live credential, so that there is time for another try;
/// at most 30 s, and at least a twelfth of its life within 2 and 5 s. A limit that no answer can meet would make every further try
/// useless.
pub fn attempt_limit(left: Option<SignedDuration>, life: Option<SignedDuration>) -> Duration {
    let part = |whole: Option<SignedDuration>, parts: i32| {
        whole.filter(|whole| whole.is_positive()).and_then(|whole| Duration::try_from(whole / parts).ok())
    };
    let shortest = part(life, 12).unwrap_or_default().clamp(SHORTEST_ATTEMPT, SHORTEST_OF_LONG_LIFE);
    part(left, 4).map_or(LONGEST_ATTEMPT, |quarter| quarter.clamp(shortest, LONGEST_ATTEMPT))
}

/// How long one round in the background may take: half of what is left of the live credential that expires first, so that
/// there is time for another; at least 5 and at most 60 s.
pub fn round_deadline(shortest_left: Option<SignedDuration>) -> Duration {
    let half = shortest_left.filter(|left| left.is_positive()).and_then(|left| Duration::try_from(left / 2).ok());
    half.map_or(LONGEST_ROUND, |half| half.clamp(SHORTEST_ROUND, LONGEST_ROUND))
}

/// When to ask a CLI again that still hands out a due token: once it will have a new one; none if it should have one
/// already.
pub fn ask_cli_again(now: Timestamp, expires: Timestamp) -> Option<Timestamp> {
    let window = expires.saturating_sub(CLI_WINDOW).ok()?.saturating_add(SignedDuration::from_secs(1)).ok()?;
    (window > now).then_some(window)
}

#[cfg(test)]
mod tests;
