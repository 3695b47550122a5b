//! Connections of TCP whose other side may go away without a word.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;

/// How long a connection may be silent until the other side is asked whether it is still there, how often it is asked again, and how
/// many unanswered questions end the connection: 25 s in all, whatever a network or a sleeping machine has swallowed.
const SILENCE: Duration = Duration::from_secs(10);
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(5);
const QUESTIONS: u32 = 3;

/// Lets the kernel end the connection soon after the other side is gone without a word: a server, or the way to it.
pub(crate) fn notice_a_dead_peer(stream: impl AsFd) {
    let set = || {
        let stream = stream.as_fd();
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, SILENCE)?;
        sockopt::set_tcp_keepintvl(stream, BETWEEN_QUESTIONS)?;
        sockopt::set_tcp_keepcnt(stream, QUESTIONS)?;
        // The same for what was sent and is not confirmed, which the kernel would repeat for a quarter of an hour.
        #[cfg(target_os = "linux")]
        {
            let all = SILENCE + BETWEEN_QUESTIONS * QUESTIONS;
            sockopt::set_tcp_user_timeout(stream, u32::try_from(all.as_millis()).unwrap_or(u32::MAX))?;
        }
        rustix::io::Result::Ok(())
    };
    if let Err(error) = set() {
        tracing::debug!("a dead connection will be noticed late: {}", crate::words::of_io(&error.into()));
    }
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
        assert_eq!(u128::from(sockopt::tcp_user_timeout(&stream).unwrap()), all.as_millis());
    }
}
