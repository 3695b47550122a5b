//! Where the record is kept, and the lock that keeps our own instances apart.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use super::record::{Record, VERSION};
use crate::failure::{Code, Failure};
use crate::logging::json;
use crate::os::files::{is_append_only, make_directories, open_regular, read_bytes, set_mode};
use crate::os::identity::try_as_owner_of;
use crate::words;

/// The mode of record and lock, and that of their directory.
pub(super) const MODE: u32 = 0o600;
pub(super) const DIRECTORY_MODE: u32 = 0o700;

/// The name of the record in its directory.
pub(super) const RECORD: &str = "record.json";

/// How often a waiting instance checks the lock.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// The directory with the record and the lock.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    /// The record, if it cannot be written to disk.
    memory: Arc<Mutex<Option<Record>>>,
    /// The lock among users of the store in this process: they wait for each other without a limit.
    within_process: Arc<tokio::sync::Mutex<()>>,
}

/// The result of waiting for the lock.
#[derive(Debug)]
pub(crate) enum Locked<T> {
    /// We hold it until this is dropped.
    By(Held),
    /// Another instance held it, and it was not needed.
    Needless(T),
}

/// Held while anything is in flight; released on drop.
#[derive(Debug)]
pub(crate) struct Held {
    /// None if there can be no lock file. Then the only protection against a second instance is that each replacement of the
    /// password file compares it first.
    _file: Option<File>,
    _within_process: OwnedMutexGuard<()>,
}

impl Held {
    /// Whether it keeps other processes out.
    #[cfg(test)]
    fn is_of_file(&self) -> bool {
        self._file.is_some()
    }
}

impl Store {
    pub(crate) fn new(directory: &Path) -> Self {
        Store { directory: directory.to_owned(), memory: Arc::default(), within_process: Arc::default() }
    }

    /// The record; empty if there is no usable one.
    pub(crate) fn read(&self) -> Record {
        if let Some(record) = self.memory.lock().ok().and_then(|memory| memory.clone()) {
            return record;
        }
        let path = self.directory.join(RECORD);
        let text = match read_bytes(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Record::default(),
            Err(error) => {
                tracing::debug!("{} is ignored: {}", path.display(), words::of_io(&error));
                return Record::default();
            }
        };
        match serde_json::from_slice::<Record>(&text) {
            Ok(record) if record.version == VERSION => record,
            Ok(_) => Record::default(),
            Err(_) => {
                tracing::debug!("{} is ignored: it holds no record", path.display());
                Record::default()
            }
        }
    }

    /// Replaces the record. If that fails, it is kept in memory while the program runs.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        let written = try_as_owner_of(&self.directory, || self.write_to_disk(record));
        if let Ok(mut memory) = self.memory.lock() {
            *memory = written.is_err().then(|| record.clone());
        }
        written
    }

    fn write_to_disk(&self, record: &Record) -> io::Result<()> {
        self.make_directory()?;
        if is_append_only(&self.directory) {
            return self.write_in_place(record);
        }
        let mut file = tempfile::Builder::new().prefix(".record").tempfile_in(&self.directory)?;
        // Whatever the umask is.
        set_mode(file.as_file(), MODE)?;
        file.write_all(json::line(record)?.as_bytes())?;
        file.persist(self.directory.join(RECORD))?;
        Ok(())
    }

    /// For a directory where nothing can be renamed, so that a new file would stay. A record that was cut off by a kill counts as
    /// lost.
    fn write_in_place(&self, record: &Record) -> io::Result<()> {
        let path = self.directory.join(RECORD);
        if path.is_symlink() {
            return Err(io::Error::other("record.json is a link, in a directory where nothing can be replaced"));
        }
        let file = open_regular(&path, OpenOptions::new().write(true).create(true).truncate(false).mode(MODE))?;
        set_mode(&file, MODE)?;
        let line = json::line(record)?;
        file.write_all_at(line.as_bytes(), 0)?;
        file.set_len(line.len() as u64)
    }

    /// Waits for the lock. If another instance holds it, `while_busy` is called once and may end the wait with an answer.
    /// Within this process the wait has no limit, since the other user is doing what this one waits for.
    ///
    /// # Errors
    /// Transient: another instance held it for all of `limit`.
    pub(crate) async fn lock<T>(
        &self,
        limit: Duration,
        while_busy: impl FnOnce() -> Option<T>,
    ) -> Result<Locked<T>, Failure> {
        let within_process = Arc::clone(&self.within_process).lock_owned().await;
        let file = match self.open_and_try() {
            Ok(held) => return Ok(Locked::By(Held { _file: held, _within_process: within_process })),
            Err(file) => file,
        };
        if let Some(answer) = while_busy() {
            return Ok(Locked::Needless(answer));
        }
        let waiting = async {
            while file.try_lock().is_err() {
                tokio::time::sleep(LOCK_POLL).await;
            }
        };
        match tokio::time::timeout(limit, waiting).await {
            Ok(()) => Ok(Locked::By(Held { _file: Some(file), _within_process: within_process })),
            Err(_) => {
                let lock = self.directory.join("lock");
                let message = format!("another dbx-rotator has held {} for {} s", lock.display(), limit.as_secs());
                Err(Failure::transient(Code::TryAgain, message).hint("see which with `pgrep -a dbx-rotator`"))
            }
        }
    }

    /// The lock, if nobody holds it.
    pub(crate) fn try_lock(&self) -> Option<Held> {
        let within_process = Arc::clone(&self.within_process).try_lock_owned().ok()?;
        let file = self.open_and_try().ok()?;
        Some(Held { _file: file, _within_process: within_process })
    }

    /// The locked file; none if there can be no lock file. The error is the file that another process has locked.
    fn open_and_try(&self) -> Result<Option<File>, File> {
        let tried = self.open_lock().and_then(|file| match file.try_lock() {
            Ok(()) => Ok(Ok(Some(file))),
            Err(TryLockError::WouldBlock) => Ok(Err(file)),
            Err(TryLockError::Error(error)) => Err(error),
        });
        tried.unwrap_or_else(|error| {
            tracing::warn!("cannot keep a record in {}: {}", self.directory.display(), words::of_io(&error));
            Ok(None)
        })
    }

    fn open_lock(&self) -> io::Result<File> {
        let path = self.directory.join("lock");
        // Also for reading: otherwise opening a named pipe would block or fail.
        let options = || OpenOptions::new().read(true).write(true).to_owned();
        let open = || match open_regular(&path, &mut options()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = open_regular(&path, options().create(true).truncate(false).mode(MODE))?;
                set_mode(&file, MODE)?;
                Ok(file)
            }
            opened => opened,
        };
        try_as_owner_of(&self.directory, || match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directory()?;
                open()
            }
            opened => opened,
        })
    }

    fn make_directory(&self) -> io::Result<()> {
        make_directories(&self.directory, DIRECTORY_MODE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_read_is_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(&directory.path().join("a/b"));
        assert_eq!(store.read(), Record::default());
        store.write(&Record::default()).unwrap();
        assert_eq!(store.read(), Record::default());
        for text in ["", "{", r#"{"version":2,"connections":{},"clocks":{}}"#] {
            std::fs::write(directory.path().join("a/b/record.json"), text).unwrap();
            assert_eq!(store.read(), Record::default(), "{text}");
        }
    }

    #[allow(clippy::unwrap_used, clippy::panic, reason = "a test's own helper")]
    fn held(locked: Result<Locked<()>, Failure>) -> Held {
        match locked.unwrap() {
            Locked::By(held) => held,
            Locked::Needless(()) => panic!("nobody said that it was needless"),
        }
    }

    #[allow(clippy::unwrap_used, reason = "a test's own helper")]
    fn make_pipe(path: &Path) {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    #[test]
    fn a_record_that_is_no_file_or_too_large_counts_as_lost_and_is_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join(RECORD);
        let store = Store::new(scratch.path());
        let spoil: [&dyn Fn(); 3] =
            [&|| make_pipe(&path), &|| std::os::unix::fs::symlink("/dev/zero", &path).unwrap(), &|| {
                File::create(&path).unwrap().set_len(200 << 20).unwrap()
            }];
        for make in spoil {
            make();
            assert_eq!(store.read(), Record::default());
            store.write(&Record::default()).unwrap();
            assert!(path.symlink_metadata().unwrap().is_file());
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[tokio::test]
    async fn a_lock_that_is_no_file_is_done_without_and_nobody_waits_for_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("lock");
        make_pipe(&path);
        let store = Store::new(scratch.path());
        assert!(!held(store.lock(Duration::from_secs(5), || None::<()>).await).is_of_file());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(!held(store.lock(Duration::from_secs(5), || None::<()>).await).is_of_file());
    }

    #[tokio::test]
    async fn the_lock_keeps_a_second_instance_out_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (Store::new(directory.path()), Store::new(directory.path()));
        let lock = |limit| second.lock(Duration::from_millis(limit), || None::<()>);
        let by_first = first.try_lock().unwrap();
        assert_eq!(lock(50).await.unwrap_err().code, Code::TryAgain);
        assert!(second.try_lock().is_none());
        assert!(matches!(second.lock(Duration::ZERO, || Some(7)).await.unwrap(), Locked::Needless(7)));
        drop(by_first);
        assert!(held(lock(5_000).await).is_of_file());
    }

    #[tokio::test]
    async fn within_one_process_the_lock_is_waited_for_without_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        let first = store.try_lock().unwrap();
        let other = store.clone();
        let second = tokio::spawn(async move { other.lock(Duration::from_secs(20), || None::<()>).await.map(|_| ()) });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
    }
}
