//! The new file, from its first byte to its name.
//!
//! It has no name before it is complete, where the system can do that (`O_TMPFILE`): a process that is killed leaves nothing. Its
//! first name then says by itself what a later process has to know that finds it ([`Name`]).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD};
use tempfile::{NamedTempFile, TempPath};

use crate::os::files::is_impossible;

/// What tells one state of a file from another, without a word of its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    /// Nanoseconds since 1970, in two's complement.
    modified: u128,
    pub(super) length: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        let modified = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Stamp { inode: metadata.ino(), modified: modified.cast_unsigned(), length: metadata.len() }
    }

    /// Of no file that there is, and unlike any other of the kind.
    pub(super) fn unique() -> Self {
        Stamp { modified: fastrand::u128(..), ..Stamp::default() }
    }

    /// When it was last written to, for comparison.
    pub(super) fn modified(&self) -> i128 {
        self.modified.cast_signed()
    }

    pub(super) fn is_same_file_as(&self, other: &Self) -> bool {
        self.inode == other.inode
    }

    fn text(&self) -> String {
        format!("{:x}.{:x}.{:x}", self.inode, self.modified, self.length)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (inode, modified, length) = (parts.next()?, parts.next()?, parts.next()?);
        let none_left = parts.next().is_none();
        let (inode, length) = (u64::from_str_radix(inode, 16).ok()?, u64::from_str_radix(length, 16).ok()?);
        let modified = u128::from_str_radix(modified, 16).ok()?;
        none_left.then_some(Stamp { inode, modified, length })
    }
}

/// The name that a new file has until it changes places with the old one, and that the old one has from then on. Whoever finds it
/// later can tell whether it is the new file, the old one as it was, or the old one with something written to it since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) new: Stamp,
    pub(super) old: Stamp,
}

impl Name {
    pub(super) fn text(&self, prefix: &str) -> String {
        format!("{prefix}{}-{}", self.new.text(), self.old.text())
    }

    /// None for a file that has not been completed.
    pub(super) fn parse(name: &str, prefix: &str) -> Option<Self> {
        let (new, old) = name.strip_prefix(prefix)?.split_once('-')?;
        Some(Name { new: Stamp::parse(new)?, old: Stamp::parse(old)? })
    }
}

/// How a new file begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Without a name, where the system and the file system can do that.
    Nameless,
    Named,
}

/// A file that does not have its name yet; gone when it is dropped.
pub(super) enum NewFile {
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux makes files without a name"))]
    Nameless {
        file: File,
        directory: PathBuf,
    },
    Named(NamedTempFile),
}

impl NewFile {
    /// In this directory, for this user alone from the first moment. Where a name could not be taken away again (`for_good`), it is
    /// made without one or not at all.
    pub(super) fn create(directory: &Path, prefix: &str, kind: Kind, for_good: bool) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if kind == Kind::Nameless
            && let Some(file) = nameless(directory)
        {
            return Ok(Self::Nameless { file, directory: directory.to_owned() });
        }
        if for_good {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // O_CREAT | O_EXCL, a random name, and 0600.
        let file = tempfile::Builder::new().prefix(prefix).tempfile_in(directory)?;
        // Held for as long as this process lives: no other takes it for a leftover.
        let _ = file.as_file().try_lock();
        Ok(Self::Named(file))
    }

    pub(super) fn is_nameless(&self) -> bool {
        matches!(self, Self::Nameless { .. })
    }

    pub(super) fn file(&self) -> &File {
        match self {
            Self::Nameless { file, .. } => file,
            Self::Named(file) => file.as_file(),
        }
    }

    /// Gives it its first name; with the descriptor, which keeps the lock on it.
    pub(super) fn into_named(self, prefix: &str, old: Stamp) -> io::Result<(File, TempPath)> {
        let name = Name { new: Stamp::of(&self.file().metadata()?), old };
        match self {
            Self::Nameless { file, directory } => {
                let path = directory.join(name.text(prefix));
                // Held for as long as this process lives: no other takes it for a leftover.
                let _ = file.try_lock();
                link(&file, &path)?;
                Ok((file, TempPath::try_from_path(path)?))
            }
            Self::Named(file) => {
                let (file, path) = file.into_parts();
                let named = path.with_file_name(name.text(prefix));
                std::fs::rename(&path, &named)?;
                // Its old name is gone, so there is nothing for the guard to remove.
                path.keep().map_err(|error| error.error)?;
                Ok((file, TempPath::try_from_path(named)?))
            }
        }
    }

    /// Gives it the name that it is to have, where nobody has that.
    pub(super) fn persist_noclobber(self, target: &Path) -> io::Result<()> {
        match self {
            Self::Nameless { file, .. } => link(&file, target),
            Self::Named(file) => {
                let path = file.into_temp_path();
                rename_where_nobody_is(&path, target)?;
                // Its old name is gone, so there is nothing for the guard to remove.
                path.keep().map(drop).map_err(|error| error.error)
            }
        }
    }
}

/// Gives a file a name that nobody has. Not every file system can do that in one step, or knows links instead (FAT and most shares do
/// not): then it is looked at right before.
pub(super) fn rename_where_nobody_is(from: &Path, to: &Path) -> io::Result<()> {
    match rename_without_replacing(from, to) {
        Err(error) if is_impossible(&error) => {}
        done => return done,
    }
    match std::fs::hard_link(from, to) {
        Ok(()) => return std::fs::remove_file(from),
        Err(error) if is_impossible(&error) => {}
        Err(error) => return Err(error),
    }
    match to.symlink_metadata() {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::rename(from, to),
        Err(error) => Err(error),
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn rename_without_replacing(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// None where the system or the file system cannot do it, or could not give it a name later.
#[cfg(target_os = "linux")]
fn nameless(directory: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags};

    if !Path::new(DESCRIPTORS).is_dir() {
        return None;
    }
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR).ok().map(File::from)
}

/// Where Linux lists what this process has open.
const DESCRIPTORS: &str = "/proc/self/fd";

/// As `link(2)`; open(2) has this way to do it, below O_TMPFILE.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let descriptor = format!("{DESCRIPTORS}/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, descriptor, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_no_other_is_taken_for_one() {
        let stamp = |inode, modified, length| Stamp { inode, modified, length };
        for modified in [0, 1_795_000_000_123_456_789, u128::MAX] {
            let name = Name { new: stamp(7, 1, 0), old: stamp(u64::MAX, modified, u64::MAX) };
            let text = name.text(".x-new-");
            assert!(text.len() < 255, "{text}");
            assert_eq!(Name::parse(&text, ".x-new-"), Some(name), "{text}");
        }
        for other in [
            ".x-new-aB3dE9",
            ".x-new-1.2.3",
            ".x-new-1.2.3-",
            ".x-new-1.2.3-4.5",
            ".x-new-1.2.3-4.5.6.7",
            "1.2.3-4.5.6",
        ] {
            assert_eq!(Name::parse(other, ".x-new-"), None, "{other}");
        }
    }
}
