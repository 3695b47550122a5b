//! Sessions with PostgreSQL: one that proves a credential before it is published, and those that the proxy opens for others.
//!
//! It does what a client that reads the password file would do: find the host, connect, ask for TLS, log in with the credential.
//! To prove a credential it then runs one query and disconnects. Every way to fail becomes a [`Failure`] that says what to do
//! next.
//!
//! Invariants: the credential is sent only over TLS and, unless `require` was asked for, only to a server that has proved to be
//! the host; it appears in no message, log or `Debug` output; a login ends within its limit, and reads at most 1 MiB.

mod authenticate;
mod bounded;
mod diagnosis;
mod fault;
mod network;
#[cfg(feature = "cli")]
mod open;
mod refusal;
mod remedy;
pub(crate) mod requests;
mod session;
mod startup;
mod target;
mod tls;
mod wire;

use std::time::Duration;

use secrecy::SecretString;
use tokio::time::{Instant, sleep};

use crate::failure::Failure;
use fault::{Fault, Stage, within};
#[cfg(feature = "cli")]
pub(crate) use open::{Doors, Opened, Refused, Upstream};
#[cfg(feature = "cli")]
pub(crate) use startup::{Parameters, Startup};
pub use target::Target;
use tls::Tls;

pub use crate::model::SslMode;

/// The wait before the second try. Most servers that were asleep have woken within a second.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest wait between two tries: a cold start may take more than 10 s, and a person may be watching.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A longer limit is cut to this, so that adding it to the clock cannot overflow.
const LONGEST_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// What a login found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// As the server reports it: `16.4`, `17.5 (Debian 17.5-1)`.
    pub server_version: String,
    /// The user that the server logged us in as (`session_user`).
    pub user: String,
    /// From the first try to the end of the session.
    pub took: Duration,
    /// More than one where the server had to wake up.
    pub tries: u32,
}

/// Logs in, asks for the session's user, and ends the session properly.
///
/// `limit` covers all tries. A server that is waking up (it refuses or drops connections, says that it is starting, or has
/// no authorization ready yet) is tried again within the limit.
///
/// # Errors
/// Configuration: the host, the database or the certificate authorities are wrong. `SignInRefused`: the role or its
/// token is. Unavailable: unreachable, not trusted, paused, blocked or failing; transient unless a person must act.
pub async fn login(target: &Target<'_>, password: &SecretString, limit: Duration) -> Result<Session, Failure> {
    let started = Instant::now();
    let tls = Tls::new(target).map_err(|failure| diagnosis::placed(failure, target))?;
    let mut tries = Tries::within(limit);
    loop {
        match attempt(target, &tls, password, tries.until).await {
            Ok(found) => return Ok(found.into_session(started.elapsed(), tries.count())),
            Err(fault) => tries.after(fault).await.map_err(|fault| diagnosis::diagnose(&fault, target, limit))?,
        }
    }
}

/// Tries to log in again while a server seems to be waking up.
struct Tries {
    until: Instant,
    failed: u32,
    /// The last fault that says more than that the time ran out.
    told: Option<Fault>,
}

impl Tries {
    fn within(limit: Duration) -> Self {
        Tries { until: Instant::now() + limit.min(LONGEST_LIMIT), failed: 0, told: None }
    }

    /// How many there were, once one has succeeded.
    fn count(&self) -> u32 {
        self.failed + 1
    }

    /// Waits for the time of the next try.
    ///
    /// # Errors
    /// There is none: the fault to report.
    async fn after(&mut self, fault: Fault) -> Result<(), Fault> {
        let wait = waits().nth(usize::try_from(self.failed).unwrap_or_default()).unwrap_or(LONGEST_WAIT);
        let again = fault.may_pass() && wait < self.until.saturating_duration_since(Instant::now());
        // An earlier error says more than that the time ran out.
        let most = match (fault, self.told.take()) {
            (Fault::Late(_), Some(before)) => before,
            (fault, _) => fault,
        };
        if !again {
            return Err(most);
        }
        self.failed += 1;
        self.told = Some(most);
        sleep(wait).await;
        Ok(())
    }
}

fn waits() -> impl Iterator<Item = Duration> + Send {
    std::iter::successors(Some(FIRST_WAIT), |wait| Some((*wait * 2).min(LONGEST_WAIT)))
}

async fn attempt(
    target: &Target<'_>,
    tls: &Tls,
    password: &SecretString,
    until: Instant,
) -> Result<session::Found, Fault> {
    let stream = network::connect(target.host, target.port, until).await?;
    let stream = within(until, Stage::Tls, tls.over(stream)).await?;
    within(until, Stage::Login, session::hold(stream, target, password)).await
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;
    use crate::failure::{Code, Kind};

    fn target(port: u16) -> Target<'static> {
        let sslmode = SslMode::Require;
        Target { host: "127.0.0.1", port, database: "db", user: "ada@example.com", sslmode, root: None }
    }

    #[test]
    fn the_ssl_modes_are_libpqs_and_the_weak_ones_are_none() {
        for mode in [SslMode::Require, SslMode::VerifyFull] {
            assert_eq!(SslMode::parse(mode.as_str()), Some(mode));
            assert_eq!(mode.to_string(), mode.as_str());
        }
        for weak in ["disable", "allow", "prefer", "verify-ca", "", "REQUIRE"] {
            assert_eq!(SslMode::parse(weak), None, "{weak}");
        }
    }

    #[test]
    fn the_waits_grow_from_a_quarter_of_a_second_to_two() {
        let millis: Vec<u128> = waits().take(6).map(|wait| wait.as_millis()).collect();
        assert_eq!(millis, [250, 500, 1000, 2000, 2000, 2000]);
    }

    /// A library user's runtime may have several threads.
    #[test]
    fn a_login_may_move_between_threads() {
        fn moves<T: Send>(_: &T) {}
        let (target, password) = (target(1), SecretString::from("x"));
        moves(&login(&target, &password, Duration::ZERO));
    }

    #[tokio::test]
    async fn nobody_there_is_tried_until_the_time_is_over_and_then_told() {
        // Bound but not listening, so that nobody else gets the port.
        let taken = TcpSocket::new_v4().unwrap();
        taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = taken.local_addr().unwrap().port();
        let started = Instant::now();
        let limit = Duration::from_secs(5);
        let failure = login(&target(port), &SecretString::from("x"), limit).await.unwrap_err();
        assert!((limit / 2..limit * 8).contains(&started.elapsed()), "{:?}", started.elapsed());
        assert_eq!((failure.kind, failure.code), (Kind::Transient, Code::Unavailable));
        let start = format!("cannot log in to 127.0.0.1:{port} as ada@example.com: the connection was refused");
        assert!(failure.message.starts_with(&start), "{failure}");
    }
}
