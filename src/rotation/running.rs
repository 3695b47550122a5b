//! The mark of a program that stays: `run` and `proxy` hold a lock each for as long as they go on. So `status` knows of them, even
//! where no service manager does (a container, a terminal).

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::os::files::{is_the_one, make_directories, open_regular};
use crate::os::identity::try_as_owner_of;

/// The file of those who renew passwords.
pub(super) const NAME: &str = "running";

/// The file of a proxy.
#[cfg(feature = "cli")]
pub(crate) const PROXY: &str = "proxy-running";

/// Whoever looks holds the lock for a moment.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// How often one looks before what is held counts as held by one who stays.
const LOOKS: u32 = 3;
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// Held while a daemon runs. Several may run at once, with different configurations.
#[derive(Debug)]
pub(crate) struct Running {
    path: PathBuf,
    /// None where nothing can be written: then `status` does not know of this daemon.
    file: Option<File>,
}

/// A program whose loop has not come round for this long hangs: a daemon's does so each minute, a proxy's each half, and a look takes 90 s
/// at most.
#[cfg(feature = "cli")]
const LONGEST_SILENCE: Duration = Duration::from_secs(5 * 60);

impl Running {
    /// Marks this process as a daemon that keeps its record in `directory`.
    pub(crate) fn mark(directory: &Path) -> Self {
        Self::mark_as(NAME, directory)
    }

    /// The same by another name.
    pub(crate) fn mark_as(name: &str, directory: &Path) -> Self {
        let mut running = Running { path: directory.join(name), file: None };
        running.beat();
        running
    }

    /// The loop has come round. Others see it by the time of the file. Where that was removed, it is made again.
    pub(crate) fn beat(&mut self) {
        let held = self.file.as_ref().and_then(|file| file.metadata().ok());
        if !held.is_some_and(|held| is_the_one(&self.path, &held)) {
            self.file = mark(&self.path)
                .inspect_err(|error| {
                    tracing::debug!("cannot mark {}: {}", self.path.display(), crate::words::of_io(error));
                })
                .ok();
        }
        if let Some(file) = &self.file {
            let _ = file.set_modified(SystemTime::now());
        }
    }

    /// How long it is since the loop of a daemon has come round that keeps its record in `directory`; none where there is none, and an
    /// error where it has been too long.
    #[cfg(feature = "cli")]
    pub(crate) fn last_beat(directory: &Path) -> Option<Result<Duration, Duration>> {
        Self::last_beat_as(NAME, directory)
    }

    /// The same by another name.
    #[cfg(feature = "cli")]
    pub(crate) fn last_beat_as(name: &str, directory: &Path) -> Option<Result<Duration, Duration>> {
        if !Self::is_marked_as(name, directory) {
            return None;
        }
        let beat = std::fs::metadata(directory.join(name)).and_then(|found| found.modified()).ok()?;
        // A clock that was set back makes it the future.
        let since = SystemTime::now().duration_since(beat).unwrap_or_default();
        Some(if since < LONGEST_SILENCE { Ok(since) } else { Err(since) })
    }

    /// Whether a daemon runs that keeps its record in `directory`.
    pub(crate) fn is_marked(directory: &Path) -> bool {
        Self::is_marked_as(NAME, directory)
    }

    /// The same by another name.
    pub(crate) fn is_marked_as(name: &str, directory: &Path) -> bool {
        let opened = try_as_owner_of(directory, || {
            open_regular(&directory.join(name), OpenOptions::new().read(true).write(true))
        });
        opened.is_ok_and(|file| is_held(&file))
    }
}

/// Makes the file where it is missing, and holds its lock.
fn mark(path: &Path) -> io::Result<File> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    try_as_owner_of(directory, || {
        make_directories(directory, super::store::DIRECTORY_MODE)?;
        let mut options = OpenOptions::new();
        let file =
            open_regular(path, options.read(true).write(true).create(true).truncate(false).mode(super::store::MODE))?;
        file.set_permissions(Permissions::from_mode(super::store::MODE))?;
        lock(file)
    })
}

/// Whether somebody holds the lock who stays. Whoever looks takes it for a moment, alone, and who stays shares it.
fn is_held(file: &File) -> bool {
    let is_refused = |tried| matches!(tried, Err(TryLockError::WouldBlock));
    for look in 0..LOOKS {
        if look > 0 {
            std::thread::sleep(LOOK_PAUSE);
        }
        // Where it cannot be shared, somebody has it alone, and so nobody who stays.
        if !is_refused(file.try_lock()) || is_refused(file.try_lock_shared()) {
            return false;
        }
        // Or whoever looked has just gone.
        let _ = file.unlock();
    }
    true
}

fn lock(file: File) -> io::Result<File> {
    for _ in 0..TRIES {
        match file.try_lock_shared() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::inherited::until;

    #[test]
    fn a_daemon_is_seen_while_it_runs_and_no_longer() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        assert!(!Running::is_marked(&state), "nothing was ever there");
        let (one, other) = (Running::mark(&state), Running::mark(&state));
        assert!(Running::is_marked(&state));
        drop(one);
        assert!(Running::is_marked(&state), "the other one still runs");
        drop(other);
        until(|| !Running::is_marked(&state));
        let mut again = Running::mark(&state);
        assert!(Running::is_marked(&state));
        assert!(matches!(Running::last_beat(&state), Some(Ok(_))));
        let hangs = SystemTime::now() - LONGEST_SILENCE;
        again.file.as_ref().unwrap().set_modified(hangs).unwrap();
        assert!(matches!(Running::last_beat(&state), Some(Err(_))));
        again.beat();
        assert!(matches!(Running::last_beat(&state), Some(Ok(_))));
        // An earlier one's last beat is not this one's.
        again.file.as_ref().unwrap().set_modified(hangs).unwrap();
        let next = Running::mark(&state);
        assert!(matches!(Running::last_beat(&state), Some(Ok(_))));
        drop((again, next));
        until(|| Running::last_beat(&state).is_none());
    }

    #[test]
    fn whose_mark_was_removed_is_seen_again_when_it_next_comes_round() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let mut running = Running::mark(&state);
        std::fs::remove_dir_all(&state).unwrap();
        assert!(!Running::is_marked(&state));
        running.beat();
        assert!(Running::is_marked(&state));
    }

    #[test]
    fn who_looks_at_the_same_moment_is_not_taken_for_a_daemon() {
        let directory = tempfile::tempdir().unwrap();
        drop(Running::mark(directory.path()));
        let looks = File::open(directory.path().join(NAME)).unwrap();
        until(|| looks.try_lock().is_ok());
        assert!(!Running::is_marked(directory.path()));
        looks.unlock().unwrap();
        let _running = Running::mark(directory.path());
        assert!(Running::is_marked(directory.path()));
    }
}
