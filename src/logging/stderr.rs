//! Messages to stderr, which nobody may read: a full pipe delays no rotation.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A reader is waited for so long, once; then it must show that it reads before it is waited for again.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
const NO_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A pipe that can be written to takes so many bytes at once without a wait (PIPE_BUF in limits.h).
const AT_ONCE: usize = if cfg!(target_os = "linux") { 4_096 } else { 512 };

static IS_STUCK: AtomicBool = AtomicBool::new(false);
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Writes a line. Where nobody reads it is dropped; how many were is said when somebody reads again.
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
        // Nobody is left to tell where it cannot be written.
        let _ = stderr.write_all(part);
    }
}
