//! The parts that decide when to try, for `benches/year.rs`, which simulates time around them.

pub use crate::os::clock::Moment;
pub use crate::rotation::backoff::{Backoff, Change, MOST_PER_HOUR, RetryScope, Step, TIME_FOR_TRIES};
pub use crate::rotation::schedule::{
    NEXT_RUN, Spread, after_boot, ask_cli_again, attempt_limit, dies_before_next_run, refresh_at, round_deadline,
};
