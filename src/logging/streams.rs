//! Messages to stderr or stdout. They may have no reader: a full pipe must not delay a rotation.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long to wait for a reader. After one timeout, we do not wait again until the reader has read something.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
const NO_PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A writable pipe accepts this many bytes at once without blocking (PIPE_BUF in limits.h).
const AT_ONCE: usize = if cfg!(target_os = "linux") { 4_096 } else { 512 };

static STDERR: Reader = Reader::new();
static STDOUT: Reader = Reader::new();

/// What is known of the one who reads a stream.
struct Reader {
    is_stuck: AtomicBool,
    dropped: AtomicU64,
}

/// Writes a line to stderr. If nobody reads, it is dropped; the number of dropped lines is reported once somebody reads again.
pub(super) fn to_stderr(line: &str) {
    STDERR.write(&mut io::stderr().lock(), line);
}

/// The same to stdout.
pub(super) fn to_stdout(line: &str) {
    STDOUT.write(&mut io::stdout().lock(), line);
}

impl Reader {
    const fn new() -> Self {
        Reader { is_stuck: AtomicBool::new(false), dropped: AtomicU64::new(0) }
    }

    fn write(&self, stream: &mut (impl Write + AsFd), line: &str) {
        for part in line.as_bytes().chunks(AT_ONCE) {
            let patience = if self.is_stuck.load(Ordering::Relaxed) { NO_PATIENCE } else { PATIENCE };
            let is_full = matches!(poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&patience)), Ok(0));
            self.is_stuck.store(is_full, Ordering::Relaxed);
            if is_full {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                let _ = stream.write_all(format!("({dropped} messages were lost: nobody read them)\n").as_bytes());
            }
            // If it fails, there is nobody to report to.
            let _ = stream.write_all(part).and_then(|()| stream.flush());
        }
    }
}
