//! What becomes of people's files when something goes wrong at the worst moment, and where a marked secret turns up.
//!
//! Each test runs a sample or a short form within its share of five minutes, and all of it where `DBX_ROTATOR_FAULTS=all` says
//! so, as `tests/run faults` does. What is random begins with a seed that is printed; `DBX_ROTATOR_SEED` repeats it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops where it fails, and says what it measured"
)]

#[path = "../support/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
mod canary;
#[cfg(target_os = "linux")]
mod disturbed;
#[cfg(target_os = "linux")]
mod filesystems;
#[cfg(target_os = "linux")]
mod level;
#[cfg(target_os = "linux")]
mod limits;
#[cfg(target_os = "linux")]
mod reads;
mod security;
#[cfg(target_os = "linux")]
mod stage;
#[cfg(target_os = "linux")]
mod trace;
#[cfg(target_os = "linux")]
mod writers;
