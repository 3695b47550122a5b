//! A year in a minute: `cargo bench --bench year`.
//!
//! The program's own schedule and backoff decide when to try; the machines, the workspace and the time are simulated. The two
//! tables on standard output are Markdown for `docs/schedule.md`, which explains them. The random numbers have fixed seeds, so
//! that the same code prints the same tables.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints its tables")]

#[path = "year/fleet.rs"]
mod fleet;
#[path = "year/machine.rs"]
mod machine;
#[path = "year/world.rs"]
mod world;

use std::time::Duration;

use dbx_rotator::simulation::Moment;
use jiff::Timestamp;

/// Well after boot and after 1970, so that no time is before either.
const START: f64 = 1_000_000.0;

/// A simulated time, in seconds.
fn moment(at: f64) -> Moment {
    let since_boot = Duration::from_secs_f64(START + at);
    Moment { wall: timestamp(at), since_boot }
}

fn timestamp(at: f64) -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_secs_f64(START + at)
}

fn seconds(at: Timestamp) -> f64 {
    at.duration_since(Timestamp::UNIX_EPOCH).as_secs_f64() - START
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let asks_for = |word: &str| words.iter().any(|given| given == word);
    // `cargo test --benches` runs this too, without `--bench` and with a debug build.
    if !asks_for("--bench") || asks_for("--list") || asks_for("--test") {
        return;
    }
    machine::print_table();
    println!();
    fleet::print_table();
}
