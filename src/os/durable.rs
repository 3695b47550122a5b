//! Replaces a file that only this program writes, so that it is the old one or the new one whatever happens, and on the disk when that
//! is reported. (What others write, too, is replaced by [`super::replace`].)
//!
//! The room is taken first: what cannot be written must be known before something is used up for it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::files::{check_that_nothing_stays, make_directories, set_mode};

const MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// What the names of new files begin with, before that of the file.
fn prefix(path: &Path) -> String {
    format!(".new-{}-", path.file_name().unwrap_or_default().to_string_lossy())
}

/// A new file beside the one that it is to replace, with room for what comes.
pub(crate) struct Prepared {
    file: NamedTempFile,
    path: PathBuf,
}

/// Takes room for so many bytes. The file is readable by its owner alone.
///
/// # Errors
/// As `open(2)` and `write(2)`; and where the file system lets others read it.
pub(crate) fn prepare(path: &Path, room: usize) -> io::Result<Prepared> {
    let directory = path.parent().unwrap_or(Path::new("."));
    make_directories(directory, DIRECTORY_MODE)?;
    check_that_nothing_stays(directory)?;
    let mut file = tempfile::Builder::new().prefix(&prefix(path)).tempfile_in(directory)?;
    if let Some(mode) = set_mode(file.as_file(), MODE)?
        && mode & 0o077 != 0
    {
        return Err(io::Error::other(format!("its file system gives it mode {mode:04o}, so that others can read it")));
    }
    file.write_all(&vec![0; room])?;
    file.as_file().sync_all()?;
    Ok(Prepared { file, path: path.to_owned() })
}

impl Prepared {
    /// Puts the bytes into the file's place.
    ///
    /// # Errors
    /// As `write(2)`, `fsync(2)` and `rename(2)`.
    pub(crate) fn put(self, bytes: &[u8]) -> io::Result<()> {
        self.file.as_file().write_all_at(bytes, 0)?;
        self.file.as_file().set_len(bytes.len() as u64)?;
        self.file.as_file().sync_all()?;
        self.file.persist(&self.path)?;
        sync_directory(&self.path)
    }
}

/// Writes a file at once.
///
/// # Errors
/// As [`prepare`] and [`Prepared::put`].
pub(crate) fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    prepare(path, bytes.len())?.put(bytes)
}

/// Removes a file, and what killed processes have left of it; returns whether it was there. Nobody may be writing it.
///
/// # Errors
/// As `unlink(2)`.
pub(crate) fn remove(path: &Path) -> io::Result<bool> {
    remove_leftovers(path);
    match std::fs::remove_file(path) {
        Ok(()) => sync_directory(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes what killed processes have left. Nobody may be writing the file.
pub(crate) fn remove_leftovers(path: &Path) {
    let prefix = prefix(path);
    let Some(entries) = path.parent().and_then(|directory| std::fs::read_dir(directory).ok()) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)) {
        // Whatever stays is tried again the next time.
        let _ = std::fs::remove_file(entry.path());
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(directory).and_then(|directory| directory.sync_all()) {
        // Some file systems know no such thing.
        Err(error) if super::files::is_impossible(&error) => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_what_was_left_behind_goes_with_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("made/too/file");
        put(&path, b"first").unwrap();
        let prepared = prepare(&path, 64 * 1024).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        prepared.put(b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let left = path.with_file_name(format!("{}x", prefix(&path)));
        let other = path.with_file_name(format!("{}x", prefix(Path::new("file2"))));
        for file in [&left, &other] {
            std::fs::write(file, "").unwrap();
        }
        assert!(remove(&path).unwrap() && !remove(&path).unwrap());
        assert!(!left.exists() && other.exists());
        drop(prepare(&path, 1).unwrap());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing of what was not put");
    }
}
