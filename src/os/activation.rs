//! Sockets that the service manager has opened for this process (sd_listen_fds(3)).

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicBool, Ordering};

/// A socket that waits for clients.
#[derive(Debug)]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "nothing is handed over there"))]
pub(crate) enum Listening {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listening {
    /// The same socket once more.
    ///
    /// # Errors
    /// As dup(2).
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Listening::Unix(listener) => Listening::Unix(listener.try_clone()?),
            Listening::Tcp(listener) => Listening::Tcp(listener.try_clone()?),
        })
    }
}

/// The sockets that were handed over; none where there is no service manager, or where they have been taken already.
///
/// # Errors
/// One of them is not a listening stream socket, or the variables do not tell which they are.
#[cfg(target_os = "linux")]
pub(crate) fn sockets() -> io::Result<Vec<Listening>> {
    static ARE_TAKEN: AtomicBool = AtomicBool::new(false);
    if ARE_TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    sd_notify::listen_fds()?.map(|number| by_systemd::listening(by_systemd::owned(number))).collect()
}

/// launchd hands sockets over by a call of its own, and only where its agent asks for that: ours opens them itself.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sockets() -> io::Result<Vec<Listening>> {
    Ok(Vec::new())
}

#[cfg(target_os = "linux")]
mod by_systemd {
    use std::io;
    use std::os::fd::{FromRawFd, OwnedFd, RawFd};

    use rustix::net::{AddressFamily, SocketType, getsockname, sockopt};

    use super::Listening;

    /// A descriptor that the service manager has opened for this process.
    pub(super) fn owned(number: RawFd) -> OwnedFd {
        #[allow(unsafe_code)]
        // SAFETY: by the protocol of sd_listen_fds(3), which was just checked with LISTEN_PID, this number is an open descriptor that
        // belongs to this process and to nobody else in it: it was open before the program began, and `sockets` takes it once.
        unsafe {
            OwnedFd::from_raw_fd(number)
        }
    }

    pub(super) fn listening(socket: OwnedFd) -> io::Result<Listening> {
        let refuse = |why: &str| Err(io::Error::other(format!("a socket that was handed over {why}")));
        if sockopt::socket_type(&socket)? != SocketType::STREAM || !sockopt::socket_acceptconn(&socket)? {
            return refuse("does not wait for clients: give it with ListenStream= and Accept=no");
        }
        match getsockname(&socket)?.address_family() {
            AddressFamily::UNIX => Ok(Listening::Unix(socket.into())),
            AddressFamily::INET | AddressFamily::INET6 => Ok(Listening::Tcp(socket.into())),
            _ => refuse("is neither a Unix socket nor one of TCP"),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::by_systemd::listening;
    use super::*;

    #[test]
    fn sockets_are_told_apart_and_what_does_not_listen_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(directory.path().join("s")).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        assert!(matches!(listening(unix.into()), Ok(Listening::Unix(_))));
        assert!(matches!(listening(tcp.into()), Ok(Listening::Tcp(_))));
        let refused = listening(connected.into()).unwrap_err();
        assert!(refused.to_string().contains("does not wait"), "{refused}");
    }
}
