//! The password file on disk: read it, replace it atomically and durably, lose nobody's edit.
//!
//! Nobody locks a password file, so there is no lock to join: the file is read, edited, and read again before the new
//! content takes its place. Edits that somebody else makes at the same moment are kept. (The caller's lock must keep two of
//! *our* processes apart.)

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::document::{Edit, Mismatch, Placement, Warning, publish, verify};
use super::entry::{Entry, Key};
use super::reader::{Current, Reading};
#[cfg(feature = "cli")]
use super::removal::Unwanted;
use crate::os::files::set_mode;
use crate::os::identity::as_owner_of;
use crate::os::replace::{
    Allowance, Attempt, Carry, Disk, FileError, FileFault, FsHooks, Opened, Replacement, Round, Snapshot, Turn,
    has_leftovers, is_displaced_being_written, leave, persist,
};

/// What it is called when it is spoken of.
const WHAT: &str = "password file";

/// How the names of new files begin, until they have the password file's.
const PREFIX: &str = ".pgpass-new-";

/// Mode bits that a password file must not have: libpq ignores it if group or others have any access, lib/pq if it is
/// executable.
const TOO_OPEN: u32 = 0o177;

/// libpq's own check.
const IGNORED_BY_LIBPQ: u32 = 0o077;

/// The mode of a new password file.
const NEW_MODE: u32 = 0o600;

/// The first few are enough to act on.
fn join(mismatches: &[Mismatch]) -> String {
    const SHOWN: usize = 3;
    let mut sentences: Vec<String> = mismatches.iter().take(SHOWN).map(ToString::to_string).collect();
    if mismatches.len() > SHOWN {
        sentences.push(format!("and {} more", mismatches.len() - SHOWN));
    }
    sentences.join("; ")
}

/// A password file on disk.
#[derive(Clone)]
pub struct PasswordFile {
    path: PathBuf,
    fs_hooks: Arc<dyn FsHooks>,
    /// What others may cost who write to it. None where each call has a second of its own.
    allowance: Option<Allowance>,
}

impl std::fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PasswordFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What [`PasswordFile::read`] found. `Debug` leaves the bytes out: they hold passwords.
pub struct Contents {
    /// The whole file; empty if there is none.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Whether the file exists.
    pub exists: bool,
    /// Its permission bits (`0o600`); if there is no file, those of a new one.
    pub mode: u32,
    /// The file that was read: the end of the path's symbolic links.
    pub target: PathBuf,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes: _, exists, mode, target } = self;
        let mut debug = f.debug_struct("Contents");
        debug.field("exists", exists).field("mode", mode).field("target", target).finish_non_exhaustive()
    }
}

impl Contents {
    /// libpq ignores a password file to which group or others have any access.
    #[must_use]
    pub fn is_ignored_by_libpq(&self) -> bool {
        self.mode & IGNORED_BY_LIBPQ != 0
    }
}

/// What [`PasswordFile::publish`] did.
#[derive(Clone, Debug)]
pub struct Published {
    /// Whether new content was written. (A corrected mode is a note.)
    pub changed: bool,
    /// Where each entry is, in the order of the entries.
    pub placements: Vec<Placement>,
    /// What moving lines cannot fix.
    pub warnings: Vec<Warning>,
    /// What else happened to the file: phrases without a subject, such as "mode ..." or "written in place ...".
    pub notes: Vec<String>,
    /// The mode that it has, where its file system sets none that libpq would accept.
    pub fixed_mode: Option<u32>,
}

/// The four key fields of an entry as written; any other line as a whole.
fn key_fields(line: &[u8]) -> &[u8] {
    let mut is_escaped = false;
    let mut colons = 0;
    for (index, byte) in line.iter().enumerate() {
        colons += usize::from(*byte == b':' && !is_escaped);
        is_escaped = *byte == b'\\' && !is_escaped;
        if colons == 4 && !line.starts_with(b"#") {
            return line.split_at(index).0;
        }
    }
    line
}

/// What the earlier attempts of one publication have done.
#[derive(Default)]
struct SoFar {
    /// What somebody else wrote and the file does not hold yet.
    carry: Option<Carry>,
    changed: bool,
    notes: Vec<String>,
    /// What is already in place.
    published: Option<Published>,
}

impl SoFar {
    /// An attempt has brought the file, and what was carried, to the wanted state.
    fn written(&mut self, changed: bool, notes: &mut Vec<String>) {
        if let Some(carry) = self.carry.take() {
            carry.done();
        }
        self.placed(changed, notes);
    }

    /// An attempt has brought the file to the wanted state; what was carried may be missing from it.
    fn placed(&mut self, changed: bool, notes: &mut Vec<String>) {
        self.changed |= changed;
        for note in notes.drain(..) {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }
}

/// What is to become of the file.
#[derive(Clone, Copy)]
enum Wish<'w> {
    With(&'w [Entry]),
    #[cfg(feature = "cli")]
    Without(&'w Unwanted<'w>),
}

impl Wish<'_> {
    fn edit(self, bytes: &[u8]) -> Edit {
        match self {
            Wish::With(entries) => publish(bytes, entries),
            #[cfg(feature = "cli")]
            Wish::Without(unwanted) => {
                Edit { bytes: unwanted.out_of(bytes).0, placements: Vec::new(), warnings: Vec::new() }
            }
        }
    }

    fn check(self, bytes: &[u8]) -> Result<(), FileFault> {
        match self {
            Wish::With(entries) => verify(bytes, entries).map_err(|mismatches| FileFault::Unread(join(&mismatches))),
            #[cfg(feature = "cli")]
            Wish::Without(unwanted) => match unwanted.out_of(bytes).1 {
                0 => Ok(()),
                _ => Err(FileFault::Unread("entries that were removed are there again".to_owned())),
            },
        }
    }
}

impl PasswordFile {
    /// The password file at this path; nothing is read or written yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::with_fs_hooks(path, Arc::new(Disk))
    }

    /// For tests: with a file system that can be told to misbehave.
    #[doc(hidden)]
    #[must_use]
    pub fn with_fs_hooks(path: impl Into<PathBuf>, fs_hooks: Arc<dyn FsHooks>) -> Self {
        Self { path: path.into(), fs_hooks, allowance: None }
    }

    /// The same; and all calls share this with whatever else has it.
    #[must_use]
    pub(crate) fn within(self, allowance: &Allowance) -> Self {
        Self { allowance: Some(allowance.clone()), ..self }
    }

    fn allowance(&self) -> Allowance {
        self.allowance.clone().unwrap_or_default()
    }

    /// The path as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file; if it is missing, the contents are empty.
    ///
    /// # Errors
    /// When it cannot be read, is no regular file, or is not to be trusted ([`FileError::is_read`] holds).
    pub fn read(&self) -> Result<Contents, FileError> {
        let Snapshot { target, bytes, file } =
            self.as_owner(|| Snapshot::take_settled(&self.path, &self.allowance()))?;
        let mode = file.as_ref().map_or(NEW_MODE, Opened::mode);
        Ok(Contents { bytes, exists: file.is_some(), mode, target })
    }

    /// Publishes all entries in one replacement of the file, and reads them back. Blocks: usually for a few
    /// milliseconds, and for less than a second if somebody else keeps writing.
    ///
    /// Nothing is written if nothing would change. On an error the old content is in place, unless the error says
    /// otherwise.
    ///
    /// # Errors
    /// A [`FileError`] that says what failed; its [`FileError::hint`] says what to do.
    pub fn publish(&self, entries: &[Entry]) -> Result<Published, FileError> {
        self.as_owner(|| self.bring(Wish::With(entries)))
    }

    /// Removes these entries, and returns how many there were. All else stays, and what somebody writes at the same moment, too.
    /// Where there are none, the file is not touched, and none is made.
    ///
    /// # Errors
    /// As [`PasswordFile::publish`].
    #[cfg(feature = "cli")]
    pub(crate) fn remove(&self, unwanted: &Unwanted<'_>) -> Result<usize, FileError> {
        let count = unwanted.out_of(&self.read()?.bytes).1;
        if count > 0 {
            self.as_owner(|| self.bring(Wish::Without(unwanted)))?;
        }
        Ok(count)
    }

    fn bring(&self, wish: Wish<'_>) -> Result<Published, FileFault> {
        let (mut so_far, mut tries) = (SoFar::default(), 0);
        let outcome = persist(&self.allowance(), |turn| {
            tries = turn.number;
            let round = self.attempt(turn, wish, &mut so_far)?;
            let (path, attempt) = (self.path.display(), tries);
            match &round {
                Round::Done(Published { changed, .. }) => {
                    tracing::debug!(%path, attempt, changed, "password file published")
                }
                Round::Overtaken => {
                    tracing::debug!(%path, attempt, "somebody else changed the password file: starting over")
                }
                Round::Behind | Round::Placed => {
                    tracing::debug!(%path, attempt, "taking over what somebody else wrote meanwhile")
                }
            }
            Ok::<_, FileFault>(round)
        });
        let SoFar { carry, published: in_place, .. } = so_far;
        // In every case, what somebody else wrote is kept.
        leave(carry, &self.path, PREFIX);
        // Somebody keeps writing; but clients read what was published.
        outcome?.or(in_place).ok_or(FileFault::Unsettled(tries))
    }

    /// One round of read, edit, compare, replace, read back.
    fn attempt(&self, turn: Turn, wish: Wish<'_>, so_far: &mut SoFar) -> Result<Round<Published>, FileFault> {
        let Turn { budget, insist, .. } = turn;
        let old = Snapshot::take_for(turn, &self.path)?;
        let edit = |bytes: &[u8]| Ok::<_, FileFault>(wish.edit(bytes).bytes);
        if so_far.carry.is_none() {
            so_far.carry = Carry::left_behind(&old, PREFIX, key_fields, edit)?;
        }
        let carried = so_far.carry.as_ref().map(|carry| carry.onto(&old.bytes, key_fields, edit)).transpose()?;
        let source = carried.as_ref().unwrap_or(&old.bytes);
        let Edit { bytes, placements, warnings } = wish.edit(source);
        // Checked before a byte is written: a live password is never replaced by something worse.
        wish.check(&bytes)?;
        let changed = bytes != old.bytes;
        let (mut notes, mut fixed_mode) = (Vec::new(), None);
        let (mode, mode_is_right, about_mode) = self.mend_mode(&old, changed);
        if changed || !mode_is_right {
            let (path, fs_hooks) = (self.path.as_path(), self.fs_hooks.as_ref());
            let (old, bytes, prefix, private, group, notes) = (&old, &bytes, PREFIX, false, None, &mut notes);
            let replacement = Replacement {
                old,
                bytes,
                mode,
                group,
                about_mode,
                prefix,
                private,
                path,
                insist,
                budget,
                fs_hooks,
                notes,
            };
            match replacement.run()? {
                Attempt::Overtaken => return Ok(Round::Overtaken),
                Attempt::Behind(carry) => {
                    so_far.placed(true, notes);
                    so_far.carry = Some(carry.with(so_far.carry.take(), key_fields, edit)?);
                    let notes = so_far.notes.clone();
                    so_far.published = Some(Published { changed, placements, warnings, notes, fixed_mode });
                    return Ok(Round::Behind);
                }
                Attempt::Done => {}
            }
            self.fs_hooks.placed();
            let now = Snapshot::take(&self.path)?;
            fixed_mode = now.file.as_ref().map(Opened::mode).filter(|now| now & IGNORED_BY_LIBPQ != 0);
            notes.extend(fixed_mode.map(|fixed| {
                format!(
                    "libpq ignores a password file of mode {fixed:04o}: let password_file name another place, or mount this one so \
                     that its files have mode 0600"
                )
            }));
            match wish.check(&now.bytes) {
                Ok(()) => {}
                Err(error) if now.bytes == *bytes => return Err(error),
                // Overwritten already by somebody who had not seen ours.
                Err(_) => return Ok(Round::Overtaken),
            }
            if so_far.carry.is_some() {
                // Somebody may have read the file before the carried lines were in it. Check again, and add what is missing.
                so_far.placed(changed, notes);
                so_far.carry = so_far.carry.take().map(Carry::placed);
                let notes = so_far.notes.clone();
                so_far.published = Some(Published { changed: so_far.changed, placements, warnings, notes, fixed_mode });
                self.fs_hooks.carried();
                return Ok(if now.bytes == *bytes { Round::Placed } else { Round::Behind });
            }
        } else {
            notes.extend(about_mode);
        }
        so_far.written(changed, &mut notes);
        let SoFar { changed, notes, .. } = std::mem::take(so_far);
        Ok(Round::Done(Published { changed, placements, warnings, notes, fixed_mode }))
    }

    /// Carries over what somebody wrote at the moment when an earlier process replaced the file, and removes the leftovers.
    /// The entries of these keys stay as they are. Nothing is written if there are no leftovers.
    ///
    /// # Errors
    /// As [`PasswordFile::publish`].
    pub(crate) fn settle(&self, keys: &[Key]) -> Result<(), FileError> {
        if self.is_settled() {
            return Ok(());
        }
        let now = self.read()?;
        let reading = Reading::new(&now.bytes);
        let entry = |key: &Key| match reading.current(key) {
            Current::Ours { password, .. } => Entry::new(key.clone(), password?, false).ok(),
            Current::Missing | Current::Shadowed { .. } => None,
        };
        let entries: Vec<Entry> = keys.iter().filter_map(entry).collect();
        self.publish(&entries).map(drop)
    }

    /// Whether somebody still writes to a file that an earlier publication replaced: [`PasswordFile::settle`] will carry that
    /// over.
    pub(crate) fn is_waited_for(&self) -> bool {
        as_owner_of(&self.path, || is_displaced_being_written(&self.path, PREFIX)).unwrap_or_default()
    }

    /// Whether nothing was left behind next to the file.
    pub(crate) fn is_settled(&self) -> bool {
        as_owner_of(&self.path, || !has_leftovers(&self.path, PREFIX)).unwrap_or(true)
    }

    /// With the power of the user whose place the path leads to, where root would work in it.
    fn as_owner<T>(&self, act: impl FnOnce() -> Result<T, FileFault>) -> Result<T, FileError> {
        let done = as_owner_of(&self.path, act).unwrap_or_else(|source| Err(FileFault::Read(source)));
        done.map_err(|fault| fault.of(WHAT, &self.path))
    }

    /// The mode that the file is to have, whether it has it now, and what is worth telling of that. Where nothing else changes, it is
    /// set here.
    fn mend_mode(&self, old: &Snapshot, content_changes: bool) -> (u32, bool, Option<String>) {
        let Some(file) = &old.file else { return (NEW_MODE, !content_changes, None) };
        let was = file.mode();
        // No access for group and others, not executable, but readable: 0400 stays 0400.
        let mode = was & !TOO_OPEN & 0o777 | 0o400;
        if mode == was {
            return (mode, true, None);
        }
        let about = if was & IGNORED_BY_LIBPQ == 0 {
            format!("mode {was:04o} is {mode:04o} now: lib/pq refuses other modes")
        } else {
            format!(
                "mode {was:04o} is {mode:04o} now: libpq ignored the file, and others may have read the passwords in it"
            )
        };
        let set = !content_changes && matches!(set_mode(&file.file, mode), Ok(None));
        (mode, set, Some(about))
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Somebody who writes to the displaced file: a line at first, then another password.
    struct Late(PathBuf, AtomicUsize);

    #[allow(clippy::unwrap_used, reason = "a test's own helper")]
    impl FsHooks for Late {
        fn displaced(&self) {
            assert!(!PasswordFile::new(&self.0).is_settled(), "after a kill nobody would find it");
            let mut beside = fs::read_dir(self.0.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
            let is_new = |path: &PathBuf| *path != self.0 && !fs::read_to_string(path).unwrap().contains("late");
            let displaced = beside.find(is_new).unwrap();
            let text = fs::read_to_string(&displaced).unwrap();
            match self.1.fetch_add(1, Ordering::Relaxed) {
                0 => fs::write(&displaced, text + "late:1:d:u:p\nlocalhost:1:*:eve:pass\n").unwrap(),
                1 => fs::write(&displaced, text.replace("old", "new")).unwrap(),
                _ => {}
            }
        }
    }

    #[test]
    fn a_removal_displaces_the_file_as_a_publication_does() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(".pgpass");
        fs::write(&path, "localhost:1:*:ada:pass\ndb:1:*:u:old\n").unwrap();
        let file = PasswordFile::with_fs_hooks(&path, Arc::new(Late(path.clone(), AtomicUsize::new(0))));
        let unwanted = Unwanted { host: "localhost", password: &"pass".into(), in_use: &[] };
        assert_eq!(file.remove(&unwanted).unwrap(), 1);
        let text = fs::read_to_string(&path).unwrap();
        // Of one key there is one line.
        assert_eq!(text.lines().filter(|line| line.starts_with("db:1")).count(), 1, "{text}");
        assert!(text.contains("late:1") && !text.contains(":pass"), "{text}");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
        fs::remove_file(&path).unwrap();
        assert_eq!((file.remove(&unwanted).unwrap(), path.exists()), (0, false), "none is made");
    }
}
