//! What a rotation is asked to do.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::backoff::TIME_FOR_TRIES;
use super::record::ConnectionRecord;
use super::status::ConnectionStatus;

/// Which connections to rotate.
#[derive(Clone, Debug)]
pub(crate) enum RotateRequest {
    /// Those that are due.
    Due,
    /// Those that are due, or would expire before a timer's next run has had time to replace them.
    DueBeforeNextRun,
    /// All of them, except those that another instance has rotated since.
    All {
        /// By the wall clock.
        since: Timestamp,
    },
    /// Those that are due or have less than this left.
    ValidFor(SignedDuration),
}

impl RotateRequest {
    /// Whether it requests a new credential for a connection with this status; `past` is what happened to it before.
    pub(crate) fn selects(&self, status: &ConnectionStatus, past: Option<&ConnectionRecord>) -> bool {
        match self {
            RotateRequest::Due => status.is_due(),
            RotateRequest::DueBeforeNextRun => status.is_due() || status.dies_before_next_run(),
            RotateRequest::ValidFor(least) => status.is_due() || status.left().is_none_or(|left| left < *least),
            RotateRequest::All { since } => {
                status.is_due() || past.and_then(|past| past.last_rotation_at).is_none_or(|last| last < *since)
            }
        }
    }

    /// The least time that a new credential must live.
    pub(super) fn least(&self) -> SignedDuration {
        if let RotateRequest::ValidFor(least) = self { *least } else { SignedDuration::ZERO }
    }

    pub(super) fn is_of_timer(&self) -> bool {
        matches!(self, RotateRequest::DueBeforeNextRun)
    }
}

/// How long to go on trying.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// None if there is no limit.
    end: Option<Instant>,
    by_timer: bool,
}

impl Patience {
    /// The daemon's.
    pub(super) const ENDLESS: Patience = Patience { end: None, by_timer: false };

    /// A command's. A timer runs its command again.
    pub(super) fn of_command(patience: Duration, by_timer: bool) -> Self {
        Patience { end: Instant::now().checked_add(patience), by_timer }
    }

    pub(super) fn is_of_timer(&self) -> bool {
        self.by_timer
    }

    pub(super) fn is_endless(&self) -> bool {
        self.end.is_none()
    }

    pub(super) fn left(&self) -> Duration {
        self.end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()))
    }

    /// How much of what is left may be waited before the first try.
    pub(super) fn for_waiting(&self) -> Duration {
        self.left().saturating_sub(TIME_FOR_TRIES)
    }

    /// Whether a command fails rather than wait so long; a timer's does not where all that is concerned outlives its next run.
    pub(super) fn gives_up(&self, wait: Duration, outlives_next_run: bool) -> bool {
        let next_run_will_do = outlives_next_run && self.by_timer;
        !next_run_will_do && wait >= self.left()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::State;

    #[test]
    fn a_request_for_all_leaves_alone_what_another_instance_has_rotated_since() {
        let status = |state| ConnectionStatus { state, reason: None, token: None, now: Timestamp::UNIX_EPOCH };
        let at = |second| Timestamp::from_second(second).unwrap();
        let request = RotateRequest::All { since: at(100) };
        let rotated = |second| ConnectionRecord { last_rotation_at: Some(at(second)), ..ConnectionRecord::default() };
        assert!(request.selects(&status(State::Live), None));
        assert!(request.selects(&status(State::Live), Some(&rotated(99))));
        assert!(!request.selects(&status(State::Live), Some(&rotated(100))));
        assert!(request.selects(&status(State::Missing), Some(&rotated(100))));
    }
}
