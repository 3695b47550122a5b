//! Reads the kernel's table of connections (proc_net_tcp(5)): slowly where there are many, and it is always there.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};

/// The most that is read of it, in bytes: about 100,000 connections.
const LARGEST: u64 = 16 * 1024 * 1024;

pub(super) fn owner(local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    // A socket for both kinds of addresses is in the table of the sixth.
    let tables = if local.is_ipv4() { &["tcp", "tcp6"][..] } else { &["tcp6"] };
    tables.iter().find_map(|table| owner_by(table, local, remote))
}

fn owner_by(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let file = File::open(format!("/proc/self/net/{table}")).ok()?;
    let lines = BufReader::with_capacity(64 * 1024, file.take(LARGEST)).lines();
    lines.map_while(Result::ok).find_map(|line| owner_in(&line, local, remote))
}

/// The owner in a line of proc_net_tcp(5), if it is about the end of an open connection at `local` whose other end is at `remote`.
/// Sockets that nobody holds any more are listed with the owner 0, but not as open.
fn owner_in(line: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    const ESTABLISHED: &str = "01";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (here, there, state) = (fields.next()?, fields.next()?, fields.next()?);
    let is_at = |text, end: SocketAddr| address(text).is_some_and(|address| address == (end.ip(), end.port()));
    if state != ESTABLISHED || !is_at(here, local) || !is_at(there, remote) {
        return None;
    }
    fields.nth(3)?.parse().ok()
}

/// `0100007F:1538`: words of 32 bits in this machine's order, and the port.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for word in ip.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let ip: IpAddr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        16 => <[u8; 16]>::try_from(bytes).ok()?.into(),
        _ => return None,
    };
    Some((ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
