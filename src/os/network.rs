//! Whether this machine has a network at all, asked of the kernel: nothing is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Addresses that belong to nobody (RFC 5737, RFC 3849): what leads there leads to the rest of the world.
const ANYWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// The port does not matter, but for being one (discard).
const PORT: u16 = 9;

/// Whether the kernel knows a way to a host, or may not need to: by its address, where that is what it is called by; else a way out of
/// this machine.
pub(crate) fn leads_to(host: &str) -> bool {
    match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(address) => has_route(address),
        Err(_) => ANYWHERE.into_iter().any(has_route),
    }
}

/// To connect a datagram socket is to look up the way, and no more (connect(2)).
fn has_route(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0)).is_ok_and(|socket| socket.connect(SocketAddr::new(address, PORT)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_always_a_way_to_this_machine_itself() {
        assert!(leads_to("127.0.0.1"));
    }
}
