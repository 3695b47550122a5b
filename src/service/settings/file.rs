//! The files that a plan reads and writes.

use std::io::Write as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::super::files::cannot;
use crate::failure::Failure;
use crate::os::files::{check_that_nothing_stays, make_directories, read_text, set_mode};

/// The text of a file; none where it does not exist.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<String>>, Failure> {
    match read_text(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("read", path, &error)),
    }
}

/// A new file next to `target` that will replace it.
pub(super) fn staged(
    target: &Path,
    content: &[u8],
    mode: u32,
    directory_mode: u32,
) -> Result<tempfile::NamedTempFile, Failure> {
    let fail = |error: std::io::Error| cannot("write", target, &error);
    let directory = target.parent().unwrap_or(Path::new("/"));
    make_directories(directory, directory_mode).map_err(fail)?;
    check_that_nothing_stays(directory).map_err(fail)?;
    let mut new = tempfile::Builder::new().prefix(".new-").suffix(".toml").tempfile_in(directory).map_err(fail)?;
    let other = set_mode(new.as_file(), mode).map_err(fail)?;
    if let Some(found) = other.filter(|found| found & !mode & 0o077 != 0) {
        let why = format!("others could read it: it would have mode {found:04o}, and its file system sets no other");
        return Err(fail(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why)));
    }
    new.write_all(content).and_then(|()| new.as_file().sync_all()).map_err(fail)?;
    Ok(new)
}
