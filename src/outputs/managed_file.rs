//! A file that is kept up to date, and what people read when it cannot be.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::failure::{Code, Failure};
use crate::os::files::{make_directories, set_mode};
use crate::os::identity::as_owner_of;
use crate::os::replace::{
    Allowance, Attempt, Budget, Carry, Disk, FileFault, Group, Opened, Replacement, Round, Snapshot, TRIES, Turn,
    has_leftovers, is_displaced_being_written, leave, persist,
};
use crate::words;

/// How the names of new files begin before they are renamed.
const PREFIX: &str = ".dbx-rotator-new-";

/// The mode of a new file, and the most that a private one may have: nothing for others, and not executable.
const PRIVATE: u32 = 0o600;

/// Any access of group or others.
const OTHERS: u32 = 0o077;

/// The mode of a directory that has to be made.
const DIRECTORY: u32 = 0o700;

/// What makes the new content of the old. One type for all files: the program has the code that replaces them once.
type Edit<'e> = dyn FnMut(&[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> + 'e;

/// A file to keep up to date.
#[derive(Clone, Copy)]
pub(super) struct ManagedFile<'a> {
    /// Its name in messages.
    pub(super) what: &'static str,
    pub(super) path: &'a Path,
    /// Whether nobody else may read it, but whom it is given to.
    pub(super) private: bool,
    /// The mode and the group of a private file, where they are not the owner's alone.
    pub(super) given: Option<Given<'a>>,
}

/// Whom a private file is given to.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) mode: u32,
    /// None where it is left to the directory, or to the file that is there.
    pub(super) group: Option<Group<'a>>,
}

impl<'a> ManagedFile<'a> {
    /// One for this user alone.
    pub(super) fn private(what: &'static str, path: &'a Path) -> Self {
        ManagedFile { what, path, private: true, given: None }
    }

    fn group(&self) -> Option<Group<'a>> {
        self.given?.group
    }

    /// Its present state.
    pub(super) fn look(&self) -> Result<Snapshot, Failure> {
        self.as_owner(|| Snapshot::take(self.path).map_err(|error| self.cannot(error)))
    }

    /// Its name where whoever it is for finds these bytes in it. Nothing is changed, as [`ManagedFile::is_kept`] would.
    ///
    /// # Errors
    /// What keeps them from that.
    #[cfg(feature = "cli")]
    pub(super) fn holds(&self, bytes: &[u8]) -> Result<String, Failure> {
        const HINT: &str = "run `dbx-rotator rotate --if-due`, which writes it again";
        let (now, name) = (self.look()?, format!("the {} {}", self.what, self.path.display()));
        let is_let_in =
            |file: &Opened| self.has_its_group(file) && self.given.is_none_or(|given| given.mode & !file.mode() == 0);
        let why = match &now.file {
            None => "does not exist",
            Some(_) if *now.bytes != bytes => "does not hold the live password",
            Some(file) if !is_let_in(file) => {
                "has another mode or group than the settings say, so that those it is for cannot read it"
            }
            Some(_) => return Ok(name),
        };
        Err(Failure::permanent(Code::TryAgain, format!("{name} {why}")).hint(HINT))
    }

    /// Puts what `edit` makes of the file in its place, and the mode right; nothing is written where both are so already. `edit`
    /// is asked again when somebody else changed the file meanwhile.
    pub(super) fn keep(
        &self,
        allowance: &Allowance,
        mut edit: impl FnMut(&[u8]) -> Result<Zeroizing<Vec<u8>>, Failure>,
    ) -> Result<(), Failure> {
        self.as_owner(|| self.keep_as_we_are(allowance, &mut edit))
    }

    /// Acts as the owner of the file's place, if that is not root's.
    fn as_owner<T>(&self, act: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        as_owner_of(self.path, act).map_err(|error| self.failure(&error).hint("run it as that user"))?
    }

    fn keep_as_we_are(&self, allowance: &Allowance, mut edit: &mut Edit<'_>) -> Result<(), Failure> {
        let mut carry: Option<Carry> = None;
        let (mut is_written, mut tries) = (false, 0);
        let outcome = persist(allowance, |turn| {
            let Turn { number, budget, insist } = turn;
            tries = number;
            let insist = insist && !self.private;
            let old = Snapshot::take_for(turn, self.path).map_err(|error| self.cannot(error))?;
            if self.private {
                self.save_one(&old, edit);
            } else if carry.is_none() {
                carry = Carry::left_behind(&old, PREFIX, |line| line, &mut edit)?;
            }
            let bytes = match &carry {
                Some(carry) => {
                    let both = carry.onto(&old.bytes, |line| line, &mut edit)?;
                    edit(&both)?
                }
                None => edit(&old.bytes)?,
            };
            let was = old.file.as_ref().map(Opened::mode);
            let mode = self.mode(was);
            let is_given = old.file.as_ref().is_none_or(|file| was == Some(mode) && self.has_its_group(file));
            let is_right = bytes == old.bytes && is_given;
            let round = if is_right {
                Round::Done(())
            } else {
                let mut displaced = None;
                let round = self.replace(&old, &bytes, mode, (insist, budget), &mut displaced)?;
                if let Some(displaced) = displaced {
                    carry = Some(displaced.with(carry.take(), |line| line, &mut edit)?);
                }
                round
            };
            is_written |= matches!(round, Round::Behind);
            // See PasswordFile.
            if carry.is_some() && !is_right && matches!(round, Round::Done(())) {
                is_written = true;
                carry = carry.take().map(Carry::placed);
                return Ok(if self.is_overwritten(&bytes)? { Round::Behind } else { Round::Placed });
            }
            match (&round, carry.take()) {
                (Round::Overtaken, kept) => carry = kept,
                (Round::Behind, Some(displaced)) if self.private => {
                    // A file that was put there at the last moment may not be ours to replace.
                    if let Err(failure) = edit(&displaced.theirs) {
                        let _ = displaced.put_back(&old.target);
                        return Err(failure);
                    }
                    displaced.done();
                    return Ok(Round::Done(()));
                }
                (Round::Behind | Round::Placed, kept) => carry = kept,
                (Round::Done(()), Some(done)) => done.done(),
                (Round::Done(()), None) => {}
            }
            Ok(round)
        });
        // In every case, what somebody else wrote is kept.
        leave(carry, self.path, PREFIX);
        outcome?.or(is_written.then_some(())).ok_or_else(|| self.cannot(FileFault::Unsettled(tries)))
    }

    /// Whether somebody else has changed what was just put there.
    fn is_overwritten(&self, ours: &[u8]) -> Result<bool, Failure> {
        let now = Snapshot::take(self.path).map_err(|error| self.cannot(error))?;
        Ok(*now.bytes != ours)
    }

    /// Deals with one file that was left behind beside a private file; returns whether there was one.
    fn save_one(&self, old: &Snapshot, edit: &mut Edit<'_>) -> bool {
        Carry::one_left_behind(old, PREFIX).map(|left| self.drop_or_save(left, old, edit)).is_some()
    }

    /// Nothing is merged into a private file, but a displaced file that is not ours is kept.
    fn drop_or_save(&self, carry: Carry, old: &Snapshot, edit: &mut Edit<'_>) {
        if edit(&carry.theirs).is_ok() {
            carry.done();
            return;
        }
        let mut name = old.target.clone().into_os_string();
        name.push(".displaced");
        match carry.put_back(Path::new(&name)) {
            Ok(()) => tracing::warn!("what somebody put in the place of the {} is in {}", self.what, name.display()),
            Err(error) => {
                let why = words::of_io(&error);
                tracing::warn!("cannot keep what somebody put in the place of the {}: {why}", self.what);
            }
        }
    }

    /// Whether nothing was left behind beside it by a process that was killed.
    pub(super) fn is_settled(&self) -> bool {
        as_owner_of(self.path, || !has_leftovers(self.path, PREFIX)).unwrap_or(true)
    }

    /// Whether somebody still writes to the file that it replaced.
    pub(super) fn is_waited_for(&self) -> bool {
        as_owner_of(self.path, || is_displaced_being_written(self.path, PREFIX)).unwrap_or_default()
    }

    /// Removes what was left behind beside a private file, if `is_ours` says so.
    pub(super) fn tidy(&self, is_ours: impl Fn(&[u8]) -> bool) {
        let _ = as_owner_of(self.path, || self.tidy_as_we_are(&is_ours));
    }

    fn tidy_as_we_are(&self, is_ours: &dyn Fn(&[u8]) -> bool) {
        let Ok(old) = Snapshot::take(self.path) else { return };
        let mut check = |bytes: &[u8]| match is_ours(bytes) {
            true => Ok(Zeroizing::default()),
            false => Err(self.failure(&"it is not ours")),
        };
        // A file that cannot be renamed is found again, so the tries are limited.
        for _ in 0..TRIES {
            if !self.save_one(&old, &mut check) {
                return;
            }
        }
    }

    fn mode(&self, was: Option<u32>) -> u32 {
        if let Some(given) = self.given {
            return given.mode;
        }
        match was {
            None => PRIVATE,
            // Always readable: 0400 stays 0400.
            Some(was) if self.private => was & PRIVATE | 0o400,
            Some(was) => was,
        }
    }

    /// One attempt. `carry` gets the displaced file, if its contents must still be carried over.
    fn replace(
        &self,
        old: &Snapshot,
        bytes: &[u8],
        mode: u32,
        (insist, budget): (bool, &Budget<'_>),
        carry: &mut Option<Carry>,
    ) -> Result<Round<()>, Failure> {
        make_directories(old.directory(), DIRECTORY)
            .map_err(|source| self.cannot(FileFault::MakeDirectory(old.directory().to_owned(), source)))?;
        let mut notes = Vec::new();
        let was = old.file.as_ref().map(Opened::mode).filter(|was| was & OTHERS & !mode != 0);
        let (private, path, group) = (self.private, self.path, self.group());
        let attempt = Replacement {
            old,
            bytes,
            mode,
            group,
            about_mode: was.map(|was| wider(was, mode)),
            prefix: PREFIX,
            private,
            path,
            insist,
            budget,
            fs_hooks: &Disk,
            notes: &mut notes,
        }
        .run();
        let round = match attempt.map_err(|error| self.cannot(error))? {
            Attempt::Overtaken => return Ok(Round::Overtaken),
            Attempt::Done => Round::Done(()),
            Attempt::Behind(displaced) => {
                *carry = Some(displaced);
                Round::Behind
            }
        };
        tracing::debug!("updated the {} {}", self.what, path.display());
        for note in notes {
            tracing::warn!("the {} {}: {note}", self.what, path.display());
        }
        Ok(round)
    }

    /// Whether its mode and group keep others out, and let in whom it is given to, as far as that can be. Where the mode could and
    /// does not, it does from now on; what we do not own, or is another group's, gets another file in its place instead.
    pub(super) fn is_kept(&self, file: &Opened) -> bool {
        let (was, us) = (file.mode(), rustix::process::geteuid());
        let mode = self.mode(Some(was));
        if !self.has_its_group(file) {
            return false;
        }
        if if self.given.is_some() { was == mode } else { was & OTHERS == 0 } {
            return true;
        }
        let is_ours = us.is_root() || file.metadata.uid() == us.as_raw();
        match is_ours.then(|| set_mode(&file.file, mode)) {
            Some(Ok(Some(_))) => true,
            Some(Ok(None)) => {
                if was & OTHERS & !mode != 0 {
                    tracing::warn!("the {} {}: {}", self.what, self.path.display(), wider(was, mode));
                }
                false
            }
            Some(Err(_)) | None => false,
        }
    }

    fn has_its_group(&self, file: &Opened) -> bool {
        self.group().is_none_or(|group| group.is_of(file))
    }

    // ---- what is said ----

    /// A failure with this file and this reason.
    pub(super) fn failure(&self, why: &dyn std::fmt::Display) -> Failure {
        let message = format!("cannot write the {} {}: {why}", self.what, self.path.display());
        Failure::permanent(Code::CannotWrite, message)
    }

    fn cannot(&self, fault: FileFault) -> Failure {
        Failure::from(&fault.of(self.what, self.path))
    }
}

fn wider(was: u32, mode: u32) -> String {
    format!("mode {was:04o} is {mode:04o} now: others may have read what it held")
}
