//! Waits until nobody writes to a file, within limits.
//!
//! A shell empties a file long before its command writes to it. Replacing the file in between would lose what is written; waiting
//! for ever would leave clients without a password.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use super::budget::Budget;
use crate::os::lease::{Asked, ask};

/// The longest that one writer is waited for, by all of this process together: a rotation must not come a second later for it.
pub(super) const LONGEST: Duration = Duration::from_millis(800);

/// How often to ask.
const PAUSE: Duration = Duration::from_millis(2);

/// A file by its device, inode and time of birth, since inode numbers are reused.
type Which = (u64, u64, Option<SystemTime>);

/// The files that are being written, and since when we know that.
static KNOWN: Mutex<BTreeMap<Which, Instant>> = Mutex::new(BTreeMap::new());

/// Asks until nobody writes, or it has been waited for long enough: as long as the budget allows, and at least and at most for so
/// long; but never for longer than [`LONGEST`] after this writer was first seen.
pub(super) fn wait(file: &File, budget: &Budget<'_>, (at_least, at_most): (Duration, Duration)) -> Asked {
    let now = budget.now();
    let mut until = budget.until().min(now + at_most).max(now + at_least);
    loop {
        let answer = ask(file);
        let now = budget.now();
        let Some(first_seen) = first_seen(file, matches!(answer, Asked::BeingWritten), now) else { return answer };
        until = until.min(first_seen + LONGEST);
        if now >= until {
            return answer;
        }
        budget.wait(PAUSE);
    }
}

/// When it was first seen being written, if it is.
fn first_seen(file: &File, is_being_written: bool, now: Instant) -> Option<Instant> {
    let mut known = KNOWN.lock().ok()?;
    if !is_being_written && known.is_empty() {
        return None;
    }
    let metadata = file.metadata().ok()?;
    let which = (metadata.dev(), metadata.ino(), metadata.created().ok());
    if is_being_written {
        return Some(*known.entry(which).or_insert(now));
    }
    known.remove(&which);
    None
}
