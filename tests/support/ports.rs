//! Ports for programs that cannot choose one themselves.

use std::net::{Ipv4Addr, TcpListener};

/// Below those that the system gives to whoever wants any (`net.ipv4.ip_local_port_range`), so that nobody gets it meanwhile.
const OURS: std::ops::Range<u16> = 10_000..32_000;

/// A port of 127.0.0.1 where nobody listens.
pub fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(OURS)).take(1_000).find(is_free).expect("a free port")
}
