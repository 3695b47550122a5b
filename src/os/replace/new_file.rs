//! The new file, from its first byte until it has its name.
//!
//! If the system can do that (`O_TMPFILE`), the file has no name until it is complete, so that a killed process leaves nothing.
//! Its first name contains all that a later process must know about it ([`Name`]).

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

    /// Matches no existing file, and no other unique stamp.
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

/// The name that a new file has until it is exchanged with the old one, and that the old one has afterwards. From it a later
/// process can tell the new file, the unchanged old one, and an old one that somebody wrote to since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) new: Stamp,
    pub(super) old: Stamp,
}

impl Name {
    pub(super) fn text(&self, prefix: &str) -> String {
        format!("{prefix}{}-{}", self.new.text(), self.old.text())
    }

    /// None for a file that was not completed.
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

/// How the names of files begin that stand beside one file, before they get its name or since they have lost it. The files of one
/// directory do not share them: what was written to the one must not get into the other.
pub(super) struct Names<'a> {
    prefix: &'a str,
    /// The prefix, and what stands for the file's name.
    own: String,
}

impl<'a> Names<'a> {
    pub(super) fn beside(target: &Path, prefix: &'a str) -> Self {
        let name = target.file_name().unwrap_or_default().as_encoded_bytes();
        // FNV-1a, which gives the same in every version of this program.
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = name.iter().fold(0xcbf2_9ce4_8422_2325, step);
        Names { prefix, own: format!("{prefix}{hash:0HASH_DIGITS$x}-") }
    }

    /// Where there is one file alone that has others beside it.
    pub(super) fn all(prefix: &'a str) -> Self {
        Names { prefix, own: prefix.to_owned() }
    }

    pub(super) fn own(&self) -> &str {
        &self.own
    }

    /// What the names of ours begin with that this is one of. One that does not say which file it belongs to is anybody's.
    pub(super) fn beginning_of(&self, name: &str) -> Option<&str> {
        if name.starts_with(&self.own) {
            return Some(&self.own);
        }
        let rest = name.strip_prefix(self.prefix)?;
        let says_which = rest
            .split_once('-')
            .is_some_and(|(hash, _)| hash.len() == HASH_DIGITS && hash.bytes().all(|digit| digit.is_ascii_hexdigit()));
        (!says_which).then_some(self.prefix)
    }
}

/// Of 64 bits.
const HASH_DIGITS: usize = 16;

/// A file that does not have its name yet; gone when it is dropped.
pub(super) enum NewFile {
    Nameless { file: File, directory: PathBuf },
    Named(NamedTempFile),
}

impl NewFile {
    /// In this directory, for this user alone from the first moment. Where a name could not be taken away again (`for_good`), it is
    /// made without one or not at all.
    pub(super) fn create(directory: &Path, prefix: &str, kind: Kind, for_good: bool) -> io::Result<Self> {
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
        // Locked while this process lives, so that no other one takes it for a leftover.
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

    /// Gives it its first name. Also returns the open file, which keeps the lock.
    pub(super) fn into_named(self, prefix: &str, old: Stamp) -> io::Result<(File, TempPath)> {
        let name = Name { new: Stamp::of(&self.file().metadata()?), old };
        match self {
            Self::Nameless { file, directory } => {
                let path = directory.join(name.text(prefix));
                // Locked while this process lives, so that no other one takes it for a leftover.
                let _ = file.try_lock();
                link(&file, &path)?;
                Ok((file, TempPath::try_from_path(path)?))
            }
            Self::Named(file) => {
                let (file, path) = file.into_parts();
                let named = path.with_file_name(name.text(prefix));
                std::fs::rename(&path, &named)?;
                // The first name no longer exists: the guard must not remove it.
                path.keep().map_err(|error| error.error)?;
                Ok((file, TempPath::try_from_path(named)?))
            }
        }
    }

    /// Gives it its final name, unless a file with that name exists.
    pub(super) fn persist_noclobber(self, target: &Path) -> io::Result<()> {
        match self {
            Self::Nameless { file, .. } => link(&file, target),
            Self::Named(file) => {
                // Held by its descriptor until it has its name.
                let (_locked, path) = file.into_parts();
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

#[cfg(not(target_os = "linux"))]
fn nameless(_: &Path) -> Option<File> {
    None
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

/// Where Linux lists the open files of this process.
const DESCRIPTORS: &str = "/proc/self/fd";

/// `link(2)` for a file without a name, as open(2) describes under O_TMPFILE.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let descriptor = format!("{DESCRIPTORS}/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, descriptor, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_one_directory_know_their_own_names_and_those_that_are_nobodys() {
        let names = |target: &str| Names::beside(Path::new(target), ".x-new-");
        let (one, other) = (names("/home/one"), names("/home/two"));
        let stamped = |names: &Names<'_>| {
            let stamp = Stamp::of(&std::env::temp_dir().metadata().unwrap());
            Name { new: stamp, old: stamp }.text(names.own())
        };
        assert_eq!(names("one").own(), one.own(), "the directory makes no difference");
        assert_eq!(one.beginning_of(&stamped(&one)), Some(one.own()));
        assert_eq!(one.beginning_of(&stamped(&other)), None);
        assert_eq!(one.beginning_of(&format!("{}aB3dE9", other.own())), None);
        for anybodys in [".x-new-aB3dE9", ".x-new-1.2.3-4.5.6"] {
            assert_eq!(one.beginning_of(anybodys), Some(".x-new-"), "{anybodys}");
        }
        assert_eq!(one.beginning_of(".y-new-aB3dE9"), None);
    }

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
