//! The file that has lost its place to ours: did somebody write to it at the last moment?
//!
//! Who opened it before it was displaced, or was held up by our lease, writes to it now, and nobody would ever read that. So it is
//! looked at again before it goes.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use tempfile::TempPath;
use zeroize::Zeroizing;

use super::leftovers::{Edited, sweep};
use super::merge::merge;
use super::new_file::{Name, Stamp};
use super::quiet;
use super::snapshot::{Opened, Snapshot};
use crate::os::lease::{Asked, ask};

/// Somebody who has found the file by its path, and has not opened it yet, gets so long to be seen: opening takes microseconds, but
/// they may have to wait for a processor.
const MOMENT: Duration = Duration::from_millis(1);

/// The same where nobody can be seen, only what they wrote.
const LONGER_MOMENT: Duration = Duration::from_millis(10);

/// What somebody wrote to a file that had been displaced, to be brought to where it belongs.
pub(crate) struct Carry {
    /// What they made of it.
    pub(crate) theirs: Zeroizing<Vec<u8>>,
    /// What it held when we read it, which both they and we started from; none where that is not known any more.
    base: Option<Zeroizing<Vec<u8>>>,
    /// Where it is kept meanwhile.
    paths: Vec<PathBuf>,
    /// Whether a part of it is not on disk.
    is_in_memory: bool,
}

impl Carry {
    /// What an earlier process has left, if there is any such thing. Other leftovers go.
    pub(crate) fn left_behind(now: &Snapshot, prefix: &str) -> Option<Self> {
        let carry =
            |Edited { path, bytes }| Carry { theirs: bytes, base: None, paths: vec![path], is_in_memory: false };
        sweep(now.directory(), prefix).map(carry)
    }

    /// This and what was carried before: that was put in, but into a file that was not the newest any more, so that it may be missing
    /// from what the others make of that. `key` and `edit` are as for [`Carry::onto`].
    pub(crate) fn with<E>(
        mut self,
        earlier: Option<Self>,
        key: fn(&[u8]) -> &[u8],
        edit: impl FnMut(&[u8]) -> Result<Zeroizing<Vec<u8>>, E>,
    ) -> Result<Self, E> {
        if let Some(earlier) = earlier.map(Carry::placed) {
            self.theirs = earlier.onto(&self.theirs, key, edit)?;
            // Both may be in the file by now: only what is missing is put in.
            self.base = None;
            self.paths.extend(earlier.paths);
            self.is_in_memory |= earlier.is_in_memory;
        }
        Ok(self)
    }

    /// Both in one: theirs, and what the file holds now. `edit` puts what is ours into each, so that it makes no difference; `key`
    /// is what two lines have in common of which a file needs one.
    pub(crate) fn onto<E>(
        &self,
        now: &[u8],
        key: fn(&[u8]) -> &[u8],
        mut edit: impl FnMut(&[u8]) -> Result<Zeroizing<Vec<u8>>, E>,
    ) -> Result<Zeroizing<Vec<u8>>, E> {
        let base = self.base.as_ref().map(|base| edit(base)).transpose()?;
        let (theirs, now) = (edit(&self.theirs)?, edit(now)?);
        Ok(Zeroizing::new(merge(base.as_ref().map(|base| base.as_slice()), &theirs, &now, key)))
    }

    /// It has been put in once, and may be in the file already: from now on only what is missing is put in.
    pub(crate) fn placed(mut self) -> Self {
        self.base = None;
        self
    }

    /// It cannot be brought there now: it is kept for who looks next.
    pub(crate) fn leave(self, directory: &Path, prefix: &str) {
        if !self.is_in_memory {
            return;
        }
        let kept = || -> io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(prefix).tempfile_in(directory)?;
            file.write_all(&self.theirs)?;
            let none = Stamp::default();
            let path = directory.join(Name { new: none, old: none }.text(prefix));
            file.persist_noclobber(path).map_err(|error| error.error).map(drop)
        };
        if let Err(error) = kept() {
            tracing::warn!("cannot keep what somebody wrote to a file in {} meanwhile: {error}", directory.display());
        }
    }

    /// It has been brought there.
    pub(crate) fn done(self) {
        for path in &self.paths {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Gives the file its place back, as it is.
    pub(crate) fn put_back(self, target: &Path) -> io::Result<()> {
        self.paths.first().map_or(Ok(()), |path| std::fs::rename(path, target))
    }
}

/// What became of the displaced file.
pub(super) enum End {
    /// Nobody wrote to it, and it is gone.
    Gone,
    Edited(Carry),
    /// Somebody renamed something over the file at the last moment that is no file with bytes.
    Strange(TempPath),
    /// Somebody still has it open, and has had the time that there is. It stays, by its name where it has one, for who looks next.
    BeingWritten {
        is_kept: bool,
    },
}

/// Looks at what `name` leads to, or, where it has none any more, at the file that was read.
/// Who has it open is waited for until `until`.
pub(super) fn look(old: &Snapshot, file: &Opened, name: Option<TempPath>, until: Instant) -> io::Result<End> {
    let until = until.max(Instant::now() + LONGER_MOMENT);
    let known = Stamp::of(&file.metadata);
    let found = name.as_ref().map(|name| name.symlink_metadata());
    let expected = match found {
        Some(Ok(found)) => Stamp::of(&found).is_same_file_as(&known),
        // Another process of ours has looked at it already, and taken it away.
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => true,
        Some(Err(error)) => return Err(error),
        None => true,
    };
    let carry = |theirs, name: Option<TempPath>| {
        let paths: Vec<PathBuf> = name.and_then(|name| name.keep().ok()).into_iter().collect();
        let is_in_memory = paths.is_empty();
        End::Edited(Carry { theirs, base: Some(old.bytes.clone()), paths, is_in_memory })
    };
    if !expected {
        return match (name.as_deref().map(open), name) {
            (Some(Ok(other)), Some(name)) => {
                let quiet = quiet::wait(&other.file, until);
                let theirs = other.read()?;
                drop(quiet);
                Ok(carry(theirs, Some(name)))
            }
            (_, Some(name)) => Ok(End::Strange(name)),
            (_, None) => Ok(End::Gone),
        };
    }
    // Twice: who was held up by the first look has it open by the second. It keeps its name meanwhile, so that what they write can be
    // kept, too, where that takes them too long.
    for _ in 0..2 {
        std::thread::sleep(MOMENT);
        let quiet = quiet::wait(&file.file, until);
        match quiet {
            Asked::BeingWritten => {
                let is_kept = name.is_some_and(|name| name.keep().is_ok());
                return Ok(End::BeingWritten { is_kept });
            }
            Asked::Unknown => std::thread::sleep(LONGER_MOMENT),
            Asked::Quiet(_) => {}
        }
        let now = file.read()?;
        if now != old.bytes {
            return Ok(carry(now, name));
        }
    }
    drop(name);
    late(old, file, carry)
}

/// What somebody wrote to a new file of ours, which had its place for a moment only.
pub(super) fn written_meanwhile(name: &Path, bytes: &[u8], until: Instant) -> io::Result<Option<Carry>> {
    let file = open(name)?;
    let _quiet = quiet::wait(&file.file, until.max(Instant::now() + LONGER_MOMENT));
    let theirs = file.read()?;
    Ok((*theirs != bytes).then_some(Carry { theirs, base: None, paths: Vec::new(), is_in_memory: true }))
}

/// Its name is gone, but the file is still open.
fn late(old: &Snapshot, file: &Opened, carry: impl Fn(Zeroizing<Vec<u8>>, Option<TempPath>) -> End) -> io::Result<End> {
    if !matches!(ask(&file.file), Asked::BeingWritten) && Stamp::of(&file.file.metadata()?) == Stamp::of(&file.metadata)
    {
        return Ok(End::Gone);
    }
    // What they write now is nowhere else, so they get their time.
    let _quiet = quiet::wait(&file.file, Instant::now() + quiet::LONGEST);
    let now = file.read()?;
    Ok(if now == old.bytes { End::Gone } else { carry(now, None) })
}

fn open(path: &Path) -> io::Result<Opened> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok(Opened::new(file, metadata)) } else { Err(io::ErrorKind::InvalidInput.into()) }
}
