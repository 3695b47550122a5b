//! The files that a service manager reads. Invariant: only a file with our mark is ever replaced or removed.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use crate::failure::{Code, Failure};
use crate::os::files::{check_that_nothing_stays, make_directories, set_mode};
use crate::words;

/// The mode of a new directory: what a manager reads is not secret.
const DIRECTORY: u32 = 0o755;

/// The same of a file.
const FILE: u32 = 0o644;

/// Whether we wrote it.
pub(super) fn is_ours(file: &Path, mark: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.contains(mark))
}

/// Removes the file if it is ours. Returns whether it did.
pub(super) fn remove_if_ours(file: &Path, mark: &str) -> Result<bool, Failure> {
    if !is_ours(file, mark) {
        return Ok(false);
    }
    fs::remove_file(file).map_err(|error| cannot("remove", file, &error))?;
    Ok(true)
}

/// Writes a text with our mark, unless the file is somebody else's. Returns whether it did.
pub(super) fn write(file: &Path, text: &str, mark: &str) -> Result<bool, Failure> {
    if file.exists() && !is_ours(file, mark) {
        return Ok(false);
    }
    let fail = |error: std::io::Error| cannot("write", file, &error);
    let directory = file.parent().unwrap_or(Path::new("/"));
    make_directories(directory, DIRECTORY).and_then(|()| check_that_nothing_stays(directory)).map_err(fail)?;
    let mut new = tempfile::NamedTempFile::new_in(directory).map_err(fail)?;
    new.write_all(text.as_bytes()).map_err(fail)?;
    set_mode(new.as_file(), FILE).map_err(fail)?;
    new.persist(file).map_err(|error| fail(error.error))?;
    Ok(true)
}

pub(super) fn cannot(doing: &str, file: &Path, error: &std::io::Error) -> Failure {
    let hint = "see who owns it and its directory; for the machine's own units run it with sudo";
    Failure::permanent(Code::CannotWrite, format!("cannot {doing} {}: {}", file.display(), words::of_io(error)))
        .hint(hint)
}
