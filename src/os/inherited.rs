//! For tests: a child of another test that is between fork and exec still has our files open, and with them our locks, our leases and
//! our sockets.

use std::time::{Duration, Instant};

/// Waits for what is true as soon as no such child is left.
#[track_caller]
pub(crate) fn until(mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_true() {
        assert!(Instant::now() < deadline, "it is not the children of other tests");
        std::thread::sleep(Duration::from_millis(1));
    }
}
