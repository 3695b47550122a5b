//! What becomes of people's files when something goes wrong at the worst moment, and where a marked secret turns up.
//!
//! Each test runs a sample or a short form within its share of five minutes, and all of it where `DBX_ROTATOR_FAULTS=all` says
//! so, as `tests/run faults` does. What is random begins with a seed that is printed; `DBX_ROTATOR_SEED` repeats it.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops where it fails, and says what it measured"
)]

mod support;

#[path = "faults/canary.rs"]
mod canary;
#[path = "faults/disturbed.rs"]
mod disturbed;
#[path = "faults/level.rs"]
mod level;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/stage.rs"]
mod stage;
#[path = "faults/trace.rs"]
mod trace;
#[path = "faults/writers.rs"]
mod writers;
