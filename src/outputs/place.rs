//! Where something is written, and what a person reads when it cannot be.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::Path;

use zeroize::Zeroizing;

use crate::failure::{Code, Failure};
use crate::os::replace::{Attempt, Disk, FileError, Opened, Replacement, Snapshot, TRIES, directory_of, persist};

/// How the names of new files begin, until they have their own.
const PREFIX: &str = ".dbx-rotator-new-";

/// The mode of a new file, and the most that a private one may have: nothing for others, and nothing to execute.
const PRIVATE: u32 = 0o600;

/// The mode of a directory that has to be made.
const DIRECTORY: u32 = 0o700;

/// A file to be kept up to date.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// What it is called when it is spoken of.
    pub(super) what: &'static str,
    pub(super) path: &'a Path,
    /// Whether nobody else may read it.
    pub(super) private: bool,
}

impl Place<'_> {
    /// What is there, if it can be read.
    pub(super) fn look(&self) -> Result<Snapshot, Failure> {
        Snapshot::take(self.path).map_err(|error| self.cannot(&error))
    }

    /// Puts what `edit` makes of the file in its place, and the mode right; nothing is written where both are so already. `edit`
    /// is asked again when somebody else changed the file meanwhile.
    pub(super) fn keep(
        &self,
        mut edit: impl FnMut(&[u8]) -> Result<Zeroizing<Vec<u8>>, Failure>,
    ) -> Result<(), Failure> {
        persist(|_| {
            let old = self.look()?;
            let bytes = edit(&old.bytes)?;
            let was = old.file.as_ref().map(Opened::mode);
            let mode = self.mode(was);
            if bytes == old.bytes && was.is_none_or(|was| was == mode) {
                return Ok(Some(()));
            }
            self.replace(&old, &bytes, mode)
        })?
        .ok_or_else(|| self.unsettled())
    }

    fn mode(&self, was: Option<u32>) -> u32 {
        match was {
            None => PRIVATE,
            // Readable in any case: 0400 stays 0400.
            Some(was) if self.private => was & PRIVATE | 0o400,
            Some(was) => was,
        }
    }

    /// `None`: somebody else came in between.
    fn replace(&self, old: &Snapshot, bytes: &[u8], mode: u32) -> Result<Option<()>, Failure> {
        make_directory(old.directory())
            .map_err(|source| self.cannot_write("make its directory", source, old.directory()))?;
        let mut notes = Vec::new();
        if let Some(was) = old.file.as_ref().map(Opened::mode).filter(|was| *was != mode && was & 0o077 != 0) {
            notes.push(format!("mode {was:04o} is {mode:04o} now: others may have read what it held"));
        }
        let (private, path) = (self.private, self.path);
        let attempt =
            Replacement { old, bytes, mode, prefix: PREFIX, private, path, seam: &Disk, notes: &mut notes }.run();
        match attempt.map_err(|error| self.cannot(&error))? {
            Attempt::Overtaken => return Ok(None),
            Attempt::Done => tracing::debug!("updated the {} {}", self.what, path.display()),
        }
        for note in notes {
            tracing::warn!("the {} {}: {note}", self.what, path.display());
        }
        Ok(Some(()))
    }

    // ---- what is said ----

    /// A failure about this file, for this reason.
    pub(super) fn failure(&self, why: &dyn std::fmt::Display) -> Failure {
        let message = format!("cannot write the {} {}: {why}", self.what, self.path.display());
        Failure::permanent(Code::CannotWrite, message)
    }

    fn cannot(&self, error: &FileError) -> Failure {
        let path = self.path.display();
        let look = format!("look at it with `ls -l {path}`");
        let hint = match error {
            FileError::Write { source, .. } | FileError::Read { source, .. } if is_full(source) => MAKE_ROOM.to_owned(),
            FileError::Read { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                format!("{look}; one that root left behind is given back with `sudo chown $USER {path}`")
            }
            FileError::Write { source, path, .. } if is_refusal(source) => let_write(directory_of(path)),
            FileError::Open { .. } => format!("make it private with `chmod 600 {path}`"),
            FileError::NotAFile { .. } | FileError::TooLarge { .. } => {
                format!("name another file as the {}", self.what)
            }
            FileError::LinkLoop { .. } => format!("remove the link with `rm {path}`"),
            FileError::ForeignLink { target, .. } => {
                format!("run as the user who owns the link, or make that user the owner of {}", target.display())
            }
            FileError::NoDirectory { directory, .. } => {
                format!("create it with `mkdir -p -m 700 {}`", directory.display())
            }
            FileError::Read { .. } | FileError::Write { .. } => look,
        };
        self.failure(error).hint(hint)
    }

    fn cannot_write(&self, doing: &str, source: io::Error, directory: &Path) -> Failure {
        let hint = match &source {
            full if is_full(full) => MAKE_ROOM.to_owned(),
            refused if is_refusal(refused) => let_write(directory),
            _ => format!("create it with `mkdir -p -m 700 {}`", directory.display()),
        };
        self.failure(&format_args!("failed to {doing}: {source}")).hint(hint)
    }

    fn unsettled(&self) -> Failure {
        let why = format!("somebody else changed it each of {TRIES} times that it was about to be updated");
        let hint = format!("see what else writes it, with `fuser -v {}` for one", self.path.display());
        Failure { kind: crate::Kind::Transient, ..self.failure(&why).hint(hint) }
    }
}

const MAKE_ROOM: &str = "make room on that disk";

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// A sandbox lets nothing be written but what the unit names, and that must exist.
fn let_write(directory: &Path) -> String {
    let there = directory.ancestors().find(|directory| directory.is_dir()).unwrap_or(directory).display();
    format!(
        "make {there} writable for this user; where it is a systemd unit that may not, add ReadWritePaths={there} to its \
         [Service] with `systemctl edit` (for a user's own, `systemctl --user edit`), and restart it"
    )
}

/// Makes a directory and what is missing above it, for the owner of what is there, and brings their names to the disk.
fn make_directory(directory: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = directory.ancestors().take_while(|above| above.symlink_metadata().is_err()).collect();
    let Some(there) = missing.last().map(|topmost| directory_of(topmost)) else { return Ok(()) };
    DirBuilder::new().recursive(true).mode(DIRECTORY).create(directory)?;
    let owner = there.metadata()?;
    for made in missing.iter().rev() {
        if rustix::process::geteuid().is_root() && owner.uid() != 0 {
            chown(made, Some(owner.uid()), Some(owner.gid()))?;
        }
        // Some file systems know no such thing: then there is nothing to be done.
        let _ = File::open(directory_of(made)).and_then(|above| above.sync_all());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_write_is_told_what_a_sandboxed_unit_needs() {
        let directory = tempfile::tempdir().unwrap();
        let (there, path) = (directory.path(), directory.path().join("not/yet/token"));
        let place = Place { what: "token file", path: &path, private: true };
        for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            let error = FileError::Write { path: path.clone(), doing: "create a file beside it", source: kind.into() };
            let written = place.cannot(&error);
            let made = place.cannot_write("make its directory", kind.into(), &there.join("not/yet"));
            for failure in [written, made] {
                let hint = failure.hint.unwrap();
                assert!(hint.contains(&format!("ReadWritePaths={} ", there.display())), "what exists: {hint}");
                assert!(hint.contains("systemctl --user edit"), "{hint}");
                assert!(failure.message.contains("token file") && failure.message.contains("not/yet/token"));
                assert_eq!((failure.code, failure.kind), (Code::CannotWrite, crate::Kind::Permanent));
            }
        }
    }
}
