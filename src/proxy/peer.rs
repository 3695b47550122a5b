//! Who connects: the user of this machine, by the kernel's word.

use std::net::SocketAddr;

use crate::model::User;
use crate::os::accounts::Users;
#[cfg(target_os = "linux")]
use crate::os::socket_owner::socket_owner;

/// What the kernel says for a user that has no number here (user_namespaces(7)). Nobody is let in as such a one.
const OVERFLOW: u32 = 65_534;

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
    /// Whether it is known of every name whose it is: a directory service may not have answered.
    pub(super) is_whole: bool,
}

impl Access {
    /// The proxy's own user, root, and those that are named. Also returns why some of these are not let in.
    pub(super) fn new(own: u32, users: &[User]) -> (Self, Vec<String>) {
        let mut allowed = vec![own, 0];
        let (mut remarks, mut is_whole, mut known) = (Vec::new(), true, Users::of_this_machine());
        for user in users {
            let (name, number) = match user {
                User::Number(number) => (number.to_string(), Ok(Some(*number))),
                User::Name(name) => (name.clone(), known.uid_of(name)),
            };
            let Ok(number) = number else {
                is_whole = false;
                remarks.push(format!(
                    "proxy_allow names {name}, and the directory service does not answer: the next reload asks it again"
                ));
                continue;
            };
            match number {
                None => remarks.push(format!("proxy_allow names {name}, and this machine has no such user")),
                Some(OVERFLOW) => remarks.push(format!(
                    "proxy_allow names {name}, who is not let in: the kernel gives the number {OVERFLOW} to every user whom it cannot name"
                )),
                Some(number) => allowed.push(number),
            }
        }
        (Access { allowed, is_whole }, remarks)
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
    socket_owner(peer, own).map_or(Peer::Unknown, Peer::User)
}

/// macOS does not tell without a call that no kept crate wraps.
#[cfg(not(target_os = "linux"))]
pub(super) fn of_tcp(_: SocketAddr, _: SocketAddr) -> Peer {
    Peer::Unknown
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
}
