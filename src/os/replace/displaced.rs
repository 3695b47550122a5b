//! The file that ours has displaced: did somebody write to it at the last moment?
//!
//! A program that opened it before, or that our lease delayed, writes to it now, where nobody would ever read that. So it is
//! checked once more before it is removed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use tempfile::TempPath;
use zeroize::Zeroizing;

use super::leftovers::{self, Edited, sweep};
use super::merge::merge;
use super::new_file::{Name, Names, Stamp, rename_where_nobody_is};
use super::snapshot::{Opened, SIZE_LIMIT, Snapshot};
use super::{Budget, quiet};
use crate::os::lease::{Asked, ask};
use crate::words;

/// How long a program that has found the file by its path has time to open it and be noticed: opening takes microseconds, but it
/// may have to wait for a processor.
const MOMENT: Duration = Duration::from_millis(1);

/// The same if the system cannot tell who has the file open: then only what they wrote is noticed.
const LONGER_MOMENT: Duration = Duration::from_millis(10);

/// The least time for somebody who still writes to a file without a name: what they write exists nowhere else.
const LAST_MOMENT: Duration = Duration::from_millis(100);

/// What somebody wrote to a displaced file, to be carried over into the current one.
pub(crate) struct Carry {
    /// Their version.
    pub(crate) theirs: Zeroizing<Vec<u8>>,
    /// The content that both they and we started from; none if that is no longer known.
    base: Option<Zeroizing<Vec<u8>>>,
    /// Where it is kept meanwhile, and the file's stamp when it was read.
    kept: Vec<(PathBuf, Stamp)>,
    /// Whether some of it is not on disk.
    is_in_memory: bool,
}

impl Carry {
    /// Everything that earlier processes or rotations have left to carry over, if anything. Other leftovers are removed. `key` and
    /// `edit` are as for [`Carry::onto`].
    pub(crate) fn left_behind<E>(
        now: &Snapshot,
        prefix: &str,
        key: fn(&[u8]) -> &[u8],
        mut edit: impl FnMut(&[u8]) -> Result<Zeroizing<Vec<u8>>, E>,
    ) -> Result<Option<Self>, E> {
        let mut all: Option<Self> = None;
        for edited in sweep(now.directory(), &now.names_beside(prefix)) {
            all = Some(Carry::from(edited).with(all, key, &mut edit)?);
        }
        Ok(all)
    }

    /// Only the first of these, where they must not be mixed.
    pub(crate) fn one_left_behind(now: &Snapshot, prefix: &str) -> Option<Self> {
        sweep(now.directory(), &now.names_beside(prefix)).into_iter().next().map(Carry::from)
    }

    /// Combines this with what was carried earlier. That was already put in, but into a file that others then replaced, so it may be
    /// missing from theirs. `key` and `edit` are as for [`Carry::onto`].
    pub(crate) fn with<E>(
        mut self,
        earlier: Option<Self>,
        key: fn(&[u8]) -> &[u8],
        edit: impl FnMut(&[u8]) -> Result<Zeroizing<Vec<u8>>, E>,
    ) -> Result<Self, E> {
        if let Some(earlier) = earlier.map(Carry::placed) {
            self.theirs = earlier.onto(&self.theirs, key, edit)?;
            // Both may already be in the file, so only missing lines are added.
            self.base = None;
            self.kept.extend(earlier.kept);
            self.is_in_memory |= earlier.is_in_memory;
        }
        Ok(self)
    }

    /// Merges their version with what the file holds now. `edit` puts our entries into each version, so that those make no
    /// difference. `key` is the part of a line that must be unique in the file.
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

    /// Call this once it has been put in: from now on only missing lines are added.
    pub(crate) fn placed(mut self) -> Self {
        self.base = None;
        self
    }

    /// It cannot be brought there now: it is kept for who looks next, in one file, so that a long fight does not fill the directory.
    pub(super) fn leave(self, directory: &Path, names: &Names<'_>) {
        let is_too_large = self.theirs.len() as u64 > SIZE_LIMIT;
        if !self.is_in_memory && (self.kept.len() < 2 || is_too_large) {
            return;
        }
        let keep = || -> io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(names.own()).tempfile_in(directory)?;
            // No other process takes it for a leftover before it is complete.
            let _ = file.as_file().try_lock();
            file.write_all(&self.theirs)?;
            file.as_file().sync_all()?;
            let path = directory.join(Name { new: Stamp::unique(), old: Stamp::default() }.text(names.own()));
            // Held by its descriptor until it has its name.
            let (_locked, beside) = file.into_parts();
            rename_where_nobody_is(&beside, &path)?;
            beside.keep().map(drop).map_err(|error| error.error)
        };
        // Another of our processes may have removed it as a leftover, before it was locked.
        match keep().or_else(|error| if error.kind() == io::ErrorKind::NotFound { keep() } else { Err(error) }) {
            Ok(()) => self.done(),
            Err(error) if self.is_in_memory => {
                tracing::warn!(
                    "cannot keep what somebody wrote to a file in {} meanwhile: {}",
                    directory.display(),
                    words::of_io(&error)
                );
            }
            // The files stay where they are.
            Err(_) => {}
        }
    }

    /// It has been carried over: removes what was kept.
    pub(crate) fn done(self) {
        for (path, as_read) in &self.kept {
            leftovers::remove(path, *as_read);
        }
    }

    /// Puts the file back in its place unchanged.
    pub(crate) fn put_back(self, target: &Path) -> io::Result<()> {
        self.kept.first().map_or(Ok(()), |(path, _)| std::fs::rename(path, target))
    }
}

impl From<Edited> for Carry {
    fn from(Edited { path, bytes, stamp }: Edited) -> Self {
        Carry { theirs: bytes, base: None, kept: vec![(path, stamp)], is_in_memory: false }
    }
}

/// What happened to the displaced file.
pub(super) enum End {
    /// Nobody wrote to it, and it has been removed.
    Gone,
    Edited(Carry),
    /// Somebody renamed something other than a regular file over it at the last moment.
    Strange(TempPath),
    /// Somebody still has it open, and the time is over. It stays for the next run, if it still has a name.
    BeingWritten {
        is_kept: bool,
    },
}

/// Checks what `name` refers to, or, if it no longer has a name, the file that was read; it lost its place at `displaced_at`. Waits,
/// as long as the budget allows, for whoever has it open.
pub(super) fn look(
    old: &Snapshot,
    file: &Opened,
    name: Option<TempPath>,
    displaced_at: Instant,
    budget: &Budget<'_>,
) -> io::Result<End> {
    let known = Stamp::of(&file.metadata);
    let found = name.as_ref().map(|name| name.symlink_metadata());
    let expected = match found {
        Some(Ok(found)) => Stamp::of(&found).is_same_file_as(&known),
        // Another of our processes has already checked and removed it.
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => true,
        Some(Err(error)) => return Err(error),
        None => true,
    };
    let carry = |theirs, as_read, name: Option<TempPath>| {
        let path = name.and_then(|name| name.keep().ok());
        let kept: Vec<(PathBuf, Stamp)> = path.into_iter().map(|path| (path, as_read)).collect();
        let is_in_memory = kept.is_empty();
        End::Edited(Carry { theirs, base: Some(old.bytes.clone()), kept, is_in_memory })
    };
    if !expected {
        return match (name.as_deref().map(open), name) {
            (Some(Ok(other)), Some(name)) => {
                let quiet = quiet::wait(&other.file, budget, (LONGER_MOMENT, quiet::LONGEST));
                let as_read = Stamp::of(&other.file.metadata()?);
                let theirs = other.read()?;
                drop(quiet);
                Ok(carry(theirs, as_read, Some(name)))
            }
            (_, Some(name)) => Ok(End::Strange(name)),
            (_, None) => Ok(End::Gone),
        };
    }
    // Twice: a program that the first look delayed has the file open at the second. Meanwhile the file keeps its name, so that what
    // they write can be kept even if it takes them too long.
    let mut passed = displaced_at.elapsed();
    for _ in 0..2 {
        std::thread::sleep(MOMENT.saturating_sub(passed));
        passed = Duration::ZERO;
        // Who never pauses has the next file open as soon as they have done with this: there is no end of waiting for them.
        let at_most = if budget.is_behind() { LONGER_MOMENT } else { quiet::LONGEST };
        let quiet = quiet::wait(&file.file, budget, (LONGER_MOMENT, at_most));
        match quiet {
            Asked::BeingWritten => {
                let is_kept = name.is_some_and(|name| name.keep().is_ok());
                return Ok(End::BeingWritten { is_kept });
            }
            Asked::Unknown => std::thread::sleep(LONGER_MOMENT),
            Asked::Quiet(_) => {}
        }
        let as_read = Stamp::of(&file.file.metadata()?);
        let now = file.read()?;
        if now != old.bytes {
            return Ok(carry(now, as_read, name));
        }
    }
    drop(name);
    late(old, file, budget).map(|now| now.map_or(End::Gone, |now| carry(now, known, None)))
}

/// Gives what was displaced its place back.
pub(super) fn put_back(name: TempPath, target: &Path) -> io::Result<()> {
    if let Err(error) = std::fs::rename(&name, target) {
        return not_lost(name, error);
    }
    // The temporary name no longer exists: the guard must not remove it.
    let _ = name.keep();
    Ok(())
}

/// What was displaced did not get its place back. It is no longer there where another process of ours has found it, which takes over
/// what is in it. Else it keeps its name, and the next run takes it over.
pub(super) fn not_lost(name: TempPath, error: io::Error) -> io::Result<()> {
    let _ = name.keep();
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// What somebody wrote to a new file of ours, which had its place for a moment only.
pub(super) fn written_meanwhile(name: &Path, bytes: &[u8], budget: &Budget<'_>) -> io::Result<Written> {
    let file = match open(name) {
        // Another process of ours has found it, and takes over what was written.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Written::Nothing),
        file => file?,
    };
    let quiet = quiet::wait(&file.file, budget, (LONGER_MOMENT, quiet::LONGEST));
    if matches!(quiet, Asked::BeingWritten) {
        return Ok(Written::NotYet);
    }
    let theirs = file.read()?;
    if *theirs == bytes {
        return Ok(Written::Nothing);
    }
    Ok(Written::Something(Carry { theirs, base: None, kept: Vec::new(), is_in_memory: true }))
}

/// What [`written_meanwhile`] found.
pub(super) enum Written {
    Nothing,
    Something(Carry),
    /// Somebody has it open, and has had the time that there is.
    NotYet,
}

/// The file has no name any more but is still open. Returns what somebody wrote to it, if they did.
fn late(old: &Snapshot, file: &Opened, budget: &Budget<'_>) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    if !matches!(ask(&file.file), Asked::BeingWritten) && Stamp::of(&file.file.metadata()?) == Stamp::of(&file.metadata)
    {
        return Ok(None);
    }
    let _quiet = quiet::wait(&file.file, budget, (LAST_MOMENT, quiet::LONGEST));
    let now = file.read()?;
    Ok((now != old.bytes).then_some(now))
}

fn open(path: &Path) -> io::Result<Opened> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok(Opened::new(file, metadata)) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PREFIX: &str = ".new-";

    /// A directory with an empty file, and a snapshot of that.
    fn place() -> (tempfile::TempDir, Snapshot) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        fs::write(&path, "").unwrap();
        let now = Snapshot::take(&path).unwrap();
        (home, now)
    }

    fn left_behind(now: &Snapshot) -> Option<Carry> {
        let as_it_is = |bytes: &[u8]| Ok::<_, ()>(Zeroizing::new(bytes.to_vec()));
        Carry::left_behind(now, PREFIX, |line| line, as_it_is).unwrap()
    }

    /// What so many files hold that were left behind. Between fork and exec, the children of other tests have our files open and locked;
    /// what is open then is left for later.
    fn carried_from(files: usize, now: &Snapshot) -> Carry {
        for _ in 0..10_000 {
            match left_behind(now) {
                Some(carry) if carry.kept.len() == files => return carry,
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        panic!("there are not {files} files");
    }

    fn in_memory(theirs: &str) -> Carry {
        let theirs = Zeroizing::new(theirs.as_bytes().to_vec());
        Carry { theirs, base: None, kept: Vec::new(), is_in_memory: true }
    }

    /// The contents of the other files.
    fn others(home: &tempfile::TempDir) -> Vec<String> {
        let paths = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| !path.ends_with("file")).map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    #[test]
    fn all_that_was_left_is_taken_over_at_once_and_kept_in_one_file_where_it_cannot_be() {
        let (home, now) = place();
        let names = now.names_beside(PREFIX);
        for theirs in ["a\n", "b\n", "c\n"] {
            in_memory(theirs).leave(home.path(), &names);
        }
        let other = Snapshot::take(&home.path().join("other")).unwrap();
        assert!(left_behind(&other).is_none(), "it is not what another file of the directory has lost");
        assert_eq!(others(&home).len(), 3, "none takes the place of another");
        carried_from(3, &now).leave(home.path(), &names);
        let [one] = others(&home).try_into().unwrap();
        let mut lines: Vec<&str> = one.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["a", "b", "c"]);
        carried_from(1, &now).done();
        assert_eq!(others(&home), Vec::<String>::new());
    }

    #[test]
    fn what_is_written_while_it_is_taken_over_is_found_again() {
        let (home, now) = place();
        in_memory("a\n").leave(home.path(), &now.names_beside(PREFIX));
        let carry = carried_from(1, &now);
        let mut writer = fs::OpenOptions::new().append(true).open(&carry.kept[0].0).unwrap();
        writer.write_all(b"b\n").unwrap();
        drop(writer);
        carry.done();
        assert_eq!(others(&home), ["a\nb\n"]);
    }
}
