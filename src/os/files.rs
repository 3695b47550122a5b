//! Opens small files that a person or this program names, and never a pipe that would block, an endless device, or more than a
//! stated size. Makes directories with exactly the given mode.
//!
//! If this process is root and the path leads through another user's directory, it acts as that user (see
//! [`super::identity`]).

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::identity::try_as_owner_of_link;

/// Larger than any sensible configuration, record or secret, in bytes.
pub(crate) const LARGEST: u64 = 16 * 1024 * 1024;

/// Whether this name refers to this file.
pub(crate) fn is_the_one(name: &Path, file: &Metadata) -> bool {
    name.symlink_metadata().is_ok_and(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
}

/// The whole of a regular file, as text.
///
/// # Errors
/// As `read(2)`; and where it is no regular file, is larger than 16 MiB, or is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<Zeroizing<String>> {
    read_text_up_to(path, LARGEST)
}

/// The same with another limit, in bytes.
///
/// # Errors
/// As [`read_text`], with this limit.
pub(crate) fn read_text_up_to(path: &Path, largest: u64) -> Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::new());
    read_with(path, largest, |file, length| {
        bytes.reserve_exact(length + 1);
        file.take(largest).read_to_end(&mut bytes)
    })?;
    as_text(&bytes).map(|text| Zeroizing::new(text.to_owned())).map_err(|why| Error::new(ErrorKind::InvalidData, why))
}

/// A file's bytes as text.
///
/// # Errors
/// What they are instead.
pub(crate) fn as_text(bytes: &[u8]) -> std::result::Result<&str, &'static str> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") || bytes.contains(&0) {
        return Err("it is UTF-16 text, as Windows PowerShell writes it, or no text: save it as UTF-8");
    }
    std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text, but perhaps Latin-1: save it as UTF-8")
}

/// The whole of a regular file.
///
/// # Errors
/// As `read(2)`; and where it is no regular file, or is larger than 16 MiB.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    read_bytes_up_to(path, LARGEST)
}

/// The same with another limit, in bytes.
///
/// # Errors
/// As [`read_bytes`], with this limit.
pub(crate) fn read_bytes_up_to(path: &Path, largest: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_with(path, largest, |file, length| {
        bytes.reserve_exact(length + 1);
        file.take(largest).read_to_end(&mut bytes)
    })?;
    Ok(bytes)
}

fn read_with(path: &Path, largest: u64, read: impl FnOnce(File, usize) -> Result<usize>) -> Result<()> {
    try_as_owner_of_link(path, || {
        let file = open_regular(path, OpenOptions::new().read(true))?;
        let length = file.metadata()?.len();
        if length > largest {
            return Err(Error::other(format!("it is larger than {} KiB", largest / 1024)));
        }
        read(file, usize::try_from(length).unwrap_or_default()).map(drop)
    })
}

/// Opens a regular file with these options. Never waits for the other end of a pipe.
///
/// # Errors
/// As `open(2)`; and where it is no regular file.
pub(crate) fn open_regular(path: &Path, options: &mut OpenOptions) -> Result<File> {
    let file = options.custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(Error::other("it is not a regular file")) }
}

/// Whether files can be created in a directory, but neither renamed nor removed (`chattr +a`).
#[cfg(target_os = "linux")]
pub(crate) fn is_append_only(directory: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, directory, AtFlags::empty(), StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::APPEND))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn is_append_only(_: &Path) -> bool {
    false
}

/// Whether a file system of its own is mounted here that nobody can write to, such as the volume of a ConfigMap, whatever modes it
/// shows. What a sandbox makes read-only for one unit is none.
pub(crate) fn is_read_only_mount(directory: &Path) -> bool {
    use rustix::fs::{StatVfsMountFlags, statvfs};
    let device = |path: &Path| path.metadata().map(|data| data.dev()).ok();
    let is_mount = directory.parent().is_some_and(|above| device(above) != device(directory));
    is_mount && statvfs(directory).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Makes sure that a file created in this directory can be renamed later; otherwise it would stay there.
///
/// # Errors
/// Permission denied: the directory is append-only.
pub(crate) fn check_that_nothing_stays(directory: &Path) -> Result<()> {
    if !is_append_only(directory) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::PermissionDenied,
        "nothing can be renamed in its directory, which is append-only (`chattr -a`)",
    ))
}

/// Permission bits, set-id and sticky bits included.
const MODE_BITS: u32 = 0o7777;

/// Gives a file or a directory of ours this mode. Returns the mode that it has instead where its file system sets none: drives of
/// Windows in WSL, SMB and Azure Files give all files the one that the mount says, and refuse to change it or only seem to.
///
/// # Errors
/// As `fchmod(2)`, where it has another mode and that is not why.
pub(crate) fn set_mode(file: &File, mode: u32) -> Result<Option<u32>> {
    let set = file.set_permissions(Permissions::from_mode(mode));
    other_mode(set, &file.metadata()?, mode)
}

/// The mode that was found after an attempt to set this one, if it is another and cannot be set.
fn other_mode(set: Result<()>, found: &Metadata, mode: u32) -> Result<Option<u32>> {
    let found = found.mode() & MODE_BITS;
    match set {
        // The bits beyond these may be refused to some users only, and silently.
        _ if (found ^ mode) & 0o777 == 0 => Ok(None),
        Err(error) if !is_impossible(&error) => Err(error),
        _ => Ok(Some(found)),
    }
}

/// Whether a file system says so that it cannot do this to any file: EPERM and EACCES, EOPNOTSUPP and ENOSYS, EINVAL.
pub(crate) fn is_impossible(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported | ErrorKind::InvalidInput)
}

/// Makes a directory and those that are missing above it, each with this mode, whatever the umask is, and for the owner of what is
/// there; and brings their names to the disk.
///
/// # Errors
/// As `mkdir(2)`, `chmod(2)` and `chown(2)`.
pub(crate) fn make_directories(path: &Path, mode: u32) -> Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|above| above.symlink_metadata().is_err()).collect();
    for directory in missing.into_iter().rev().filter(|directory| !directory.as_os_str().is_empty()) {
        match DirBuilder::new().mode(mode).create(directory) {
            Ok(()) => {}
            // Another instance makes them as well.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
        // By the mask of this process it may be one that nobody can use, its owner included.
        let set = std::fs::set_permissions(directory, Permissions::from_mode(mode));
        let made = directory.metadata()?;
        if let Some(found) = other_mode(set, &made, mode)? {
            let path = directory.display();
            tracing::warn!("the directory {path} has mode {found:04o}: its file system sets no other");
        }
        let above = directory.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let owner = above.metadata()?;
        if rustix::process::geteuid().is_root() && made.uid() != owner.uid() {
            chown(directory, Some(owner.uid()), Some(owner.gid()))?;
        }
        // Some file systems know no such thing: then there is nothing to be done.
        let _ = File::open(above).and_then(|above| above.sync_all());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_another_encoding_is_called_what_it_is() {
        let utf16: Vec<u8> = "host = x".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let utf16_be: Vec<u8> = "host = x".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let with_mark = [b"\xff\xfe", &utf16[..]].concat();
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        for (bytes, wanted) in
            [(&utf16[..], "UTF-16"), (&utf16_be, "UTF-16"), (&with_mark, "UTF-16"), (b"# pr\xe9", "Latin-1")]
        {
            assert!(as_text(bytes).unwrap_err().contains(wanted), "{bytes:?}");
            std::fs::write(&path, bytes).unwrap();
            assert!(read_text(&path).unwrap_err().to_string().contains(wanted), "{bytes:?}");
        }
        std::fs::write(&path, "\u{feff}# pr\u{e9}").unwrap();
        assert!(read_text(&path).is_ok());
    }
}
