//! Opens a session on behalf of a client: to the server's first `ReadyForQuery`, and no further.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::authenticate::log_in;
use super::bounded::Bounded;
use super::fault::{Fault, Stage, within};
use super::refusal::{Bar, Meaning, Refusal};
use super::requests::CANCEL_REQUEST;
use super::startup::Startup;
use super::tls::Tls;
use super::wire::{Message, Messages};
use super::{SslMode, Target, Tries, diagnosis, network};
use crate::failure::{Code, Failure};
use crate::os::connections::notice_a_dead_peer;
use crate::os::watch::Stamps;
use crate::typed::shell_word;

/// How long what was read of the trusted authorities is used.
const TRUSTED_FOR: Duration = Duration::from_secs(10 * 60);

/// How long a server may take to accept a cancel request.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);

/// An encrypted connection to a server.
pub(crate) type Upstream = TlsStream<Bounded<TcpStream>>;

/// A session that the server has accepted.
pub(crate) struct Opened {
    pub(crate) stream: Upstream,
    /// What the client must see: `AuthenticationOk`, parameters, the key to cancel with, `ReadyForQuery`.
    pub(crate) welcome: Vec<Message>,
    /// What the server sent after that and was read already.
    pub(crate) read: BytesMut,
    /// More than one where the server had to wake up.
    pub(crate) tries: u32,
}

/// Why no session was opened.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) failure: Failure,
    /// What fits it of PostgreSQL's error codes.
    pub(crate) sqlstate: String,
    /// Whether another credential may help.
    pub(crate) is_of_credential: bool,
}

/// What each kind of target needs for TLS, kept between sessions: so that servers which can do so resume theirs.
#[derive(Default)]
pub(crate) struct Doors(Mutex<HashMap<Door, Known>>);

#[derive(PartialEq, Eq, Hash)]
struct Door {
    host: String,
    sslmode: SslMode,
    root: Option<PathBuf>,
}

struct Known {
    tls: Arc<Tls>,
    since: Instant,
    stamps: Stamps,
}

impl Doors {
    /// Opens a session with these parameters. `limit` covers all tries: a server that is waking up is tried again.
    ///
    /// # Errors
    /// As [`super::login`].
    pub(crate) async fn open(
        &self,
        target: &Target<'_>,
        startup: &Startup,
        password: &SecretString,
        limit: Duration,
    ) -> Result<Opened, Refused> {
        let tls = self.tls(target).map_err(|failure| Refused::of_setting(diagnosis::placed(failure, target)))?;
        let mut tries = Tries::within(limit);
        loop {
            match attempt(target, &tls, startup, password, tries.until).await {
                Ok((stream, welcome, read)) => return Ok(Opened { stream, welcome, read, tries: tries.count() }),
                Err(fault) => tries.after(fault).await.map_err(|fault| Refused::of(&fault, target, limit))?,
            }
        }
    }

    /// Asks the server at this address to cancel what the session with this key does (PostgreSQL, "Canceling Requests in Progress").
    /// It answers nothing, whatever comes of it.
    ///
    /// # Errors
    /// As [`super::login`], as far as it gets.
    pub(crate) async fn cancel(&self, target: &Target<'_>, address: SocketAddr, key: &[u8]) -> Result<(), Refused> {
        let tls = self.tls(target).map_err(|failure| Refused::of_setting(diagnosis::placed(failure, target)))?;
        let until = Instant::now() + CANCEL_LIMIT;
        let request = async {
            let stream = network::connect_to(address, CANCEL_LIMIT).await?;
            let mut stream = within(until, Stage::Tls, tls.over(stream)).await?;
            let length = u32::try_from(key.len() + 8).unwrap_or(u32::MAX);
            let request = [&length.to_be_bytes(), &CANCEL_REQUEST.to_be_bytes(), key].concat();
            let sent = async {
                stream.write_all(&request).await.map_err(Fault::of_io)?;
                stream.flush().await.map_err(Fault::of_io)?;
                // The server closes once it has passed the request on. Who asked may count on that order.
                let _ = stream.read_u8().await;
                Ok(())
            };
            within(until, Stage::Login, sent).await
        };
        request.await.map_err(|fault| Refused::of(&fault, target, CANCEL_LIMIT))
    }

    fn tls(&self, target: &Target<'_>) -> Result<Arc<Tls>, Failure> {
        let door = Door {
            host: target.host.to_owned(),
            sslmode: target.sslmode,
            root: target.root.map(std::path::Path::to_owned),
        };
        let files: Vec<PathBuf> = door.root.iter().cloned().collect();
        let stamps = Stamps::of(&files);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&door)
            && known.stamps == stamps
            && known.since.elapsed() < TRUSTED_FOR
        {
            return Ok(Arc::clone(&known.tls));
        }
        let tls = Arc::new(Tls::new(target)?);
        all.insert(door, Known { tls: Arc::clone(&tls), since: Instant::now(), stamps });
        Ok(tls)
    }
}

async fn attempt(
    target: &Target<'_>,
    tls: &Tls,
    startup: &Startup,
    password: &SecretString,
    until: Instant,
) -> Result<(Upstream, Vec<Message>, BytesMut), Fault> {
    let stream = network::connect(target.host, target.port, until).await?;
    notice_a_dead_peer(&stream);
    let stream = within(until, Stage::Tls, tls.over(stream)).await?;
    let mut messages = Messages::over(stream);
    let welcome = within(until, Stage::Login, log_in(&mut messages, startup, password)).await?;
    let (mut stream, read) = messages.into_parts();
    stream.get_mut().0.lift();
    Ok((stream, welcome, read))
}

impl Refused {
    /// Host and user are not known yet.
    pub(crate) fn without_place(name: &str) -> Self {
        let failure =
            Failure::transient(Code::Unavailable, format!("the host and the user of {name} are not known yet"));
        Self::of_setting(failure.hint(format!("see why: `dbx-rotator rotate --connection {}`", shell_word(name))))
    }

    /// With the connection's own database and user the parameters are longer than a server reads.
    pub(crate) fn too_long() -> Self {
        let failure = Failure::permanent(Code::Configuration, "the parameters of the session are too long");
        Refused { sqlstate: "08P01".to_owned(), ..Self::of_setting(failure) }
    }

    /// A setting cannot work as it is.
    fn of_setting(failure: Failure) -> Self {
        Refused { failure, sqlstate: "08001".to_owned(), is_of_credential: false }
    }

    fn of(fault: &Fault, target: &Target<'_>, limit: Duration) -> Self {
        let failure = diagnosis::diagnose(fault, target, limit);
        let is_of_credential = matches!(fault, Fault::Refused(refusal) if is_of_credential(refusal));
        Refused { failure, sqlstate: sqlstate(fault), is_of_credential }
    }
}

fn is_of_credential(refusal: &Refusal) -> bool {
    // With any other it would be the same (ClientAuthentication in auth.c, InitializeSessionUserId in miscinit.c).
    let is_of_place_or_role =
        ["pg_hba.conf", "not permitted to log in"].iter().any(|words| refusal.message.contains(words));
    refusal.sqlstate.starts_with("28")
        && !is_of_place_or_role
        && !matches!(refusal.meaning(), Meaning::Barred(_) | Meaning::NotReady)
}

/// The code that fits (PostgreSQL, "PostgreSQL Error Codes"). Pools tell by it whether to try again.
fn sqlstate(fault: &Fault) -> String {
    let code = match fault {
        Fault::Lookup(_) | Fault::Connect(_) | Fault::NoTls | Fault::Tls(_) | Fault::Strange(_) => "08001",
        Fault::Late(Stage::Lookup | Stage::Connect | Stage::Tls) => "08001",
        Fault::Late(Stage::Login) => "57P03",
        Fault::Lost(_) => "08006",
        Fault::Refused(refusal) => match refusal.meaning() {
            Meaning::NotAuthorized | Meaning::NoToken | Meaning::NoNativeLogin | Meaning::NoSuchRole => "28P01",
            Meaning::Pooler | Meaning::Forbidden => "28000",
            Meaning::NoRightToConnect => "42501",
            Meaning::NoSuchDatabase => "3D000",
            Meaning::Barred(Bar::Paused) | Meaning::NotReady | Meaning::Starting => "57P03",
            Meaning::Barred(_) => "08004",
            Meaning::Full => "53300",
            Meaning::Other => return of_server(&refusal.sqlstate),
        },
    };
    code.to_owned()
}

/// The server's own code, if it is one.
fn of_server(sqlstate: &str) -> String {
    let is_one = sqlstate.len() == 5 && sqlstate.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    if is_one { sqlstate.to_owned() } else { "08004".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(sqlstate: &str, message: &str) -> Fault {
        let (sqlstate, message) = (sqlstate.to_owned(), message.to_owned());
        Fault::Refused(Refusal { sqlstate, message, detail: None })
    }

    #[test]
    fn each_fault_has_the_code_by_which_pools_know_what_to_do() {
        let io = |kind: std::io::ErrorKind| kind.into();
        for (fault, code, of_credential) in [
            (Fault::Connect(io(std::io::ErrorKind::ConnectionRefused)), "08001", false),
            (Fault::NoTls, "08001", false),
            (Fault::Late(Stage::Login), "57P03", false),
            (Fault::Lost(io(std::io::ErrorKind::UnexpectedEof)), "08006", false),
            (refused("28P01", "password authentication failed for user \"ada\""), "28P01", true),
            (refused("28000", "OAuth: User is not authorized"), "28P01", true),
            (refused("28000", "anything"), "28000", true),
            (refused("28000", "role \"ada\" is not permitted to log in"), "28000", false),
            (refused("28000", "no pg_hba.conf entry for host \"192.0.2.7\", user \"ada\""), "28000", false),
            (refused("28000", "pg_hba.conf rejects connection for host \"192.0.2.7\""), "28000", false),
            (refused("28000", "External authorization failed"), "57P03", false),
            (refused("57P03", "the database system is starting up"), "57P03", false),
            (refused("53300", "sorry, too many clients already"), "53300", false),
            (refused("3D000", "database \"x\" does not exist"), "3D000", false),
            (refused("42704", "anything"), "42704", false),
            (refused("\n\0bad", "anything"), "08004", false),
        ] {
            let target = Target {
                host: "db.example",
                port: 5432,
                database: "db",
                user: "ada",
                sslmode: SslMode::VerifyFull,
                root: None,
            };
            let refused = Refused::of(&fault, &target, Duration::from_secs(1));
            assert_eq!((refused.sqlstate.as_str(), refused.is_of_credential), (code, of_credential), "{fault:?}");
        }
    }
}
