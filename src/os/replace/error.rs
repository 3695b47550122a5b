//! Why a file could not be read or replaced, and what to do next: one error for all files that are kept up to date.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::snapshot::directory_of;
use crate::failure::{Code, Failure};
use crate::typed::{shell_path, shell_word};
use crate::words;

/// Why a file could not be read or replaced; which file, and what it is.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct FileError {
    /// What it is called when it is spoken of, such as "password file".
    pub what: &'static str,
    /// The path as it was given.
    pub path: PathBuf,
    /// What went wrong.
    pub fault: FileFault,
}

/// What can go wrong with a file. The old content is there, unless a message says otherwise.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileFault {
    /// It exists and cannot be read.
    Read(io::Error),
    /// Anything but a regular file is refused, as libpq does; what it is instead.
    NotAFile(&'static str),
    /// It has more than 16 MiB.
    TooLarge,
    /// Its symbolic links lead in a circle.
    LinkLoop,
    /// Running as root, a link of one user leads to this file of another.
    ForeignLink(PathBuf),
    /// There is no such directory to create it in.
    NoDirectory(PathBuf),
    /// This directory, which it was to be in, could not be made.
    MakeDirectory(PathBuf, io::Error),
    /// It is to be private, others can read it, and it can only be written in place: they would read on.
    Open,
    /// A step of writing failed.
    Write {
        /// The step.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It could not be given to this group, as the person calls it.
    Group {
        /// By name or number.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Somebody else changed it each of so many times that it was tried.
    Unsettled(u32),
    /// Clients would not read what was to be published: what they would read instead.
    Unread(String),
}

impl FileFault {
    pub(crate) fn of(self, what: &'static str, path: &Path) -> FileError {
        FileError { what, path: path.to_owned(), fault: self }
    }
}

impl FileError {
    fn sentence(&self) -> String {
        let file = format!("the {} {}", self.what, self.path.display());
        match &self.fault {
            FileFault::Read(source) => format!("cannot read {file}: {}", words::of_io(source)),
            FileFault::NotAFile(kind) => format!("{file} is {kind}, not a regular file"),
            FileFault::TooLarge => format!("{file} has more than 16 MiB: it cannot be what it should be"),
            FileFault::LinkLoop => format!("{file} is a symbolic link that leads nowhere: too many links"),
            FileFault::ForeignLink(target) => {
                format!("{file} is a user's symbolic link to {}, which is not that user's", target.display())
            }
            FileFault::NoDirectory(directory) => {
                format!("cannot create {file}: there is no directory {}", directory.display())
            }
            FileFault::MakeDirectory(directory, source) => {
                format!(
                    "cannot create {file}: failed to make its directory {}: {}",
                    directory.display(),
                    words::of_io(source)
                )
            }
            FileFault::Open => format!("cannot write {file}: others can read it, and it can only be written in place"),
            FileFault::Write { doing, source } => {
                format!("cannot write {file}: failed to {doing}: {}", words::of_io(source))
            }
            FileFault::Group { name, source } => {
                format!("cannot write {file}: it cannot be given to the group {name}: {}", words::of_io(source))
            }
            FileFault::Unsettled(tries) => {
                format!("{file} was changed by somebody else each of {tries} times that it was about to be updated")
            }
            FileFault::Unread(why) => format!("{file} does not give clients what was to be published: {why}"),
        }
    }

    /// Is it about reading, so that nothing was tried?
    #[must_use]
    pub fn is_read(&self) -> bool {
        use FileFault::{ForeignLink, LinkLoop, NotAFile, Read, TooLarge};
        matches!(self.fault, Read(_) | NotAFile(_) | TooLarge | LinkLoop | ForeignLink(_))
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        let path = shell_path(&self.path);
        let look = || format!("look at it with `ls -l {path}`");
        match &self.fault {
            FileFault::Read(source) | FileFault::Write { source, .. } | FileFault::MakeDirectory(_, source)
                if is_full(source) =>
            {
                "make room on that disk".to_owned()
            }
            FileFault::Read(source) if source.kind() == ErrorKind::PermissionDenied => {
                // Of what a link leads to, nobody knows whose it was.
                format!("{}; one that root left behind is given back with `sudo chown -h $USER {path}`", look())
            }
            FileFault::Write { source, .. } if is_refusal(source) => let_write(directory_of(&self.path)),
            FileFault::MakeDirectory(directory, source) if is_refusal(source) => let_write(directory),
            FileFault::Read(_) | FileFault::Write { .. } => look(),
            FileFault::NotAFile(_) | FileFault::TooLarge if self.what == "password file" => {
                "name another file with password_file in config.toml, --pgpass-file or PGPASSFILE".to_owned()
            }
            FileFault::NotAFile(_) | FileFault::TooLarge => format!("name another file as the {}", self.what),
            FileFault::LinkLoop => format!("remove the link with `rm {path}`"),
            FileFault::ForeignLink(target) => {
                format!("run as the user who owns the link, or make that user the owner of {}", target.display())
            }
            FileFault::NoDirectory(directory) | FileFault::MakeDirectory(directory, _) => {
                format!("create it with `mkdir -p -m 700 {}`", shell_path(directory))
            }
            FileFault::Open => format!("make it private with `chmod 600 {path}`"),
            FileFault::Group { name, .. } => {
                let (name, directory) = (shell_word(name), shell_path(directory_of(&self.path)));
                format!(
                    "only a member of the group can do that, and no unit of systemd in its sandbox: instead leave out `group` and let \
                     the directory give it, with `chgrp {name} {directory} && chmod g+s {directory}` as root"
                )
            }
            FileFault::Unsettled(_) => format!("see what else writes it, with `fuser -v {path}` for one"),
            FileFault::Unread(_) => {
                "look at the lines that are named; if they look right, please report this with the \
                                     file's lines, passwords removed"
                    .to_owned()
            }
        }
    }
}

impl From<&FileError> for Failure {
    fn from(error: &FileError) -> Self {
        let kind = if matches!(error.fault, FileFault::Unsettled(_)) { Failure::transient } else { Failure::permanent };
        kind(Code::CannotWrite, error.to_string()).hint(error.hint())
    }
}

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
        "make {there} writable for this user (in a container mount a volume there), or name another place; where it is a systemd \
         unit that may not, add ReadWritePaths={there} to its [Service] with `systemctl edit` (for a user's own, `systemctl --user \
         edit`), and restart it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_write_is_told_what_a_sandboxed_unit_needs() {
        let directory = tempfile::tempdir().unwrap();
        let (there, path) = (directory.path(), directory.path().join("not/yet/token"));
        for kind in [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem] {
            let written = FileFault::Write { doing: "create a file beside it", source: kind.into() };
            let made = FileFault::MakeDirectory(there.join("not/yet"), kind.into());
            for fault in [written, made] {
                let failure = Failure::from(&fault.of("token file", &path));
                let hint = failure.hint.unwrap();
                assert!(hint.contains(&format!("ReadWritePaths={} ", there.display())), "what exists: {hint}");
                assert!(hint.contains("systemctl --user edit"), "{hint}");
                assert!(failure.message.contains("token file") && failure.message.contains("not/yet/token"));
                assert_eq!((failure.code, failure.kind), (Code::CannotWrite, crate::Kind::Permanent));
            }
        }
    }
}
