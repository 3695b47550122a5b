//! Paths that name a descriptor of this process, such as `/dev/stdout`: the end of a pipe, a socket or a terminal that was handed to
//! it, and that others may share.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::net::{SendFlags, send};

/// A pipe that can be written to takes so many bytes at once without a wait (PIPE_BUF in limits.h).
const AT_ONCE: usize = if cfg!(target_os = "linux") { 4_096 } else { 512 };

/// How a stream is written to without waiting for whoever reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It does not wait by itself.
    Plain,
    /// Its flags are those of others, too, so it is asked first whether there is room.
    Shared,
    /// A socket, which is asked not to wait with each write.
    Socket,
}

impl Way {
    /// Writes as much as there is room for; returns how much that is.
    pub(super) fn write(self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Way::Plain => file.write(bytes),
            Way::Socket => Ok(send(file, bytes, SendFlags::DONTWAIT)?),
            Way::Shared => {
                let mut written = 0;
                for part in bytes.chunks(AT_ONCE) {
                    let no_patience = Timespec { tv_sec: 0, tv_nsec: 0 };
                    if matches!(poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&no_patience)), Ok(0)) {
                        return if written > 0 { Ok(written) } else { Err(ErrorKind::WouldBlock.into()) };
                    }
                    match file.write(part) {
                        Ok(length) => written += length,
                        Err(_) if written > 0 => return Ok(written),
                        Err(error) => return Err(error),
                    }
                }
                Ok(written)
            }
        }
    }
}

/// Opens a descriptor of this process for lines.
///
/// # Errors
/// It is not open, or is a socket other than that of stdout or stderr.
pub(super) fn open(number: u32) -> io::Result<(File, Way)> {
    let Some(own) = inherited(number)? else {
        return match reopen(number) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                Err(io::Error::other("it is a socket: of those only /dev/stdout and /dev/stderr can be written to"))
            }
            opened => Ok((opened?, Way::Plain)),
        };
    };
    let own = File::from(own);
    let kind = own.metadata()?.file_type();
    if kind.is_socket() {
        return Ok((own, Way::Socket));
    }
    // One of its own can be told not to wait. Of a file, another one would have a place of its own to write at.
    if cfg!(target_os = "linux") && !kind.is_file() {
        // A pipe of another user cannot be opened, but written to all the same.
        if let Ok(file) = reopen(number) {
            return Ok((file, Way::Plain));
        }
    }
    Ok((own, Way::Shared))
}

fn inherited(number: u32) -> io::Result<Option<OwnedFd>> {
    match number {
        1 => io::stdout().as_fd().try_clone_to_owned().map(Some),
        2 => io::stderr().as_fd().try_clone_to_owned().map(Some),
        _ => Ok(None),
    }
}

fn reopen(number: u32) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new().append(true).custom_flags(flags.bits().cast_signed()).open(format!("/dev/fd/{number}"))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_others_share_is_written_to_without_a_wait() {
        let (reader, writer) = io::pipe().unwrap();
        let (mut other, socket) = UnixStream::pair().unwrap();
        for (file, mut end, way) in [
            (File::from(OwnedFd::from(writer)), Box::new(reader) as Box<dyn Read>, Way::Shared),
            (File::from(OwnedFd::from(socket)), Box::new(other.try_clone().unwrap()), Way::Socket),
        ] {
            let piece = [b'x'; 10_000];
            let written = std::iter::from_fn(|| way.write(&file, &piece).ok()).take(1_000).sum::<usize>();
            let full = way.write(&file, &piece).unwrap_err();
            assert_eq!(full.kind(), ErrorKind::WouldBlock, "{way:?} {written}");
            let mut read = vec![0; written];
            end.read_exact(&mut read).unwrap();
            assert!(way.write(&file, b"y").is_ok(), "{way:?}");
        }
        other.set_nonblocking(true).unwrap();
        assert_eq!(other.read(&mut [0; 2]).unwrap(), 1);
    }
}
