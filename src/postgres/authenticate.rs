//! The login itself, over a stream that is already encrypted: from the first message to the first `ReadyForQuery` (PostgreSQL,
//! "Start-up"). What a server refuses after it has accepted the password, such as a database that does not exist, is part of it.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};

use super::fault::Fault;
use super::refusal::Refusal;
use super::startup::Startup;
use super::wire::{Message, Messages, malformed};

/// What the server may ask for (PostgreSQL, "AuthenticationOk" and the messages below it).
mod request {
    pub(super) const OK: i32 = 0;
    pub(super) const CLEARTEXT: i32 = 3;
    pub(super) const MD5: i32 = 5;
    pub(super) const SASL: i32 = 10;
    pub(super) const SASL_CONTINUE: i32 = 11;
    pub(super) const SASL_FINAL: i32 = 12;
}

/// How many messages beside the requests, such as parameters and notices, a server may send.
const MOST_MESSAGES: usize = 500;

/// Logs in. Returns what the server sent from its acceptance to its readiness, and notices from before: what the client that the
/// session is for must see.
///
/// # Errors
/// The server refuses, is lost, or does not keep to the protocol.
pub(super) async fn log_in<S>(
    messages: &mut Messages<S>,
    startup: &Startup,
    password: &SecretString,
) -> Result<Vec<Message>, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let user = startup.get("user").unwrap_or_default();
    let mut out = BytesMut::new();
    startup.write(&mut out);
    messages.send(&mut out).await?;
    let mut scram = None;
    let mut is_accepted = false;
    let mut welcome = Vec::new();
    while welcome.len() < MOST_MESSAGES {
        let message = messages.next().await?;
        match message.tag() {
            b'R' if message.number()?.0 == request::OK && !is_accepted => {
                is_accepted = true;
                welcome.push(message);
            }
            b'R' if !is_accepted => {
                answer(&message, user, password, &mut scram, &mut out)?;
                if !out.is_empty() {
                    messages.send(&mut out).await?;
                }
            }
            b'E' => return Err(Fault::Refused(Refusal::read(message.body()))),
            // A notice, or that the server speaks an older version of the protocol.
            b'N' | b'v' => welcome.push(message),
            // Parameters, and the key to cancel with.
            b'S' | b'K' if is_accepted => welcome.push(message),
            b'Z' if is_accepted => {
                welcome.push(message);
                return Ok(welcome);
            }
            _ => return Err(malformed()),
        }
    }
    Err(Fault::Strange(format!("it sent more than {MOST_MESSAGES} messages during a login")))
}

/// Writes the answer to a request for authentication; nothing where none is due.
fn answer(
    message: &Message,
    user: &[u8],
    password: &SecretString,
    scram: &mut Option<ScramSha256>,
    out: &mut BytesMut,
) -> Result<(), Fault> {
    let password = password.expose_secret().as_bytes();
    let (kind, data) = message.number()?;
    match (kind, scram) {
        (request::CLEARTEXT, _) => frontend::password_message(password, out).map_err(|_| malformed()),
        (request::MD5, _) => {
            let salt = data.try_into().map_err(|_| malformed())?;
            let hash = zeroize::Zeroizing::new(md5_hash(user, password, salt));
            frontend::password_message(hash.as_bytes(), out).map_err(|_| malformed())
        }
        (request::SASL, scram @ None) => {
            if !data.split(|byte| *byte == 0).any(|mechanism| mechanism == SCRAM_SHA_256.as_bytes()) {
                return Err(no_password());
            }
            // The server is known by its certificate.
            let exchange = scram.insert(ScramSha256::new(password, ChannelBinding::unsupported()));
            frontend::sasl_initial_response(SCRAM_SHA_256, exchange.message(), out).map_err(|_| malformed())
        }
        (request::SASL_CONTINUE, Some(exchange)) => {
            exchange.update(data).map_err(|_| malformed())?;
            frontend::sasl_response(exchange.message(), out).map_err(|_| malformed())
        }
        (request::SASL_FINAL, Some(exchange)) => exchange.finish(data).map_err(|_| malformed()),
        (request::SASL | request::SASL_CONTINUE | request::SASL_FINAL, _) => Err(malformed()),
        _ => Err(no_password()),
    }
}

fn no_password() -> Fault {
    Fault::Strange("it asks for something other than a password".to_owned())
}
