//! Connections of TCP whose other side may go away without a word.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

/// How long a connection may be silent until the other side is asked whether it is still there, how often it is asked again, and how
/// many unanswered questions end the connection: 25 s in all, whatever a network or a sleeping machine has swallowed.
const SILENCE: Duration = Duration::from_secs(10);
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(5);
const QUESTIONS: u32 = 3;

/// Lets the kernel end a silent connection soon after the other side is gone without a word: a server, or the way to it. There is no
/// `TCP_USER_TIMEOUT`: it would end as well what lives and only reads nothing.
pub(crate) fn notice_a_dead_peer(stream: impl AsFd) {
    let set = || {
        let stream = stream.as_fd();
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, SILENCE)?;
        sockopt::set_tcp_keepintvl(stream, BETWEEN_QUESTIONS)?;
        sockopt::set_tcp_keepcnt(stream, QUESTIONS)
    };
    if let Err(error) = set() {
        tracing::debug!("a dead connection will be noticed late: {}", crate::words::of_io(&error.into()));
    }
}

/// Whether the other side is gone while there is something for it to take, which the kernel would offer for a quarter of an hour.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no crate that we have asks for TCP_INFO")]
pub(crate) fn is_lost(stream: impl AsFd) -> bool {
    use std::os::fd::AsRawFd;

    // The beginning of `tcp_info`, which is the same in every version of Linux (include/uapi/linux/tcp.h).
    let mut info = [0_u32; 15];
    let mut size: libc::socklen_t = 60;
    let stream = stream.as_fd();
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel writes at most `size` bytes, which `info` has.
    let done = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut size)
    };
    done == 0 && tells_a_loss(info)
}

/// Elsewhere the kernel alone decides.
#[cfg(not(target_os = "linux"))]
pub(crate) fn is_lost(_: impl AsFd) -> bool {
    false
}

/// A side that has no room for more confirms each question about that, even if it says so for days; the kernel asks ever more rarely,
/// up to every two minutes.
#[cfg(target_os = "linux")]
fn tells_a_loss(info: [u32; 15]) -> bool {
    let [_, _, _, probes] = info[0].to_ne_bytes();
    // Data that comes does not always count as a confirmation.
    let (is_unconfirmed, sent_before, heard_before) = (info[6] > 0, info[11], info[13].min(info[14]));
    let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    // Something was said long after the other side was last heard, and long enough ago for an answer.
    let repeats_in_vain = is_unconfirmed
        && sent_before >= millis(BETWEEN_QUESTIONS)
        && heard_before.saturating_sub(sent_before) >= millis(SILENCE);
    heard_before >= millis(SILENCE + BETWEEN_QUESTIONS * QUESTIONS)
        && (repeats_in_vain || u32::from(probes) >= QUESTIONS)
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
        // As seen on a cable that was cut, or whose other end did not read: the kernel asked so often without an answer, pieces that
        // are not confirmed, and how long ago something was sent and heard.
        for (what, probes, unconfirmed, sent_before, heard_before, is_lost) in [
            ("was silent for long, and is just told something", 0, 1, 3, 119_000, false),
            ("idle for an hour", 0, 0, 3_600_000, 9_000, false),
            ("a short break", 0, 11, 2_388, 10_004, false),
            ("a cut, with something under way", 0, 11, 10_736, 25_008, true),
            ("reads nothing", 0, 0, 26_936, 13_340, false),
            ("reads nothing for long", 0, 0, 180_036, 68_788, false),
            ("reads nothing for long, and was just asked", 1, 0, 110_980, 55_656, false),
            ("has taken its room back, and confirms nothing new", 0, 11, 100_000, 99_900, false),
            ("a cut while it read nothing", 2, 0, 255_060, 199_736, false),
            ("a cut while it read nothing, for long", 3, 0, 351_060, 295_736, true),
        ] {
            let mut info = [0; 15];
            info[0] = u32::from_ne_bytes([1, 0, 0, probes]);
            (info[6], info[11], info[13], info[14]) = (unconfirmed, sent_before, u32::MAX, heard_before);
            assert_eq!(tells_a_loss(info), is_lost, "{what}");
            info[13] = 0;
            assert!(!tells_a_loss(info), "{what}, but it has just sent something");
        }
    }
}
