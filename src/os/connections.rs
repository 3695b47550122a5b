//! Connections of TCP whose other side may go away without a word.

#[cfg(target_os = "linux")]
use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd, BorrowedFd},
};

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

/// How long a connection may be silent until the other side is asked whether it is still there, how often it is asked again, and how
/// many unanswered questions end the connection: 25 s in all, whatever a network or a sleeping machine has swallowed.
const SILENCE: Duration = Duration::from_secs(10);
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(5);
const QUESTIONS: u32 = 3;

/// `TCP_RTO_MAX_MS` of include/uapi/linux/tcp.h (Linux 6.15), which the crate `libc` does not have yet.
#[cfg(target_os = "linux")]
const TCP_RTO_MAX_MS: libc::c_int = 44;

/// Lets the kernel end a silent connection soon after the other side is gone without a word: a server, or the way to it. There is no
/// `TCP_USER_TIMEOUT`: it would end as well what lives and only reads nothing.
pub(crate) fn notice_a_dead_peer(stream: impl AsFd) {
    let stream = stream.as_fd();
    let set = || {
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, SILENCE)?;
        sockopt::set_tcp_keepintvl(stream, BETWEEN_QUESTIONS)?;
        sockopt::set_tcp_keepcnt(stream, QUESTIONS)
    };
    if let Err(error) = set() {
        tracing::debug!("a dead connection will be noticed late: {}", crate::words::of_io(&error.into()));
    }
    #[cfg(target_os = "linux")]
    repeat_often(stream);
}

/// Lets the kernel offer again at least so often what the other side has not confirmed or has no room for, instead of ever more rarely,
/// up to every two minutes. Versions before 6.15 cannot.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no crate that we have sets TCP_RTO_MAX_MS")]
fn repeat_often(stream: BorrowedFd<'_>) {
    let pause = libc::c_int::try_from(BETWEEN_QUESTIONS.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel reads the one number that is there.
    unsafe {
        let size = size_of_val(&pause) as libc::socklen_t;
        libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, TCP_RTO_MAX_MS, (&raw const pause).cast(), size);
    }
}

/// Whether the other side is gone while there is something for it to take, which the kernel would offer for a quarter of an hour.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no crate that we have asks for TCP_INFO")]
pub(crate) fn is_lost(stream: impl AsFd) -> bool {
    // The beginning of `tcp_info`, which is the same in every version of Linux (include/uapi/linux/tcp.h).
    let mut info = [0_u32; 15];
    let mut size: libc::socklen_t = 60;
    let stream = stream.as_fd();
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel writes at most `size` bytes, which `info` has.
    let done = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut size)
    };
    done == 0 && is_unheard(info) && (asked_in_vain(info) || has_lost_its_address(stream))
}

/// Elsewhere the questions about silent connections are asked on busy ones, too (`tcp_timer_keep` of the BSDs).
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_lost(_: impl AsFd) -> bool {
    false
}

/// Whether the other side has said nothing for so long that a silent connection would be ended.
#[cfg(target_os = "linux")]
fn is_unheard(info: [u32; 15]) -> bool {
    // Data that comes does not always count as a confirmation.
    let (data_before, confirmed_before) = (info[13], info[14]);
    u128::from(data_before.min(confirmed_before)) >= (SILENCE + BETWEEN_QUESTIONS * QUESTIONS).as_millis()
}

/// Whether it was offered something, or asked whether it has room, again and again. A side that has no room for more answers each such
/// question, even if it says so for days.
#[cfg(target_os = "linux")]
fn asked_in_vain(info: [u32; 15]) -> bool {
    let [_, _, retransmits, probes] = info[0].to_ne_bytes();
    u32::from(retransmits.max(probes)) >= QUESTIONS
}

/// Whether this machine no longer has the address that the connection comes from, as after it has changed to another network.
#[cfg(target_os = "linux")]
fn has_lost_its_address(stream: BorrowedFd<'_>) -> bool {
    let own = rustix::net::getsockname(stream).ok().and_then(|own| SocketAddr::try_from(own).ok());
    own.is_some_and(is_elsewhere)
}

/// Whether this machine, in this network, does not have the address.
#[cfg(target_os = "linux")]
pub(super) fn is_elsewhere(mut address: SocketAddr) -> bool {
    address.set_port(0);
    UdpSocket::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_silent_connection_is_asked_and_given_up_within_half_a_minute() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        notice_a_dead_peer(&stream);
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        let all = sockopt::tcp_keepidle(&stream).unwrap()
            + sockopt::tcp_keepintvl(&stream).unwrap() * sockopt::tcp_keepcnt(&stream).unwrap();
        assert!(all < Duration::from_secs(30), "{all:?}");
        #[cfg(target_os = "linux")]
        assert_eq!(
            sockopt::tcp_user_timeout(&stream).unwrap(),
            0,
            "who lives may read nothing for as long as it likes"
        );
        assert!(!is_lost(&stream));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn who_answers_is_there_however_long_it_takes_nothing_and_who_does_not_is_lost() {
        // As seen on a cable that was cut, or whose other end did not read: how often the kernel repeated something and asked for room
        // without an answer, and how long ago something was heard.
        for (what, retransmits, probes, heard_before, is_lost) in [
            ("was silent for long, and is just told something", 0, 0, 119_000, false),
            ("idle for an hour", 0, 0, 9_000, false),
            ("a short break", 5, 0, 10_004, false),
            ("a cut, with something under way", 7, 0, 25_008, true),
            ("reads nothing", 0, 0, 13_340, false),
            ("reads nothing for long", 0, 0, 68_788, false),
            ("reads nothing for long, and was just asked", 0, 1, 55_656, false),
            ("has taken its room back, and confirms nothing new", 0, 0, 99_900, false),
            ("a cut while it read nothing, and the kernel asks rarely", 0, 2, 199_736, false),
            ("a cut while it read nothing", 0, 5, 26_036, true),
        ] {
            let mut info = [0; 15];
            info[0] = u32::from_ne_bytes([1, 0, retransmits, probes]);
            (info[13], info[14]) = (u32::MAX, heard_before);
            assert_eq!(is_unheard(info) && asked_in_vain(info), is_lost, "{what}");
            info[13] = 0;
            assert!(!is_unheard(info), "{what}, but it has just sent something");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_address_that_this_machine_has_is_not_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!has_lost_its_address(stream.as_fd()));
    }
}
