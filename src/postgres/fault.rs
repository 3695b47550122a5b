//! What can go wrong on the way to a session, as types; `diagnosis` turns them into sentences.

use std::future::Future;
use std::io;

use tokio::time::{Instant, timeout_at};

use super::bounded::TooMuch;
use super::refusal::{Meaning, Refusal};

/// What was being done when the time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Lookup,
    Connect,
    Tls,
    Login,
}

#[derive(Debug)]
pub(super) enum Fault {
    /// The host's address could not be found.
    Lookup(io::Error),
    /// None of its addresses took a connection.
    Connect(io::Error),
    /// The time ran out.
    Late(Stage),
    /// The server does not offer TLS.
    NoTls,
    Tls(rustls::Error),
    /// The connection ended before the login was complete.
    Lost(io::Error),
    /// The server refused the login.
    Refused(Refusal),
    /// The server's answer breaks the protocol or a limit; described in our words.
    Strange(String),
}

impl Fault {
    /// Whether a server that is waking up may cause this.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Fault::Connect(error) => error.kind() == io::ErrorKind::ConnectionRefused,
            Fault::Lost(_) => true,
            Fault::Refused(refusal) => matches!(refusal.meaning(), Meaning::Starting | Meaning::NotReady),
            Fault::Lookup(_) | Fault::Late(_) | Fault::NoTls | Fault::Tls(_) | Fault::Strange(_) => false,
        }
    }

    /// An I/O error on an open connection. It may have a TLS error inside.
    pub(super) fn of_io(error: io::Error) -> Self {
        if let Some(too_much) = error.get_ref().and_then(|inner| inner.downcast_ref::<TooMuch>()) {
            return Fault::Strange(too_much.to_string());
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => Fault::Tls(tls.clone()),
            None => Fault::Lost(error),
        }
    }
}

/// Does something until the time is over.
pub(super) async fn within<T>(
    until: Instant,
    stage: Stage,
    doing: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    timeout_at(until, doing).await.unwrap_or(Err(Fault::Late(stage)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_does_that_wakes_up_may_pass_and_nothing_else() {
        let refused = |sqlstate: &str, message: &str, detail: Option<&str>| {
            let (sqlstate, message, detail) = (sqlstate.to_owned(), message.to_owned(), detail.map(str::to_owned));
            Fault::Refused(Refusal { sqlstate, message, detail })
        };
        let external = "External authorization failed";
        for waking in [
            Fault::Connect(io::ErrorKind::ConnectionRefused.into()),
            Fault::Lost(io::ErrorKind::UnexpectedEof.into()),
            Fault::Lost(io::ErrorKind::ConnectionReset.into()),
            refused("57P03", "the database system is starting up", None),
            refused("28000", external, None),
        ] {
            assert!(waking.may_pass(), "{waking:?}");
        }
        for settled in [
            Fault::Connect(io::ErrorKind::HostUnreachable.into()),
            Fault::Lookup(io::Error::other("Name or service not known")),
            Fault::Late(Stage::Login),
            Fault::NoTls,
            Fault::Tls(rustls::Error::DecryptError),
            Fault::Strange("HTTP".to_owned()),
            refused("28P01", "password authentication failed", None),
            refused("3D000", "database \"orders\" does not exist", None),
            refused("53300", "sorry, too many clients already", None),
            refused("28000", external, Some("blocked by IP ACL")),
        ] {
            assert!(!settled.may_pass(), "{settled:?}");
        }
    }
}
