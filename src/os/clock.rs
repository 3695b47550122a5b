//! What time it is, for this machine and for the workspace.
//!
//! Token expiries are in the workspace's time. A machine with a wrong clock would rotate all the time, or too late. So the time from the
//! last answer's `Date` header, or a token's time of issue, is kept as an [`Anchor`], together with a clock that counts sleep and that
//! nobody sets. Of the resulting estimates the later one is used: an estimate that is too late costs an early rotation, one that is too
//! early a dead password.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A larger difference is reported as a wrong clock.
pub(crate) const NOTABLE_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// One reading of the machine's clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The wall clock (CLOCK_REALTIME).
    pub(crate) wall: Timestamp,
    /// Time since boot, sleep included.
    pub(crate) since_boot: Duration,
    /// Identifies the boot; none where the system does not tell.
    pub(crate) boot_id: Option<String>,
}

impl Reading {
    /// Reads the clocks now.
    pub(crate) fn now() -> Self {
        Reading { wall: Timestamp::now(), since_boot: since_boot(), boot_id: boot_id() }
    }
}

/// A point in time on both clocks: the wall clock for people and records, the time since boot for measuring waits, since
/// nobody can set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock.
    pub wall: Timestamp,
    /// Time since boot, sleep included.
    pub since_boot: Duration,
}

impl Moment {
    /// Reads both clocks now.
    pub(crate) fn now() -> Self {
        Moment { wall: Timestamp::now(), since_boot: since_boot() }
    }
}

impl From<&Reading> for Moment {
    fn from(reading: &Reading) -> Self {
        Moment { wall: reading.wall, since_boot: reading.since_boot }
    }
}

/// The workspace's time as last reported, and the machine's clocks at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Anchor {
    /// The workspace's time at that moment.
    pub(crate) server: Timestamp,
    /// The machine's wall clock at that moment.
    pub(crate) wall: Timestamp,
    /// The machine's time since boot at that moment.
    pub(crate) since_boot_seconds: u64,
    /// Which boot that was.
    pub(crate) boot_id: Option<String>,
}

impl Anchor {
    /// An anchor from an answer's `Date` header, and the clocks when it arrived.
    pub(crate) fn new(server: Timestamp, at: &Reading) -> Self {
        Anchor { server, wall: at.wall, since_boot_seconds: at.since_boot.as_secs(), boot_id: at.boot_id.clone() }
    }

    /// How far the workspace's clock is ahead of this machine's; negative when it is behind.
    pub(crate) fn skew(&self) -> SignedDuration {
        self.server.duration_since(self.wall)
    }
}

/// The workspace's time now, never earlier than the evidence allows.
///
/// In the same boot: the later of "anchor plus elapsed time" (right if the wall clock was set meanwhile) and "wall clock plus
/// skew" (right if the machine was paused and its clocks stood still, as virtual machines are). After a reboot the wall clock
/// may have been corrected: the later of the wall clock with and without the old skew.
pub(crate) fn workspace_time(now: &Reading, anchor: Option<&Anchor>) -> Timestamp {
    let Some(anchor) = anchor else { return now.wall };
    let skewed = now.wall.saturating_add(anchor.skew()).unwrap_or(now.wall);
    let same_boot = anchor.boot_id.is_some() && anchor.boot_id == now.boot_id;
    if same_boot {
        let since = now.since_boot.saturating_sub(Duration::from_secs(anchor.since_boot_seconds));
        let counted = anchor.server.saturating_add(since).unwrap_or(skewed);
        counted.max(skewed)
    } else {
        now.wall.max(skewed)
    }
}

/// The better of the known anchor and a token's time of issue. The workspace issued the token by its clock, so its time is at least
/// that. Only for a token that was issued just now: an older time of issue says nothing.
pub(crate) fn anchor_with_issue(known: Option<Anchor>, issued_at: Timestamp, now: &Reading) -> Option<Anchor> {
    if issued_at > workspace_time(now, known.as_ref()) { Some(Anchor::new(issued_at, now)) } else { known }
}

/// How far the workspace's clock is ahead of this machine's now. None after a reboot, which may have corrected the clock. If
/// the clock was set or the machine paused since the workspace reported its time, the smaller of the two estimates.
pub(crate) fn offset(now: &Reading, anchor: &Anchor) -> Option<SignedDuration> {
    if anchor.boot_id.is_none() || anchor.boot_id != now.boot_id {
        return None;
    }
    let since = now.since_boot.saturating_sub(Duration::from_secs(anchor.since_boot_seconds));
    let counted = anchor.server.saturating_add(since).ok()?.duration_since(now.wall);
    Some(if counted.abs() < anchor.skew().abs() { counted } else { anchor.skew() })
}

/// The warning about a machine's clock that is `offset` behind the workspace's (ahead if negative); none if the difference is
/// small.
pub(crate) fn wrong_by(offset: SignedDuration, origin: &str) -> Option<String> {
    let direction = if offset.is_positive() { "behind" } else { "ahead of" };
    let seconds = offset.abs().as_secs();
    (offset.abs() > NOTABLE_SKEW)
        .then(|| format!("this machine's clock is {seconds} s {direction} {origin}'s: corrected for, but set it right"))
}

/// CLOCK_BOOTTIME counts sleep, CLOCK_MONOTONIC does not (clock_gettime(2)).
#[cfg(not(target_os = "macos"))]
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// CLOCK_MONOTONIC_RAW counts sleep here: it is mach_continuous_time(3). CLOCK_UPTIME_RAW does not, and CLOCK_MONOTONIC is
/// derived from the wall clock and jumps a little with it (Libc, gen/clock_gettime.c).
#[cfg(target_os = "macos")]
fn since_boot() -> Duration {
    let clock = nix::time::ClockId::from_raw(nix::libc::CLOCK_MONOTONIC_RAW);
    // This cannot fail; without such a clock, only the wall clock would count.
    nix::time::clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

#[cfg(not(target_os = "macos"))]
fn boot_id() -> Option<String> {
    // random(4): generated once at boot.
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

#[cfg(target_os = "macos")]
fn boot_id() -> Option<String> {
    use sysctl::Sysctl;

    // A new UUID for each boot (xnu, bsd/kern/kern_sysctl.c); kern.boottime changes when the clock is set.
    sysctl::Ctl::new("kern.bootsessionuuid").and_then(|ctl| ctl.value_string()).ok().map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: i64, since_boot: u64, boot: &str) -> Reading {
        Reading {
            wall: Timestamp::from_second(wall).unwrap(),
            since_boot: Duration::from_secs(since_boot),
            boot_id: Some(boot.to_owned()),
        }
    }

    fn time(now: &Reading, anchor: &Anchor) -> i64 {
        workspace_time(now, Some(anchor)).as_second()
    }

    fn anchor(server: i64, wall: i64, since_boot: u64) -> Anchor {
        Anchor::new(Timestamp::from_second(server).unwrap(), &at(wall, since_boot, "a"))
    }

    #[test]
    fn a_wrong_wall_clock_is_corrected_for() {
        assert_eq!(time(&at(9_010, 110, "a"), &anchor(5_000, 9_000, 100)), 5_010);
        assert_eq!(time(&at(1_010, 110, "a"), &anchor(5_000, 1_000, 100)), 5_010);
    }

    #[test]
    fn a_wall_clock_set_back_does_not_make_a_token_younger() {
        assert_eq!(time(&at(2_000, 160, "a"), &anchor(5_000, 5_000, 100)), 5_060);
    }

    #[test]
    fn a_pause_that_only_the_wall_clock_saw_is_counted() {
        assert_eq!(time(&at(9_000, 101, "a"), &anchor(5_000, 5_000, 100)), 9_000);
    }

    #[test]
    fn after_a_reboot_the_later_reading_counts() {
        // The clock was an hour ahead and was corrected at boot: the old skew must not be applied to it.
        assert_eq!(time(&at(5_600, 5, "b"), &anchor(5_000, 8_600, 100)), 5_600);
        // The clock was an hour behind, and still is.
        assert_eq!(time(&at(1_500, 5, "b"), &anchor(5_000, 1_400, 100)), 5_100);
    }

    #[test]
    fn a_token_that_is_issued_in_the_future_shows_that_the_clock_is_slow() {
        let now = at(1_000, 100, "a");
        let (right, slow, fast) = (anchor(900, 900, 0), anchor(1_100, 980, 80), anchor(880, 1_000, 100));
        let issued = |second| Timestamp::from_second(second).unwrap();
        // What is known, when the token was issued, and the resulting workspace time.
        let cases: [(Option<&Anchor>, i64, i64); 9] = [
            (None, 400, 1_000),
            (None, 1_000, 1_000),
            (None, 1_120, 1_120),
            (None, 8_200, 8_200),
            (Some(&right), 999, 1_000),
            (Some(&right), 1_120, 1_120),
            (Some(&slow), 1_119, 1_120),
            (Some(&slow), 1_130, 1_130),
            (Some(&fast), 900, 900),
        ];
        for (known, issued_at, expected) in cases {
            let best = anchor_with_issue(known.cloned(), issued(issued_at), &now);
            assert_eq!(workspace_time(&now, best.as_ref()).as_second(), expected, "{known:?}, issued at {issued_at}");
            // A time of issue without news leaves the known anchor as it is.
            let is_news = issued_at == expected && issued_at != 1_000;
            assert_eq!(best.as_ref() == known, !is_news, "{known:?}, issued at {issued_at}");
        }
    }

    #[test]
    fn an_offset_is_reported_as_far_as_it_is_sure() {
        let seconds = |now: &Reading, anchor: &Anchor| offset(now, anchor).map(|offset| offset.as_secs());
        assert_eq!(seconds(&at(1_000, 100, "a"), &anchor(1_120, 1_000, 100)), Some(120));
        assert_eq!(seconds(&at(1_050, 150, "a"), &anchor(880, 1_000, 100)), Some(-120));
        // The clock was corrected meanwhile.
        assert_eq!(seconds(&at(1_170, 150, "a"), &anchor(1_120, 1_000, 100)), Some(0));
        // The clock was right, and the machine was paused meanwhile.
        assert_eq!(seconds(&at(9_000, 101, "a"), &anchor(1_000, 1_000, 100)), Some(0));
        assert_eq!(seconds(&at(1_000, 5, "b"), &anchor(1_120, 1_000, 100)), None);
        let said = |seconds| wrong_by(SignedDuration::from_secs(seconds), "https://w.example");
        assert_eq!((said(60), said(-60)), (None, None));
        assert!(said(61).unwrap().contains("61 s behind https://w.example's"));
        assert!(said(-120).unwrap().contains("120 s ahead of https://w.example's"));
    }
}
