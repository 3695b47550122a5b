//! Asks the kernel for one socket (sock_diag(7)). It finds that at once, however many there are.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

use crate::os::connections::is_elsewhere;

/// `SOCK_DIAG_BY_FAMILY` of include/uapi/linux/sock_diag.h: a question and its answer.
const BY_FAMILY: u16 = 20;

/// `NLMSG_ERROR` of netlink(7).
const ERROR: u16 = 2;

/// `NLM_F_REQUEST` of netlink(7). Without `NLM_F_DUMP` it is about one socket.
const REQUEST: u16 = 1;

/// The head of every message of netlink(7).
const HEAD: usize = 16;

/// `inet_diag_sockid` of include/uapi/linux/inet_diag.h: two ports, two addresses of 16 bytes, an interface and a cookie.
const ID: usize = 48;

/// `TCP_ESTABLISHED` of include/net/tcp_states.h.
const ESTABLISHED: u8 = 1;

/// What the kernel says about a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is open, and this user has it.
    Open(u32),
    /// There is none, or nobody holds it any more.
    NotOpen,
    /// It does not tell: it lacks the module, or this process may not ask.
    Unknown,
}

/// Asks for the socket at `local` whose other end is at `remote`.
pub(super) fn ask(local: SocketAddr, remote: SocketAddr) -> Answer {
    match owner(local, remote) {
        Ok(Some(uid)) => Answer::Open(uid),
        Ok(None) => Answer::NotOpen,
        // It says the same where it lacks the module, but the other end is known to be here; and it does not find a socket that is
        // bound to an interface (SO_BINDTODEVICE), which only a program of this machine can have.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if is_elsewhere(local) && owner(remote, local).is_ok() { Answer::NotOpen } else { Answer::Unknown }
        }
        Err(_) => Answer::Unknown,
    }
}

fn owner(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
    let kernel = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    send(&kernel, &question(family, &id(local, remote)), SendFlags::empty())?;
    let mut place = [0; 1024];
    // The kernel has answered when it has taken the question.
    let length = recv(&kernel, &mut place, RecvFlags::DONTWAIT)?.0;
    read(&place[..length], local, remote)
}

fn question(family: AddressFamily, id: &[u8; ID]) -> Vec<u8> {
    let mut all = Vec::with_capacity(HEAD + 8 + ID);
    all.extend_from_slice(&u32::try_from(HEAD + 8 + ID).unwrap_or(u32::MAX).to_ne_bytes());
    all.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    all.extend_from_slice(&REQUEST.to_ne_bytes());
    // The number of the message and the sender's; one socket asks one question.
    all.extend_from_slice(&[0; 8]);
    // `inet_diag_req_v2`: the protocol, nothing beyond the answer itself, and all states.
    let [family, _] = family.as_raw().to_le_bytes();
    all.extend_from_slice(&[family, 6, 0, 0]);
    all.extend_from_slice(&u32::MAX.to_ne_bytes());
    all.extend_from_slice(id);
    all
}

fn id(local: SocketAddr, remote: SocketAddr) -> [u8; ID] {
    let mut id = [0; ID];
    id[0..2].copy_from_slice(&local.port().to_be_bytes());
    id[2..4].copy_from_slice(&remote.port().to_be_bytes());
    for (ip, place) in [(local.ip(), 4), (remote.ip(), 20)] {
        match ip {
            IpAddr::V4(ip) => id[place..place + 4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => id[place..place + 16].copy_from_slice(&ip.octets()),
        }
    }
    // Addresses that are one interface's only say which.
    let scope = [local, remote].iter().find_map(|address| match address {
        SocketAddr::V6(address) => Some(address.scope_id()).filter(|scope| *scope != 0),
        SocketAddr::V4(_) => None,
    });
    id[36..40].copy_from_slice(&scope.unwrap_or(0).to_ne_bytes());
    // No cookie.
    id[40..].fill(0xFF);
    id
}

/// The owner of the socket in an answer, if that is the one that was asked for, and open.
///
/// # Errors
/// The kernel has refused the question, or this is no answer.
fn read(answer: &[u8], local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
    let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let body = answer.get(HEAD..).ok_or_else(short)?;
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    if kind == ERROR {
        let number = body.first_chunk().copied().map(i32::from_ne_bytes).ok_or_else(short)?;
        return Err(io::Error::from_raw_os_error(number.saturating_neg()));
    }
    if kind != BY_FAMILY {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    // `inet_diag_msg`: family, state, timer, retransmissions; the socket; when it expires, two queues, the user and the file.
    let id: &[u8; ID] = body.get(4..4 + ID).and_then(|id| id.try_into().ok()).ok_or_else(short)?;
    let uid = body.get(64..68).and_then(|uid| uid.try_into().ok()).map(u32::from_ne_bytes).ok_or_else(short)?;
    // It also finds a socket that listens at this port.
    let is_it = body[1] == ESTABLISHED
        && end(body[0], id, 0) == (local.ip(), local.port())
        && end(body[0], id, 1) == (remote.ip(), remote.port());
    Ok(is_it.then_some(uid))
}

/// The address of the first or the second end.
fn end(family: u8, id: &[u8; ID], which: usize) -> (IpAddr, u16) {
    let port = u16::from_be_bytes([id[2 * which], id[2 * which + 1]]);
    let mut place = [0; 16];
    place.copy_from_slice(&id[4 + 16 * which..20 + 16 * which]);
    let [a, b, c, d, ..] = place;
    let is_fourth = u16::from(family) == AddressFamily::INET.as_raw();
    let ip = if is_fourth { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(place).to_canonical() };
    (ip, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str = "127.0.0.1:50000";
    const REMOTE: &str = "127.0.0.1:6432";

    fn addresses() -> (SocketAddr, SocketAddr) {
        (LOCAL.parse().unwrap(), REMOTE.parse().unwrap())
    }

    /// As the kernel answers, with what belongs to a socket for both kinds of addresses if `is_mapped`.
    fn answer(state: u8, is_mapped: bool) -> Vec<u8> {
        let (local, remote) = addresses();
        let mut id = id(local, remote);
        if is_mapped {
            for place in [4, 20] {
                let ip: Ipv4Addr = [id[place], id[place + 1], id[place + 2], id[place + 3]].into();
                id[place..place + 16].copy_from_slice(&ip.to_ipv6_mapped().octets());
            }
        }
        let family = if is_mapped { AddressFamily::INET6 } else { AddressFamily::INET };
        let mut all = vec![0; HEAD];
        all[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        all.extend_from_slice(&[family.as_raw().to_le_bytes()[0], state, 0, 0]);
        all.extend_from_slice(&id);
        all.extend_from_slice(&[0; 12]);
        all.extend_from_slice(&1000_u32.to_ne_bytes());
        all.extend_from_slice(&[0; 4]);
        all
    }

    #[test]
    fn only_an_open_socket_between_these_two_ends_has_an_owner() {
        let (local, remote) = addresses();
        let read = |answer: &[u8], local, remote| read(answer, local, remote).map_err(|error| error.kind());
        for is_mapped in [false, true] {
            assert_eq!(read(&answer(ESTABLISHED, is_mapped), local, remote), Ok(Some(1000)));
            for (local, remote) in [
                (remote, local),
                ("127.0.0.2:50000".parse().unwrap(), remote),
                (local, "127.0.0.1:6433".parse().unwrap()),
                (local, "[::1]:6432".parse().unwrap()),
            ] {
                assert_eq!(read(&answer(ESTABLISHED, is_mapped), local, remote), Ok(None), "{local} {remote}");
            }
        }
        // Being opened, left by its owner in three ways, and listening.
        for state in [2, 4, 6, 8, 10] {
            assert_eq!(read(&answer(state, false), local, remote), Ok(None), "{state}");
        }
    }

    #[test]
    fn what_is_no_answer_is_told_from_one() {
        let (local, remote) = addresses();
        let mut refusal = vec![0; HEAD];
        refusal[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        refusal.extend_from_slice(&(-libc::ENOENT).to_ne_bytes());
        assert_eq!(read(&refusal, local, remote).unwrap_err().kind(), io::ErrorKind::NotFound);
        let whole = answer(ESTABLISHED, false);
        for length in 0..whole.len() - 4 {
            assert!(read(&whole[..length], local, remote).is_err(), "{length}");
        }
        assert!(read(&refusal[..HEAD], local, remote).is_err());
        // The end of a list.
        let mut end = whole;
        end[4..6].copy_from_slice(&3_u16.to_ne_bytes());
        assert_eq!(read(&end, local, remote).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
