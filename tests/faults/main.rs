//! What happens to people's files when something goes wrong at the worst moment, and where a marked secret appears.
//!
//! Each test runs a sample or a short form within its share of five minutes, and everything with `DBX_ROTATOR_FAULTS=all`, as
//! `tests/run faults` does. Random tests print their seed; `DBX_ROTATOR_SEED` repeats it.
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
#[cfg(target_os = "linux")]
mod refresh;
mod security;
#[cfg(target_os = "linux")]
mod stage;
#[cfg(target_os = "linux")]
mod trace;
#[cfg(target_os = "linux")]
mod writers;
