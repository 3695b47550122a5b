//! Whose the other end of a TCP connection is.

mod diag;
mod table;

use std::net::SocketAddr;

use diag::Answer;

/// The user who has the open socket at `local` whose other end is at `remote`, as this process counts users (user_namespaces(7)). None
/// where there is no such socket on this machine and in this network, or where the kernel does not tell.
pub(crate) fn socket_owner(local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let (local, remote) = (canonical(local), canonical(remote));
    match diag::ask(local, remote) {
        Answer::Open(uid) => Some(uid),
        Answer::NotOpen => None,
        Answer::Unknown => table::owner(local, remote),
    }
}

/// One kind of address for each peer: a socket for both kinds has clients of the fourth with addresses of the sixth.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip = address.ip().to_canonical();
    if ip == address.ip() { address } else { SocketAddr::new(ip, address.port()) }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    /// Both ways to ask, since each has to know all of it.
    fn ask_both(local: SocketAddr, remote: SocketAddr) -> [Option<u32>; 2] {
        let (local, remote) = (canonical(local), canonical(remote));
        let answer = diag::ask(local, remote);
        [if let Answer::Open(uid) = answer { Some(uid) } else { None }, table::owner(local, remote)]
    }

    #[test]
    fn the_kernel_tells_whose_connection_it_is() {
        let own = Some(rustix::process::getuid().as_raw());
        for here in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(here) else { continue };
            let port = listener.local_addr().unwrap().port();
            let to = if here == "[::1]:0" { format!("[::1]:{port}") } else { format!("127.0.0.1:{port}") };
            let client = TcpStream::connect(to).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let here = server.local_addr().unwrap();
            assert_eq!(ask_both(peer, here), [own, own], "{here}");
            assert_eq!(socket_owner(peer, here), own);
            // Nobody holds it any more, and such a one has the owner 0.
            client.shutdown(Shutdown::Both).unwrap();
            drop(client);
            assert_eq!(ask_both(peer, here), [None, None], "{here}");
        }
    }

    #[test]
    fn who_is_elsewhere_and_who_listens_there_is_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        for elsewhere in ["192.0.2.7:5", "[2001:db8::7]:5"] {
            let elsewhere = elsewhere.parse().unwrap();
            assert_eq!(table::owner(elsewhere, "192.0.2.8:6".parse().unwrap()), None);
            assert_eq!(socket_owner(elsewhere, "192.0.2.8:6".parse().unwrap()), None);
        }
        // The kernel finds this one, whatever the other end is.
        assert_eq!(ask_both(here, "127.0.0.1:9".parse().unwrap()), [None, None]);
        // It knows neither end: that is also what it says without its module.
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let unknown = diag::ask("192.0.2.7:9".parse().unwrap(), unused);
        assert_eq!(unknown, Answer::Unknown);
    }

    #[test]
    #[allow(clippy::print_stderr, reason = "what is not tried is said")]
    fn a_socket_that_is_bound_to_an_interface_is_found_in_the_table() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        let family = rustix::net::AddressFamily::INET;
        let client = rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap();
        if let Err(error) = bind_to_loopback(&client) {
            // Before Linux 5.7 only root may.
            return eprintln!("not tried: a socket that is bound to an interface ({error})");
        }
        rustix::net::connect(&client, &here).unwrap();
        let (server, peer) = listener.accept().unwrap();
        assert_eq!(socket_owner(peer, server.local_addr().unwrap()), Some(rustix::process::getuid().as_raw()));
    }

    #[expect(unsafe_code, reason = "no crate that we have sets SO_BINDTODEVICE")]
    fn bind_to_loopback(socket: &impl AsRawFd) -> std::io::Result<()> {
        // SAFETY: the descriptor is open, and the kernel reads the three bytes that are there.
        let done = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, c"lo".as_ptr().cast(), 3)
        };
        if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
}
