//! What is no file and can be read only once: standard input, a descriptor that a shell made for `<(command)`, a named pipe.

use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind, IsTerminal, Read, Result, stdin};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::identity::try_as_owner_of;
use super::wiped;

/// Links in a row after which a path is taken as it stands.
const MOST_LINKS: usize = 40;

/// The number of the descriptor of this process that a path names, be it through links.
pub(crate) fn descriptor(path: &Path) -> Option<u32> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let standard = ["/dev/stdin", "/dev/stdout", "/dev/stderr"];
        if let Some(number) =
            standard.iter().zip(0..).find_map(|(name, number)| (path == Path::new(name)).then_some(number))
        {
            return Some(number);
        }
        let directory = path.parent()?;
        if is_of_descriptors(directory) {
            return path.file_name()?.to_str()?.parse().ok();
        }
        path = directory.join(fs::read_link(&path).ok()?);
    }
    None
}

fn is_of_descriptors(directory: &Path) -> bool {
    let own = PathBuf::from(format!("/proc/{}/fd", std::process::id()));
    let known = ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"];
    directory == own || known.iter().any(|known| directory == Path::new(known))
}

/// What a path leads to, where that can be read only once; none where it is a file, or nothing.
pub(crate) fn kind(path: &Path) -> Option<&'static str> {
    let kind = fs::metadata(path).ok()?.file_type();
    if kind.is_file() || kind.is_dir() {
        return None;
    }
    Some(match descriptor(path) {
        Some(0) => "standard input",
        Some(_) => "what a shell handed over for this run",
        None if kind.is_fifo() => "a named pipe",
        None if kind.is_socket() => "a socket",
        None => "a device",
    })
}

/// Reads all of it, up to so many bytes, and waits no longer than this for whoever writes.
///
/// # Errors
/// As `read(2)`; it is a terminal, it is longer, or its end has not come in time.
pub(crate) fn read(path: &Path, most: usize, patience: Duration) -> Result<Zeroizing<Vec<u8>>> {
    let mut file = open(path)?;
    if file.is_terminal() {
        return Err(Error::other("it is a terminal, where a secret would be seen: let a program write it into a pipe"));
    }
    let (began, mut bytes, mut piece) = (Instant::now(), Zeroizing::new(Vec::new()), Zeroizing::new([0; 4096]));
    loop {
        let left = patience.saturating_sub(began.elapsed());
        let left =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&left)) {
            Ok(0) => {
                let why = format!("nobody has written all of it within {} s", patience.as_secs());
                return Err(Error::new(ErrorKind::TimedOut, why));
            }
            Err(error) if error != rustix::io::Errno::INTR => return Err(error.into()),
            _ => {}
        }
        match file.read(piece.as_mut_slice()) {
            Ok(0) => return Ok(bytes),
            Ok(length) => wiped::append(&mut bytes, &piece[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
        if bytes.len() > most {
            return Err(Error::other(format!("it is longer than {} KiB", most / 1024)));
        }
    }
}

fn open(path: &Path) -> Result<File> {
    if descriptor(path) == Some(0) {
        // A socket cannot be opened by a name, nor what belongs to another user.
        return stdin().as_fd().try_clone_to_owned().map(File::from);
    }
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let open = || OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    if descriptor(path).is_some() { open() } else { try_as_owner_of(path, open) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_descriptor_is_known_by_each_of_its_names_and_through_links() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        symlink("/dev/stdout", at("app.log")).unwrap();
        symlink("app.log", at("again")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let own = format!("/proc/{}/fd/7", std::process::id());
        let other = format!("/proc/{}/fd/1", std::os::unix::process::parent_id());
        for (path, number) in [
            ("/dev/stdin", Some(0)),
            ("/dev/stdout", Some(1)),
            ("/dev/stderr", Some(2)),
            ("/dev/fd/2", Some(2)),
            ("/proc/self/fd/1", Some(1)),
            ("/proc/thread-self/fd/12", Some(12)),
            (&own, Some(7)),
            (&at("app.log"), Some(1)),
            (&at("again"), Some(1)),
            (&at("loop"), None),
            (&at("absent"), None),
            (&other, None),
            ("/dev/null", None),
            ("/dev/fd/x", None),
            ("stdout", None),
        ] {
            assert_eq!(descriptor(Path::new(path)), number, "{path}");
        }
    }

    fn pipe_in(directory: &Path) -> PathBuf {
        let path = directory.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    #[test]
    fn a_pipe_is_read_to_its_end_whenever_its_writer_comes_and_not_for_ever() {
        let scratch = tempfile::tempdir().unwrap();
        let path = pipe_in(scratch.path());
        assert_eq!(kind(&path), Some("a named pipe"));
        let (long, short) = (Duration::from_secs(30), Duration::from_millis(20));
        assert_eq!(read(&path, 10, short).unwrap_err().kind(), ErrorKind::TimedOut);
        let writer = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut file = OpenOptions::new().write(true).open(path).unwrap();
                file.write_all(b"do").unwrap();
                file.write_all(b"se").unwrap();
            }
        });
        assert_eq!(*read(&path, 10, long).unwrap(), b"dose");
        writer.join().unwrap();
        assert!(read(Path::new("/dev/zero"), 10_000, long).unwrap_err().to_string().contains("longer than"));
        assert!(read(Path::new("/dev/null"), 10, long).unwrap().is_empty());
    }

    #[test]
    fn files_can_be_read_again() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("secret");
        assert_eq!(kind(&file), None);
        fs::write(&file, "x").unwrap();
        assert_eq!((kind(&file), kind(scratch.path()), kind(Path::new("/dev/null"))), (None, None, Some("a device")));
    }
}
