//! The extended attributes of an open file (xattr(7)).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{XattrFlags, fgetxattr, fgetxattr_query, flistxattr, flistxattr_query, fsetxattr};
use rustix::io::Errno;

/// The error for an attribute that does not exist.
#[cfg(not(target_os = "macos"))]
const NONE: Errno = Errno::NODATA;
#[cfg(target_os = "macos")]
const NONE: Errno = Errno::NOATTR;

/// How often a read is tried: the attribute may grow between asking for its size and reading it.
const TRIES: u32 = 8;

/// The names of all attributes.
///
/// # Errors
/// The system's; `Unsupported` where the file system has none.
pub(crate) fn names(file: &File) -> io::Result<Vec<OsString>> {
    let list = whole(|| flistxattr_query(file), |buffer| flistxattr(file, buffer))?;
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| OsStr::from_bytes(name).to_owned()).collect())
}

/// The value of an attribute; none if it does not exist.
///
/// # Errors
/// The system's.
pub(crate) fn get(file: &File, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    match whole(|| fgetxattr_query(file, name), |buffer| fgetxattr(file, name, buffer)) {
        Ok(value) => Ok(Some(value)),
        Err(NONE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets an attribute, whether or not it exists.
///
/// # Errors
/// The system's.
pub(crate) fn set(file: &File, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(fsetxattr(file, name, value, XattrFlags::empty())?)
}

fn whole(
    size: impl Fn() -> rustix::io::Result<usize>,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    for _ in 0..TRIES {
        let mut buffer = vec![0; size()?];
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_set_is_listed_and_read_and_what_is_not_there_is_none() {
        let (long, empty) = (OsStr::new("user.long"), OsStr::new("user.empty"));
        // Not every file system knows attributes.
        let places = [env!("CARGO_MANIFEST_DIR"), "/tmp", "/var/tmp", "/dev/shm"].into_iter();
        let mut files = places.filter_map(|place| tempfile::tempfile_in(place).ok());
        let file = files.find(|file| set(file, long, &[7; 1_000]).is_ok()).expect("a file system with attributes");
        set(&file, empty, b"").unwrap();
        let mut found = names(&file).unwrap();
        found.retain(|name| name.as_bytes().starts_with(b"user."));
        found.sort();
        assert_eq!(found, [empty, long]);
        assert_eq!(get(&file, long).unwrap(), Some(vec![7; 1_000]));
        assert_eq!(get(&file, empty).unwrap(), Some(Vec::new()));
        assert_eq!(get(&file, OsStr::new("user.none")).unwrap(), None);
        set(&file, long, b"short").unwrap();
        assert_eq!(get(&file, long).unwrap().as_deref(), Some(&b"short"[..]));
    }

    #[test]
    fn what_grows_meanwhile_is_read_again_but_not_for_ever() {
        let size = Cell::new(0);
        let read_at = |enough: usize| {
            size.set(0);
            let read = |buffer: &mut [u8]| if buffer.len() < enough { Err(Errno::RANGE) } else { Ok(2) };
            whole(|| Ok(size.replace(size.get() + 1)), read)
        };
        assert_eq!(read_at(3), Ok(vec![0, 0]));
        assert_eq!(read_at(usize::MAX), Err(Errno::RANGE));
    }
}
