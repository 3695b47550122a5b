//! From a host's name to a TCP connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::fault::{Fault, Stage, within};
use crate::os::blocking::addresses;

/// Connects to the first of the host's addresses that accepts a connection, in the resolver's order.
pub(super) async fn connect(host: &str, port: u16, until: Instant) -> Result<TcpStream, Fault> {
    let lookup = async { addresses(host, port).await.map_err(Fault::Lookup) };
    let addresses = within(until, Stage::Lookup, lookup).await?;
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let mut told = None;
    for address in addresses {
        // An address that never answers must leave time for the others.
        let share = until.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        let fault = match connect_to(address, share).await {
            Ok(stream) => return Ok(stream),
            Err(fault) => fault,
        };
        // Addresses without a route come last (RFC 6724, rule 1), so the first failure says most, unless a later one
        // shows that the machine exists.
        if told.is_none() || fault.may_pass() {
            told = Some(fault);
        }
    }
    Err(told.unwrap_or_else(|| Fault::Lookup(io::Error::other("it has no address"))))
}

/// Connects to this address and to no other.
pub(super) async fn connect_to(address: SocketAddr, limit: Duration) -> Result<TcpStream, Fault> {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // Only a matter of speed: a login is a handful of small messages.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(Fault::Connect(error)),
        Err(_) => Err(Fault::Late(Stage::Connect)),
    }
}
