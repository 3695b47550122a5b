//! A log file that several may share: a timer, a daemon, a person, logrotate. It never prevents or delays a rotation.
//!
//! Each line is one write to the end of the file, so lines of several processes never mix. Before each line the path is checked,
//! and opened again if somebody renamed or removed the file. A full file is renamed to `NAME.1` under a lock on it. Nobody waits
//! for the lock: a process that does not get it goes on writing.

use std::fs::{self, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::os::identity::try_as_owner_of_link;
use crate::os::streams;
use crate::words;
use descriptor::Way;

mod descriptor;

/// The size at which a log file is renamed, in bytes (as in the Python original).
const LARGEST: u64 = 10 * 1024 * 1024;

/// How many old log files are kept (as in the Python original).
const OLD_FILES: usize = 5;

/// How much of a file is looked at for a line of a log, in bytes.
const BEGINNING: usize = 4_096;

/// How long to wait for the reader of a pipe, once.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A log file to append lines to.
pub(super) struct LogFile {
    path: PathBuf,
    /// The descriptor of this process that the path names.
    descriptor: Option<u32>,
    state: Mutex<State>,
}

struct State {
    log: Log,
    /// Only a part of the last line was written.
    is_torn: bool,
    /// The reader of a pipe has not read for a while.
    is_stuck: bool,
    /// So many lines found no room since the last that did.
    dropped: u64,
    /// The trouble there is has been told.
    is_told: bool,
}

/// What the path led to when it was last opened.
struct Log {
    file: File,
    way: Way,
    /// Its name without links, and which file it is; none where it is no regular file.
    regular: Option<(PathBuf, Identity)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl LogFile {
    /// # Errors
    /// It cannot be opened for writing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let descriptor = streams::descriptor(path);
        let log = match descriptor {
            Some(number) => {
                let (file, way) = descriptor::open(number)?;
                Log { file, way, regular: None }
            }
            None => try_as_owner_of_link(path, || Log::open(path))?,
        };
        let state = State { log, is_torn: false, is_stuck: false, dropped: 0, is_told: false };
        Ok(LogFile { path: path.to_owned(), descriptor, state: Mutex::new(state) })
    }

    /// Whether it is this descriptor of the process, such as 2 for stderr.
    pub(super) fn is_descriptor(&self, number: u32) -> bool {
        self.descriptor == Some(number)
    }

    /// Appends a line. Returns what is wrong, but only once until it works again.
    pub(super) fn write(&self, line: &str) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = if self.descriptor.is_some() { Ok(()) } else { self.get_ready(&mut state, line) };
        let Err(error) = state.append(line.as_bytes()).and(ready) else {
            state.is_told = false;
            return None;
        };
        let is_news = !std::mem::replace(&mut state.is_told, true);
        let why = words::of_io(&error);
        is_news.then(|| format!("cannot keep the log file {} as it should be: {why}", self.path.display()))
    }
}

impl LogFile {
    /// Sees to it that the line goes to where the path leads now, and finds room there.
    fn get_ready(&self, state: &mut State, line: &str) -> io::Result<()> {
        try_as_owner_of_link(&self.path, || {
            let followed = state.log.follow(&self.path);
            let room = state.log.make_room(&self.path, line.len() as u64);
            followed.and(room)
        })
    }
}

impl State {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let mut text = Vec::new();
        if self.is_torn {
            text.push(b'\n');
        }
        if self.dropped > 0 {
            text.extend(format!("({} messages were lost: nobody read them)\n", self.dropped).bytes());
        }
        text.extend(line);
        loop {
            match self.log.way.write(&self.log.file, &text) {
                Ok(length) => {
                    self.is_stuck = false;
                    self.dropped = 0;
                    self.is_torn = length < text.len();
                    return if self.is_torn {
                        Err(io::Error::other("only a part of a line was written"))
                    } else {
                        Ok(())
                    };
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.is_stuck => {
                    self.is_stuck = true;
                    let _ = poll(&mut [PollFd::new(&self.log.file, PollFlags::OUT)], Some(&PATIENCE));
                }
                Err(error) => {
                    self.dropped += u64::from(error.kind() == ErrorKind::WouldBlock);
                    return Err(error);
                }
            }
        }
    }
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        match Self::open_once(path) {
            // Somebody has just put it aside.
            Err(error) if error.kind() == ErrorKind::NotFound => Self::open_once(path),
            opened => opened,
        }
    }

    fn open_once(path: &Path) -> io::Result<Self> {
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600).custom_flags(flags.bits().cast_signed());
        let file = match options.open(path) {
            // A pipe that has no reader yet.
            Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => options.read(true).open(path)?,
            opened => opened?,
        };
        let data = file.metadata()?;
        if !data.is_file() {
            return Ok(Log { file, way: Way::Plain, regular: None });
        }
        if !may_be_log(path) {
            return Err(io::Error::other("it holds something other than a log"));
        }
        // Others must not read it; and the umask may have left too little.
        if data.permissions().mode() & 0o677 != 0o600 {
            // Best effort: the file may have another owner.
            let _ = file.set_permissions(Permissions::from_mode(0o600));
        }
        Ok(Log { file, way: Way::Plain, regular: Some((fs::canonicalize(path)?, Identity::of(&data))) })
    }

    /// Opens the file again if the path now leads to another one, or to none.
    fn follow(&mut self, path: &Path) -> io::Result<()> {
        let Some((_, identity)) = &self.regular else { return Ok(()) };
        match fs::metadata(path) {
            Ok(data) if Identity::of(&data) == *identity => return Ok(()),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        *self = Log::open(path)?;
        Ok(())
    }

    /// Renames the file if this many more bytes would make it too large.
    fn make_room(&mut self, path: &Path, more: u64) -> io::Result<()> {
        let Some((name, identity)) = &self.regular else { return Ok(()) };
        let length = self.file.metadata()?.len();
        if length == 0 || length.saturating_add(more) <= LARGEST {
            return Ok(());
        }
        // Some file systems have no locks: then two processes may rename one file too many.
        if let Err(TryLockError::WouldBlock) = self.file.try_lock() {
            return Ok(());
        }
        let is_still_there = fs::symlink_metadata(name).is_ok_and(|data| Identity::of(&data) == *identity);
        let aside = if is_still_there { put_aside(name) } else { Ok(()) };
        if aside.is_ok() {
            // Opening the new file drops the old one and its lock.
            *self = Log::open(path)?;
        } else {
            let _ = self.file.unlock();
        }
        aside
    }
}

/// Whether there is a line of a log at the beginning of the file, or nothing: what somebody keeps for another purpose gets no lines
/// and stays in its place. A file that cannot be read is taken for a log.
fn may_be_log(path: &Path) -> bool {
    let mut beginning = [0; BEGINNING];
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let read = options.open(path).and_then(|mut file| file.read(&mut beginning));
    read.map_or(true, |length| length == 0 || beginning[..length].split(|byte| *byte == b'\n').any(begins_with_date))
}

/// As each line of ours does, and of the Python original, and of most other programs.
fn begins_with_date(line: &[u8]) -> bool {
    let form = b"0000-00-00";
    let fits = |(byte, of_form): (&u8, &u8)| if *of_form == b'0' { byte.is_ascii_digit() } else { byte == of_form };
    line.len() >= form.len() && line.iter().zip(form).all(fits)
}

impl Identity {
    fn of(data: &Metadata) -> Self {
        Identity { device: data.dev(), inode: data.ino() }
    }
}

/// Renames `name` to `name.1`, and older files to the next number, up to the first free one. Anything but a file stays.
fn put_aside(name: &Path) -> io::Result<()> {
    let numbered = |number: usize| {
        let mut name = name.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let is_free =
        |path: &PathBuf| fs::symlink_metadata(path).map_or_else(|error| error.kind() == ErrorKind::NotFound, |_| false);
    let is_file = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|data| data.is_file());
    let places: Vec<PathBuf> = (1..=OLD_FILES).map(numbered).filter(|path| is_free(path) || is_file(path)).collect();
    let Some(first) = places.first() else {
        return Err(io::Error::other("none of the names of old log files is that of a file"));
    };
    let last = places.iter().position(is_free).unwrap_or(places.len() - 1);
    for pair in places[..=last].windows(2).rev() {
        fs::rename(&pair[0], &pair[1])?;
    }
    fs::rename(name, first)
}

#[cfg(test)]
mod tests;
