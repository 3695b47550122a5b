//! What `service install --proxy` adds to the packaged socket unit of the proxy.

use std::net::SocketAddr;

use crate::service::{ProxyAccess, Scope};

/// The drop-in for the socket unit; none where its own socket is all there is.
///
/// It changes with everything for which the proxy has to be started anew.
pub(super) fn drop_in(scope: Scope, access: &ProxyAccess) -> Option<String> {
    let mut addresses: Vec<SocketAddr> = access.tcp.clone();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() && !access.lets_others_in {
        return None;
    }
    let mut text = "[Socket]\n".to_owned();
    for address in &addresses {
        text.push_str(&format!("ListenStream={address}\n"));
    }
    if !addresses.is_empty() {
        // systemd 262 forks to clear away what was PrivateTmp= of the service, and what it forks has the old socket for some
        // milliseconds more. Only the same user may share a port in this way (SO_REUSEPORT in socket(7)).
        text.push_str(
            "# So that a restart does not find the port in use by the socket that was just closed.\nReusePort=yes\n",
        );
    }
    // The address may come later than the socket: at boot, in another network.
    let is_always_there = |address: &SocketAddr| address.ip().is_loopback() || address.ip().is_unspecified();
    if !addresses.iter().all(is_always_there) {
        text.push_str("FreeBind=yes\n");
    }
    if access.lets_others_in {
        text.push_str("# The proxy looks at who comes: proxy_allow names them.\n");
        // Nobody else gets into a user's own directory.
        if scope == Scope::System {
            text.push_str("SocketMode=0666\n");
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scope: Scope, addresses: &[&str], lets_others_in: bool) -> Option<String> {
        let tcp = addresses.iter().map(|address| address.parse().unwrap()).collect();
        drop_in(scope, &ProxyAccess { tcp, lets_others_in })
    }

    #[test]
    fn each_address_is_there_once_and_in_the_same_order_whatever_the_order_of_the_connections() {
        let text = "[Socket]\nListenStream=127.0.0.1:6432\nListenStream=127.0.0.1:6433\nListenStream=[::1]:6432\n# So that a restart does \
                    not find the port in use by the socket that was just closed.\nReusePort=yes\n";
        let addresses = ["127.0.0.1:6432", "127.0.0.1:6433", "[::1]:6432"];
        assert_eq!(of(Scope::User, &addresses, false).as_deref(), Some(text));
        let again = ["[::1]:6432", "127.0.0.1:6433", "127.0.0.1:6432", "127.0.0.1:6432"];
        assert_eq!(of(Scope::System, &again, false).as_deref(), Some(text));
        assert_eq!(of(Scope::User, &[], false), None);
    }

    #[test]
    fn an_address_that_may_come_later_can_be_bound_and_one_that_is_always_there_needs_nothing() {
        for (address, free) in
            [("192.0.2.1:6432", true), ("[2001:db8::1]:6432", true), ("0.0.0.0:6432", false), ("[::]:6432", false)]
        {
            let text = of(Scope::System, &["127.0.0.1:1", address], false).unwrap();
            assert_eq!(text.contains("FreeBind=yes\n"), free, "{text}");
            assert!(text.contains(&format!("ListenStream={address}\n")), "{text}");
        }
    }

    #[test]
    fn others_reach_a_socket_of_the_machine_and_a_users_drop_in_tells_that_they_may() {
        assert!(of(Scope::System, &[], true).unwrap().ends_with("\nSocketMode=0666\n"));
        let of_user = of(Scope::User, &[], true).unwrap();
        assert!(!of_user.contains("SocketMode") && of_user.contains("proxy_allow"), "{of_user}");
    }
}
