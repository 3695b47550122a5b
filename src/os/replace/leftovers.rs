//! What a process left behind that was killed, or lost power, before its new file was renamed or the displaced one removed.
//!
//! A new file is of no use to anybody. A displaced one may hold what somebody wrote at the last moment, which must not
//! be lost.

use std::fs::{File, Metadata, TryLockError};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use super::new_file::{Name, Names, Stamp};
use super::snapshot::SIZE_LIMIT;
use crate::os::lease::{Asked, ask};

/// A new file older than this no longer has a process that will rename it.
const OLD: Duration = Duration::from_secs(60 * 60);

/// A displaced file that somebody wrote to.
pub(super) struct Edited {
    pub(super) path: PathBuf,
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// Its stamp when it was read.
    pub(super) stamp: Stamp,
}

/// Removes the new files of processes that live no more, and old ones that are as they were. Those that are not are returned, the
/// oldest first: to be taken over, and only then removed. One that somebody still writes to is left for later, and so is what goes
/// beyond the size of one file in sum.
pub(super) fn sweep(directory: &Path, names: &Names<'_>) -> Vec<Edited> {
    let mut edited = Vec::new();
    let mut room = SIZE_LIMIT;
    for path in named(directory, names) {
        let Ok(file) = open(&path) else { continue };
        let Ok(metadata) = file.metadata() else { continue };
        // If others can create files here too, they must not be able to make us carry something over.
        if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() {
            continue;
        }
        // The process that makes it holds a lock on it. If the file system has no locks, its age decides.
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(_)) if is_old(&metadata) => {}
            Err(_) => continue,
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.and_then(|name| Name::parse(name, names.beginning_of(name)?)) else {
            let _ = std::fs::remove_file(&path);
            continue;
        };
        let asked = ask(&file);
        if matches!(asked, Asked::BeingWritten) {
            continue;
        }
        // Read again: somebody may have written before the lease was granted. A new file may have had its place for a moment.
        let Ok(now) = file.metadata().map(|metadata| Stamp::of(&metadata)) else { continue };
        if now == name.old || now == name.new {
            let _ = std::fs::remove_file(&path);
        } else if now.length <= room {
            let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(now.length).unwrap_or(0)));
            if (&file).take(now.length).read_to_end(&mut bytes).is_ok() {
                room -= now.length;
                edited.push(Edited { path, bytes, stamp: now });
            }
        }
    }
    edited.sort_by_key(|edited| edited.stamp.modified());
    edited
}

/// Removes a file that has been carried over, unless somebody is writing to it or has written since; then it is found again.
pub(super) fn remove(path: &Path, as_read: Stamp) {
    let Ok(file) = open(path) else { return };
    let asked = ask(&file);
    let is_as_read = file.metadata().is_ok_and(|metadata| Stamp::of(&metadata) == as_read);
    if is_as_read && !matches!(asked, Asked::BeingWritten) {
        let _ = std::fs::remove_file(path);
    }
}

fn open(path: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map(File::from)
}

/// Removes new files of dead processes, in a directory where no file is ever displaced.
pub(crate) fn remove_leftovers(directory: &Path, prefix: &str) {
    sweep(directory, &Names::all(prefix));
}

/// Whether somebody still writes to a file that was displaced.
pub(super) fn is_one_being_written(directory: &Path, names: &Names<'_>) -> bool {
    let is_written = |path: PathBuf| open(&path).is_ok_and(|file| matches!(ask(&file), Asked::BeingWritten));
    named(directory, names).any(is_written)
}

fn is_old(metadata: &Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    age.is_some_and(|age| age > OLD)
}

/// Whether there is anything that [`sweep`] would look at. Cheap: it reads the directory and nothing else.
pub(super) fn are_there(directory: &Path, names: &Names<'_>) -> bool {
    named(directory, names).next().is_some()
}

/// The same of what [`remove_leftovers`] would look at.
pub(crate) fn are_any_there(directory: &Path, prefix: &str) -> bool {
    are_there(directory, &Names::all(prefix))
}

fn named<'a>(directory: &Path, names: &'a Names<'a>) -> impl Iterator<Item = PathBuf> + use<'a> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_ours =
        |entry: &std::fs::DirEntry| entry.file_name().to_str().is_some_and(|name| names.beginning_of(name).is_some());
    entries.filter(is_ours).map(|entry| entry.path())
}
