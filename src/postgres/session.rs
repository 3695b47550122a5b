//! The session itself, over a stream that is already encrypted: log in, ask for the user, disconnect.

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};

use super::authenticate::log_in;
use super::fault::Fault;
use super::refusal::Refusal;
use super::startup::Startup;
use super::wire::{Message, Messages, malformed};
use super::{Session, Target};
use crate::foreign::quoted;

/// The simple protocol, which all poolers and proxies understand.
const QUESTION: &str = "select session_user";

/// What the server said about itself and about us.
#[derive(Debug)]
pub(super) struct Found {
    server_version: String,
    user: String,
}

impl Found {
    pub(super) fn into_session(self, took: Duration, tries: u32) -> Session {
        Session { server_version: self.server_version, user: self.user, took, tries }
    }
}

/// Runs a whole session.
pub(super) async fn hold<S>(stream: S, target: &Target<'_>, password: &SecretString) -> Result<Found, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut messages = Messages::over(stream);
    let startup = Startup::new([
        ("user", target.user),
        ("database", target.database),
        ("application_name", "dbx-rotator"),
        ("client_encoding", "UTF8"),
    ]);
    let welcome = log_in(&mut messages, &startup, password).await?;
    let server_version = welcome.iter().find_map(|message| parameter(message, "server_version"));
    let server_version = quoted(server_version.as_deref().unwrap_or("unknown"));
    let user = ask(&mut messages).await?;
    let mut out = BytesMut::new();
    frontend::terminate(&mut out);
    // Everything was said.
    let _ = messages.send(&mut out).await;
    messages.close().await;
    Ok(Found { server_version, user })
}

/// Asks who is logged in.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(messages: &mut Messages<S>) -> Result<String, Fault> {
    let mut out = BytesMut::new();
    frontend::query(QUESTION, &mut out).map_err(|_| malformed())?;
    messages.send(&mut out).await?;
    let mut user = None;
    loop {
        let message = messages.next().await?;
        match message.tag() {
            b'D' => user = user.or_else(|| only_column(message.body())),
            b'E' => return Err(Fault::Refused(Refusal::read(message.body()))),
            b'Z' => break,
            // Notices, parameters that change, and the parts of the answer that say nothing new.
            b'N' | b'S' | b'T' | b'C' => {}
            _ => return Err(malformed()),
        }
    }
    user.ok_or_else(|| Fault::Strange("it did not say who is logged in".to_owned()))
}

/// The value in a `ParameterStatus`, if the message is one of this name.
fn parameter(message: &Message, name: &str) -> Option<String> {
    let mut texts = message.body().split(|byte| *byte == 0);
    let is_it = message.tag() == b'S' && texts.next()? == name.as_bytes();
    is_it.then_some(texts.next()?).and_then(|value| String::from_utf8(value.into()).ok())
}

/// The value in a `DataRow` with one column that is not null.
fn only_column(body: &[u8]) -> Option<String> {
    let (count, rest) = body.split_first_chunk::<2>()?;
    let (length, value) = rest.split_first_chunk::<4>()?;
    let is_whole = u16::from_be_bytes(*count) == 1 && usize::try_from(i32::from_be_bytes(*length)).ok()? == value.len();
    is_whole.then_some(value).and_then(|value| String::from_utf8(value.into()).ok())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::{SslMode, Target};
    use super::*;

    const TARGET: Target<'static> = Target {
        host: "db.example",
        port: 5432,
        database: "orders",
        user: "ada@example.com",
        sslmode: SslMode::Require,
        root: None,
    };

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    /// The body of the next message, which must be of this kind. The very first message has no kind.
    async fn next(stream: &mut DuplexStream, kind: Option<u8>) -> Vec<u8> {
        if let Some(kind) = kind {
            assert_eq!(char::from(stream.read_u8().await.unwrap()), char::from(kind));
        }
        let mut body = vec![0; usize::try_from(stream.read_u32().await.unwrap()).unwrap() - 4];
        stream.read_exact(&mut body).await.unwrap();
        body
    }

    const OK: &[u8] = &[0, 0, 0, 0];
    const CLEARTEXT: &[u8] = &[0, 0, 0, 3];
    const GSS: &[u8] = &[0, 0, 0, 7];

    #[tokio::test]
    async fn a_session_is_ended_with_terminate_and_not_by_hanging_up() {
        let (ours, mut theirs) = duplex(4096);
        let server = async {
            let startup = next(&mut theirs, None).await;
            theirs.write_all(&message(b'R', CLEARTEXT)).await.unwrap();
            assert_eq!(next(&mut theirs, Some(b'p')).await, b"token\0");
            let mut welcome = message(b'R', OK);
            welcome.extend(message(b'S', b"server_version\x0016.4\0"));
            welcome.extend(message(b'Z', b"I"));
            theirs.write_all(&welcome).await.unwrap();
            assert_eq!(next(&mut theirs, Some(b'Q')).await, b"select session_user\0");
            let column = [b"session_user\0".as_slice(), &[0; 18]].concat();
            let mut answer = message(b'T', &[&[0, 1], &column[..]].concat());
            answer.extend(message(b'D', b"\0\x01\0\0\0\x03ada"));
            answer.extend(message(b'C', b"SELECT 1\0"));
            answer.extend(message(b'Z', b"I"));
            theirs.write_all(&answer).await.unwrap();
            assert!(next(&mut theirs, Some(b'X')).await.is_empty());
            assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0, "and nothing after it");
            startup
        };
        let password = SecretString::from("token");
        let (startup, found) = tokio::join!(server, hold(ours, &TARGET, &password));
        let found = found.unwrap();
        assert_eq!((found.server_version.as_str(), found.user.as_str()), ("16.4", "ada"));
        let startup = String::from_utf8_lossy(&startup).into_owned();
        for pair in ["user\0ada@example.com\0", "database\0orders\0", "application_name\0dbx-rotator\0"] {
            assert!(startup.contains(pair), "{startup:?}");
        }
    }

    async fn answered_with(bytes: Vec<u8>) -> Fault {
        let (ours, mut theirs) = duplex(4096);
        let server = async {
            next(&mut theirs, None).await;
            theirs.write_all(&bytes).await.unwrap();
            drop(theirs);
        };
        let password = SecretString::from("token");
        tokio::join!(server, hold(ours, &TARGET, &password)).1.unwrap_err()
    }

    #[tokio::test]
    async fn what_is_no_login_is_said_in_words() {
        let strange = |fault| match fault {
            Fault::Strange(what) => what,
            other => panic!("{other:?}"),
        };
        let gss = answered_with(message(b'R', GSS)).await;
        assert_eq!(strange(gss), "it asks for something other than a password");
        let http = answered_with(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await;
        assert!(matches!(http, Fault::Strange(_) | Fault::Lost(_)), "{http:?}");
        let nothing = answered_with(Vec::new()).await;
        assert!(matches!(&nothing, Fault::Lost(error) if error.kind() == std::io::ErrorKind::UnexpectedEof));
        assert!(nothing.may_pass(), "a server that hangs up may be starting");
    }

    #[tokio::test]
    async fn a_length_that_no_login_needs_is_not_believed() {
        for (kind, length) in [(b'R', 0x7fff_ffff_u32), (b'E', 5_000_000), (b'N', 1 << 20), (b'S', u32::MAX)] {
            let head = [&[kind], &length.to_be_bytes()[..]].concat();
            let Fault::Strange(what) = answered_with(head).await else { panic!("{kind}") };
            assert_eq!(what, format!("it sent a message of {length} bytes during a login"));
        }
    }

    #[tokio::test]
    async fn an_error_response_keeps_its_code_and_its_detail() {
        let body = b"SFATAL\0VFATAL\0C28000\0MExternal authorization failed\0DThe instance is paused\0\0";
        let Fault::Refused(refusal) = answered_with(message(b'E', body)).await else { panic!() };
        assert_eq!(refusal.sqlstate, "28000");
        assert_eq!(refusal.message, "External authorization failed");
        assert_eq!(refusal.detail.as_deref(), Some("The instance is paused"));
    }
}
