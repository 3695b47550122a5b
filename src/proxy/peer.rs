//! Who connects: the user of this machine, by the kernel's word.

use std::net::SocketAddr;

use crate::model::User;
use crate::os::accounts;

/// What the kernel says for a user that has no number here (user_namespaces(7)). Nobody is let in as such a one.
const OVERFLOW: u32 = 65_534;

/// The most that is read of the kernel's table of connections, in bytes: about 100,000 of them.
#[cfg(target_os = "linux")]
const LARGEST_TABLE: u64 = 16 * 1024 * 1024;

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// The user with this number.
    User(u32),
    /// Nobody can tell: it is on another machine, in another network of this one, or the system does not say.
    Unknown,
}

/// Whether somebody may use the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Welcome,
    /// The user with this number may not.
    Refused(u32),
    /// Whoever it is must know the proxy's own password.
    NeedsPassword,
}

/// Who may use the proxy.
#[derive(Clone, Debug)]
pub(super) struct Access {
    allowed: Vec<u32>,
}

impl Access {
    /// The proxy's own user, root, and those that are named. Also returns why some of these are not let in.
    pub(super) fn new(own: u32, users: &[User]) -> (Self, Vec<String>) {
        let mut allowed = vec![own, 0];
        let mut remarks = Vec::new();
        for user in users {
            let (name, number) = match user {
                User::Number(number) => (number.to_string(), Some(*number)),
                User::Name(name) => (name.clone(), accounts::uid_of(name)),
            };
            match number {
                None => remarks.push(format!("proxy_allow names {name}, and this machine has no such user")),
                Some(OVERFLOW) => remarks.push(format!(
                    "proxy_allow names {name}, who is not let in: the kernel gives the number {OVERFLOW} to every user whom it cannot name"
                )),
                Some(number) => allowed.push(number),
            }
        }
        (Access { allowed }, remarks)
    }

    pub(super) fn verdict(&self, peer: Peer) -> Verdict {
        match peer {
            Peer::User(uid) if uid != OVERFLOW && self.allowed.contains(&uid) => Verdict::Welcome,
            Peer::User(uid) => Verdict::Refused(uid),
            Peer::Unknown => Verdict::NeedsPassword,
        }
    }
}

/// The owner of the other end of a Unix connection, to whom the kernel gives this number here. In the sandbox of a user's unit root has
/// none, and is the only other one who can connect to a private socket.
pub(super) fn of_unix(uid: u32, is_private: impl FnOnce() -> bool) -> Peer {
    Peer::User(if uid == OVERFLOW && is_private() { 0 } else { uid })
}

/// The owner of the other end of a TCP connection, if that is on this machine and in this network.
#[cfg(target_os = "linux")]
pub(super) fn of_tcp(peer: SocketAddr, own: SocketAddr) -> Peer {
    let (peer, own) = (canonical(peer), canonical(own));
    // A socket for both kinds of addresses is in the table of the sixth.
    let tables = if peer.is_ipv4() { &["tcp", "tcp6"][..] } else { &["tcp6"] };
    tables.iter().find_map(|table| owner(table, peer, own)).map_or(Peer::Unknown, Peer::User)
}

/// macOS does not tell without a call that no kept crate wraps.
#[cfg(not(target_os = "linux"))]
pub(super) fn of_tcp(_: SocketAddr, _: SocketAddr) -> Peer {
    Peer::Unknown
}

#[cfg(any(target_os = "linux", test))]
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(target_os = "linux")]
fn owner(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    use std::io::{BufRead, BufReader, Read};
    let file = std::fs::File::open(format!("/proc/self/net/{table}")).ok()?;
    let lines = BufReader::with_capacity(64 * 1024, file.take(LARGEST_TABLE)).lines();
    lines.map_while(Result::ok).find_map(|line| owner_in(&line, local, remote))
}

/// The owner in a line of proc_net_tcp(5), if it is about the end of an open connection at `local` whose other end is at `remote`.
/// Sockets that nobody holds any more are listed with the owner 0, but not as open.
#[cfg(any(target_os = "linux", test))]
fn owner_in(line: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    const ESTABLISHED: &str = "01";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (here, there, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state != ESTABLISHED || address(here)? != local || address(there)? != remote {
        return None;
    }
    fields.nth(3)?.parse().ok()
}

/// `0100007F:1538`: words of 32 bits in this machine's order, and the port.
#[cfg(any(target_os = "linux", test))]
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for word in ip.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let ip: std::net::IpAddr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        16 => <[u8; 16]>::try_from(bytes).ok()?.into(),
        _ => return None,
    };
    Some(canonical(SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_user_and_root_and_those_that_are_named_may_and_nobody_else() {
        let users = [User::Number(7), User::Name("no such user".to_owned()), User::Number(OVERFLOW)];
        let (access, remarks) = Access::new(1000, &users);
        assert!(remarks[0].contains("names no such user, and this machine has no such user"), "{remarks:?}");
        assert!(remarks[1].contains("names 65534, who is not let in"), "{remarks:?}");
        assert_eq!(remarks.len(), 2);
        for (peer, verdict) in [
            (Peer::User(1000), Verdict::Welcome),
            (Peer::User(0), Verdict::Welcome),
            (Peer::User(7), Verdict::Welcome),
            (Peer::User(1001), Verdict::Refused(1001)),
            (Peer::Unknown, Verdict::NeedsPassword),
        ] {
            assert_eq!(access.verdict(peer), verdict, "{peer:?}");
        }
        // Who has no number here is root where nobody else can be.
        assert_eq!(access.verdict(of_unix(OVERFLOW, || true)), Verdict::Welcome);
        assert_eq!(access.verdict(of_unix(OVERFLOW, || false)), Verdict::Refused(OVERFLOW));
        assert_eq!(access.verdict(of_unix(1001, || true)), Verdict::Refused(1001));
        // Every user whom a namespace does not know has this number.
        let (access, _) = Access::new(OVERFLOW, &[]);
        assert_eq!(access.verdict(Peer::User(OVERFLOW)), Verdict::Refused(OVERFLOW));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_of_the_kernels_table_is_read() {
        let line =
            "   1: 0100007F:C350 0100007F:1920 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0";
        let (local, remote) = ("127.0.0.1:50000".parse().unwrap(), "127.0.0.1:6432".parse().unwrap());
        assert_eq!(owner_in(line, local, remote), Some(1000));
        assert_eq!(owner_in(line, remote, local), None, "the other end has a line of its own");
        assert_eq!(owner_in(&line.replace(" 01 ", " 06 "), local, remote), None, "nobody holds it any more");
        let mapped = line.replace("0100007F", "0000000000000000FFFF00000100007F");
        assert_eq!(owner_in(&mapped, local, remote), Some(1000));
        let sixth = line.replace("0100007F", "00000000000000000000000001000000");
        let (local, remote) = ("[::1]:50000".parse().unwrap(), "[::1]:6432".parse().unwrap());
        assert_eq!(owner_in(&sixth, local, remote), Some(1000));
        for broken in ["", "sl local_address", "1: x y 01", "1: 0100007F:C350 0100007F:1920 01 a b c d"] {
            assert_eq!(owner_in(broken, local, remote), None, "{broken}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_tells_whose_connection_it_is() {
        use std::net::{TcpListener, TcpStream};

        for here in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(here) else { continue };
            let port = listener.local_addr().unwrap().port();
            let to = if here == "[::1]:0" { format!("[::1]:{port}") } else { format!("127.0.0.1:{port}") };
            let client = TcpStream::connect(to).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let own = rustix::process::getuid().as_raw();
            assert_eq!(of_tcp(peer, server.local_addr().unwrap()), Peer::User(own), "{here}");
            drop(client);
        }
        let elsewhere = "192.0.2.7:5".parse().unwrap();
        assert_eq!(of_tcp(elsewhere, "192.0.2.8:6".parse().unwrap()), Peer::Unknown);
    }
}
