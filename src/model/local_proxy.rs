//! What is set for the local proxy, by which programs that keep passwords log in.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// How many sessions there may be at once, where nothing else is set.
const SESSIONS: usize = 200;

/// How long a proxy that the service manager started on demand stays without a session, where nothing else is set.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// The proxy's own settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalProxy {
    /// Where its TCP ports are.
    pub(crate) listen: IpAddr,
    /// Users besides its own and root who may connect.
    pub(crate) allow: Vec<User>,
    pub(crate) max_sessions: usize,
    /// None where it stays however long nobody needs it.
    pub(crate) idle_timeout: Option<Duration>,
    /// A file with a certificate and its key, for clients that insist on TLS.
    pub(crate) tls: Option<PathBuf>,
}

impl Default for LocalProxy {
    fn default() -> Self {
        LocalProxy {
            listen: Ipv4Addr::LOCALHOST.into(),
            allow: Vec::new(),
            max_sessions: SESSIONS,
            idle_timeout: Some(IDLE),
            tls: None,
        }
    }
}

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Name(String),
    Number(u32),
}

/// What one connection wants of the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxied {
    /// A TCP port for this connection alone.
    pub(crate) port: Option<u16>,
    /// Roles besides its own user that clients may ask for.
    pub(crate) roles: Vec<String>,
}
