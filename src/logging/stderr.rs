//! Messages to stderr. It may have no reader: a full pipe must not delay a rotation.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long to wait for a reader. After one timeout, we do not wait again until the reader has read something.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
const NO_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A writable pipe accepts this many bytes at once without blocking (PIPE_BUF in limits.h).
const AT_ONCE: usize = if cfg!(target_os = "linux") { 4_096 } else { 512 };

static IS_STUCK: AtomicBool = AtomicBool::new(false);
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Writes a line. If nobody reads, it is dropped; the number of dropped lines is reported once somebody reads again.
pub(super) fn write(line: &str) {
    let mut stderr = io::stderr().lock();
    for part in line.as_bytes().chunks(AT_ONCE) {
        let patience = if IS_STUCK.load(Ordering::Relaxed) { NO_PATIENCE } else { PATIENCE };
        let is_full = matches!(poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&patience)), Ok(0));
        IS_STUCK.store(is_full, Ordering::Relaxed);
        if is_full {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = stderr.write_all(format!("({dropped} messages were lost: nobody read them)\n").as_bytes());
        }
        // If stderr fails, there is nobody to report to.
        let _ = stderr.write_all(part);
    }
}
