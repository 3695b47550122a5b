//! The file that a path leads to at one moment: its bytes, and what tells it from any other file.

use std::cell::Cell;
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use super::new_file::Names;
use super::{Allowance, Budget, FileFault, Turn, quiet};
use crate::os::lease::{Asked, ask};

/// As many links as Linux follows in one path.
const LINK_LIMIT: usize = 40;

/// A password file with 10,000 tokens or 200,000 other entries has about 12 MiB; the other files are smaller. A larger file is
/// something else, and would take long to read and much memory to edit.
pub(super) const SIZE_LIMIT: u64 = 16 * 1024 * 1024;

/// The file at one moment.
pub(crate) struct Snapshot {
    /// The end of the symbolic links: the file that is read and replaced.
    pub(crate) target: PathBuf,
    pub(crate) bytes: Zeroizing<Vec<u8>>,
    /// `None` if there is no file yet.
    pub(crate) file: Option<Opened>,
}

/// An existing file, still open for its attributes.
pub(crate) struct Opened {
    pub(crate) file: File,
    pub(crate) metadata: Metadata,
    /// The lease, if writers have been held off since before it was read.
    held: Cell<Option<Asked>>,
}

impl Opened {
    pub(super) fn new(file: File, metadata: Metadata) -> Self {
        Opened { file, metadata, held: Cell::new(None) }
    }

    /// Lets everybody write again, including this process.
    pub(super) fn release(&self) {
        self.held.set(None);
    }

    /// Waits for those who are writing, then holds off new writers. If they have been held off since the file was read, there is
    /// nobody to wait for.
    pub(super) fn hold(&self, budget: &Budget<'_>) -> Asked {
        self.held.take().unwrap_or_else(|| wait_for_gap(&self.file, budget))
    }

    /// The permission bits, including set-id and sticky bits.
    pub(crate) fn mode(&self) -> u32 {
        self.metadata.mode() & 0o7777
    }

    /// Its present content.
    pub(super) fn read(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        (&self.file).seek(SeekFrom::Start(0))?;
        read_all(&self.file, self.file.metadata()?.len())
    }
}

impl Snapshot {
    /// Follows the links and reads the file. A missing file is no error: it has no bytes.
    pub(crate) fn take(path: &Path) -> Result<Self, FileFault> {
        Self::take_with(path, |_| None)
    }

    /// The same, to replace it. Where somebody writes to it, or has come in between before, a pause of theirs is waited for, and from
    /// before it is read until it is replaced whoever begins to write is held up. Else nobody is, for longer than it takes to exchange
    /// two files.
    pub(crate) fn take_for(turn: Turn<'_>, path: &Path) -> Result<Self, FileFault> {
        Self::take_with(path, |file| {
            let is_free = turn.number == 1 && !matches!(ask(file), Asked::BeingWritten);
            (!is_free).then(|| wait_for_gap(file, turn.budget))
        })
    }

    fn take_with(path: &Path, hold: impl FnOnce(&File) -> Option<Asked>) -> Result<Self, FileFault> {
        let target = resolve(path)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&target, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(rustix::io::Errno::NOENT) => {
                return Ok(Self { target, bytes: Zeroizing::default(), file: None });
            }
            Err(error) => return Err(FileFault::Read(error.into())),
        };
        check_kind(&file.metadata().map_err(FileFault::Read)?)?;
        let held = hold(&file);
        let metadata = file.metadata().map_err(FileFault::Read)?;
        if metadata.len() > SIZE_LIMIT {
            return Err(FileFault::TooLarge);
        }
        let bytes = read_all(&file, metadata.len()).map_err(FileFault::Read)?;
        if bytes.len() as u64 > SIZE_LIMIT {
            return Err(FileFault::TooLarge);
        }
        Ok(Self { target, bytes, file: Some(Opened { file, metadata, held: Cell::new(held) }) })
    }

    /// The same; but where the file is empty while somebody has it open for writing, they are waited for: a shell empties a file
    /// before the command that it runs writes to it. Not for longer than is allowed.
    pub(crate) fn take_settled(path: &Path, allowance: &Allowance) -> Result<Self, FileFault> {
        let now = Self::take(path)?;
        let Some(Opened { file, .. }) = now.file.as_ref().filter(|_| now.bytes.is_empty()) else { return Ok(now) };
        if matches!(ask(file), Asked::Quiet(_) | Asked::Unknown) {
            return Ok(now);
        }
        drop(wait_for_gap(file, &Budget::of(allowance)));
        Self::take(path)
    }

    /// Does the path still lead to this file, or to none, and is that as it was? The path is not opened: whoever opens a leased
    /// file for writing waits for the lease, and a process could wait for itself.
    pub(crate) fn is_there_still(&self, path: &Path) -> Result<bool, FileFault> {
        if resolve(path)? != self.target {
            return Ok(false);
        }
        let now = match self.target.symlink_metadata() {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(FileFault::Read(error)),
        };
        match (&self.file, now) {
            (None, None) => Ok(true),
            (Some(old), Some(now)) if identity(&old.metadata) == identity(&now) => {
                // It may have been written with the time set back.
                Ok(old.read().map_err(FileFault::Read)? == self.bytes)
            }
            _ => Ok(false),
        }
    }

    /// How the names of what stands beside it begin; all of them begin with this.
    pub(super) fn names_beside<'a>(&self, prefix: &'a str) -> Names<'a> {
        Names::beside(&self.target, prefix)
    }

    /// The directory that the file is in.
    pub(crate) fn directory(&self) -> &Path {
        directory_of(&self.target)
    }
}

/// Waits until nobody writes: for a moment, since what they write is carried over anyway; but as long as the budget allows where the
/// file is empty, because somebody is about to write all of it.
fn wait_for_gap(file: &File, budget: &Budget<'_>) -> Asked {
    let is_empty = file.metadata().is_ok_and(|metadata| metadata.len() == 0);
    let at_most = if is_empty { quiet::LONGEST } else { budget.gap() };
    quiet::wait(file, budget, (Duration::ZERO, at_most))
}

/// What tells one state of a file from another, but for its content.
fn identity(metadata: &Metadata) -> impl PartialEq + use<> {
    let time = (metadata.mtime(), metadata.mtime_nsec());
    let (uid, gid) = (metadata.uid(), metadata.gid());
    (metadata.dev(), metadata.ino(), metadata.len(), time, metadata.mode(), uid, gid)
}

/// Reads to the end without a growing buffer, which would leave parts of the file in freed memory.
fn read_all(file: &File, length: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let expected = usize::try_from(length.min(SIZE_LIMIT)).unwrap_or(0);
    // One byte more, so that the end is found without growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected + 1));
    file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A bare file name is in the current directory.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Follows the links at the end of a path, by hand: the last one may lead to a file that is not there yet.
pub(super) fn resolve(path: &Path) -> Result<PathBuf, FileFault> {
    let mut current = path.to_owned();
    let mut stranger = None;
    for _ in 0..LINK_LIMIT {
        let metadata = match current.symlink_metadata() {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(FileFault::Read(error)),
        };
        match metadata {
            Some(link) if link.is_symlink() => {
                if link.uid() != 0 {
                    stranger = Some(link.uid());
                }
                let end = current.read_link().map_err(FileFault::Read)?;
                current = directory_of(&current).join(end);
            }
            metadata => {
                if let Some(metadata) = &metadata {
                    check_kind(metadata)?;
                }
                check_trust(&current, stranger, metadata.as_ref())?;
                return Ok(current);
            }
        }
    }
    Err(FileFault::LinkLoop)
}

/// Running as root, a user's link must not make us write where that user could not.
fn check_trust(target: &Path, link_owner: Option<u32>, found: Option<&Metadata>) -> Result<(), FileFault> {
    let Some(link_owner) = link_owner.filter(|_| rustix::process::geteuid().is_root()) else { return Ok(()) };
    let owner = match found {
        Some(metadata) => Some(metadata.uid()),
        None => directory_of(target).metadata().ok().map(|metadata| metadata.uid()),
    };
    if owner.is_some_and(|owner| owner != link_owner) {
        return Err(FileFault::ForeignLink(target.to_owned()));
    }
    Ok(())
}

/// Anything but a regular file is refused before it is opened: a FIFO would hang us, a device could do anything.
fn check_kind(metadata: &Metadata) -> Result<(), FileFault> {
    let kind = metadata.file_type();
    let kind = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(FileFault::NotAFile(kind))
}
