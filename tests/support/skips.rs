//! Says that a test did not run and why; for people and, through `$DBX_ROTATOR_TEST_SKIPS`, for who counts.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "test support: each user takes a part of it, and a broken one should stop the test loudly"
)]

use std::fs::OpenOptions;
use std::io::Write;

pub fn skip(name: &str, reason: &str) {
    eprintln!("SKIP {name}: {reason}");
    if let Some(list) = std::env::var_os("DBX_ROTATOR_TEST_SKIPS") {
        let mut list = OpenOptions::new().create(true).append(true).open(list).expect("open the list of skips");
        // In one write, since test programs may run side by side.
        list.write_all(format!("SKIP {name}: {reason}\n").as_bytes()).expect("write the list of skips");
    }
}
