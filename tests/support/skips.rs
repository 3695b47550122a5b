//! Reports that a test did not run and why: to people and, through `$DBX_ROTATOR_TEST_SKIPS`, to scripts that count.
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
        // In one write, since several test programs may run at once.
        list.write_all(format!("SKIP {name}: {reason}\n").as_bytes()).expect("write the list of skips");
    }
}
