//! Asks the kernel whether somebody has a file open for writing, and delays others who want to write it.
//!
//! A read lease (`F_SETLEASE`, fcntl(2)) is granted only while nobody has the file open for writing. As long as we hold it,
//! programs that open the file for writing or truncate it wait in the kernel; readers are not disturbed. Only Linux has leases,
//! only on some file systems, and only for the owner of a file or root.

use std::fs::File;

/// The kernel's answer.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nobody else tells"))]
pub(crate) enum Asked {
    /// Nobody writes, and nobody can begin to until this is dropped. It lasts at most 45 s (`/proc/sys/fs/lease-break-time`): be
    /// quick, and never open the file for writing in this process.
    Quiet(#[allow(dead_code, reason = "held for its drop")] Lease),
    /// Somebody has it open for writing.
    BeingWritten,
    /// The kernel cannot tell: there are no leases here.
    Unknown,
}

/// The lease ends when this is dropped.
pub(crate) struct Lease(#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there are none"))] File);

/// Asks for a lease on a file that is open for reading only.
#[cfg(target_os = "linux")]
pub(crate) fn ask(file: &File) -> Asked {
    // The lease belongs to the open file that both descriptors share.
    let Ok(own) = file.try_clone() else { return Asked::Unknown };
    // The kernel sends a signal when a writer is delayed. The default, SIGIO, ends a process that does not expect it. SIGURG is
    // ignored unless somebody listens, and a listener must expect it without cause; so the program around this library is not
    // affected.
    if fcntl(file, F_SETSIG, libc::SIGURG).is_err() {
        return Asked::Unknown;
    }
    match fcntl(file, libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => Asked::Quiet(Lease(own)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Asked::BeingWritten,
        Err(_) => Asked::Unknown,
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn ask(_: &File) -> Asked {
    Asked::Unknown
}

impl Drop for Lease {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        let _ = fcntl(&self.0, libc::F_SETLEASE, libc::F_UNLCK);
    }
}

/// Chooses the signal for leases; the same number on every architecture (include/uapi/asm-generic/fcntl.h). The libc crate lacks it.
#[cfg(target_os = "linux")]
const F_SETSIG: libc::c_int = 10;

/// The one system call that no crate offers safely.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "neither rustix nor nix knows F_SETLEASE and F_SETSIG")]
fn fcntl(file: &File, command: libc::c_int, argument: libc::c_int) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;

    // SAFETY: the descriptor is open as long as `file` is borrowed; both commands used here take an int and do not access the
    // memory of this process.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if done == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use super::*;
    use crate::os::inherited::until;

    #[test]
    fn a_writer_is_seen_and_held_up_and_a_reader_is_neither() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "old").unwrap();
        let file = File::open(&path).unwrap();
        let reader = File::open(&path).unwrap();
        until(|| !matches!(ask(&file), Asked::BeingWritten));
        let Asked::Quiet(lease) = ask(&file) else { panic!("this file system knows no leases") };
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let writer = std::thread::spawn({
            let path = path.clone();
            move || OpenOptions::new().append(true).open(path).unwrap()
        });
        // The writer waits as soon as a second lease is refused: by then it has opened the file and only waits for our
        // lease.
        while matches!(ask(&reader), Asked::Quiet(_)) {
            std::thread::yield_now();
        }
        assert!(!writer.is_finished());
        drop(lease);
        let mut writer = writer.join().unwrap();
        assert!(matches!(ask(&file), Asked::BeingWritten));
        writer.write_all(b" and new").unwrap();
        drop(writer);
        until(|| matches!(ask(&file), Asked::Quiet(_)));
        assert_eq!(fs::read(&path).unwrap(), b"old and new");
    }
}
