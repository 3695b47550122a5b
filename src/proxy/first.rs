//! What a client sends first (PostgreSQL, "Start-up" and "Message Formats"). Pure: the bytes come from whoever connects.

use crate::postgres::requests::{CANCEL_REQUEST, GSSENC_REQUEST, SSL_REQUEST};
use crate::postgres::{Parameters, Startup};

/// The longest first message, in bytes with its length: PostgreSQL's own limit (MAX_STARTUP_PACKET_LENGTH in pqcomm.h).
pub(super) const LONGEST: u32 = 10_000;

/// The shortest: a length and a number.
const SHORTEST: u32 = 8;

/// The one major version of the protocol there has been since 2003.
const MAJOR: u32 = 3;

/// The longest key to cancel with, in bytes with the number of the process: version 3.2 of the protocol allows 256.
const LONGEST_KEY: usize = 4 + 256;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// TLS, before anything else is said.
    Tls,
    /// Encryption by GSSAPI, in the same way.
    Gss,
    /// To cancel what the session with this key does: the number of the process, and the secret.
    Cancel(Vec<u8>),
    /// A session.
    Session(Startup),
}

/// Why the bytes are not a first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Length,
    Version,
    Parameters,
    Key,
    /// TLS was begun without asking for it, and there is no certificate.
    NoTls,
    /// The same without saying which protocol is meant.
    Alpn,
}

impl Malformed {
    /// For the client.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Malformed::Length => {
                "the first message has a length that none can have: what connects is no client of PostgreSQL"
            }
            Malformed::Version => "the client asks for a version of the protocol that does not exist",
            Malformed::Parameters => "the parameters of the session are not pairs of texts",
            Malformed::NoTls => {
                "the client begins TLS without asking (sslnegotiation=direct), and the proxy has no certificate: set proxy_tls, or let the \
                 client ask (sslnegotiation=postgres)"
            }
            Malformed::Alpn => {
                "the client begins TLS without asking, and does not say that it speaks PostgreSQL's protocol (ALPN postgresql)"
            }
            Malformed::Key => "the request to cancel has no usable key",
        }
    }
}

/// How many bytes follow this length.
///
/// # Errors
/// There is no first message of such a length.
pub(crate) fn rest(length: [u8; 4]) -> Result<usize, Malformed> {
    let length = u32::from_be_bytes(length);
    if !(SHORTEST..=LONGEST).contains(&length) {
        return Err(Malformed::Length);
    }
    usize::try_from(length - 4).map_err(|_| Malformed::Length)
}

/// Reads what followed the length.
///
/// # Errors
/// It is none of the four.
pub(crate) fn read(body: &[u8]) -> Result<First, Malformed> {
    let (number, rest) = body.split_first_chunk().ok_or(Malformed::Length)?;
    match u32::from_be_bytes(*number) {
        SSL_REQUEST if rest.is_empty() => Ok(First::Tls),
        GSSENC_REQUEST if rest.is_empty() => Ok(First::Gss),
        CANCEL_REQUEST if (8..=LONGEST_KEY).contains(&rest.len()) => Ok(First::Cancel(rest.to_vec())),
        CANCEL_REQUEST => Err(Malformed::Key),
        version if version >> 16 == MAJOR => {
            parameters(rest).map(|parameters| First::Session(Startup { version, parameters }))
        }
        _ => Err(Malformed::Version),
    }
}

/// Pairs of texts, each with a zero byte at its end, and one more zero byte.
fn parameters(mut bytes: &[u8]) -> Result<Parameters, Malformed> {
    let mut all = Vec::new();
    loop {
        match text(&mut bytes)? {
            b"" if bytes.is_empty() => return Ok(all),
            b"" => return Err(Malformed::Parameters),
            name => all.push((name.to_vec(), text(&mut bytes)?.to_vec())),
        }
    }
}

fn text<'b>(bytes: &mut &'b [u8]) -> Result<&'b [u8], Malformed> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(Malformed::Parameters)?;
    let (text, rest) = bytes.split_at(end);
    *bytes = &rest[1..];
    Ok(text)
}

/// The invariants of [`rest`] and [`read`], for fuzzing.
#[cfg(any(test, fuzzing))]
#[allow(clippy::panic, clippy::unwrap_used, reason = "a fuzz target reports by a panic")]
pub(crate) fn fuzz(data: &[u8]) {
    if let Some((length, _)) = data.split_first_chunk::<4>()
        && let Ok(rest) = rest(*length)
    {
        assert!((4..=9_996).contains(&rest));
    }
    match read(data) {
        Ok(First::Session(startup)) => {
            let length: usize = startup.parameters.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
            assert_eq!(length + 5, data.len(), "nothing is lost and nothing added");
            assert!(startup.parameters.iter().all(|(name, value)| !name.is_empty() && !value.contains(&0)));
        }
        Ok(First::Cancel(key)) => assert_eq!(key, &data[4..]),
        Ok(First::Tls | First::Gss) => assert_eq!(data.len(), 4),
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(version: u32, rest: &[u8]) -> Vec<u8> {
        [&version.to_be_bytes(), rest].concat()
    }

    #[test]
    fn each_first_message_is_told_apart() {
        for (bytes, first) in [
            (session(SSL_REQUEST, b""), Ok(First::Tls)),
            (session(GSSENC_REQUEST, b""), Ok(First::Gss)),
            (session(CANCEL_REQUEST, b"\0\0\0\x01abcd"), Ok(First::Cancel(b"\0\0\0\x01abcd".to_vec()))),
            (session(CANCEL_REQUEST, &[7; 260]), Ok(First::Cancel(vec![7; 260]))),
            (session(CANCEL_REQUEST, &[7; 261]), Err(Malformed::Key)),
            (session(CANCEL_REQUEST, b"\0\0\0\x01"), Err(Malformed::Key)),
            (session(SSL_REQUEST, b"x"), Err(Malformed::Version)),
            (session(2 << 16, b"\0"), Err(Malformed::Version)),
            (session(0x0003_0000, b""), Err(Malformed::Parameters)),
            (session(0x0003_0000, b"user\0"), Err(Malformed::Parameters)),
            (session(0x0003_0000, b"user\0ada"), Err(Malformed::Parameters)),
            (session(0x0003_0000, b"user\0ada\0"), Err(Malformed::Parameters)),
            (session(0x0003_0000, b"user\0ada\0\0more\0x\0\0"), Err(Malformed::Parameters)),
            (b"\0\0".to_vec(), Err(Malformed::Length)),
        ] {
            assert_eq!(read(&bytes), first, "{bytes:?}");
            fuzz(&bytes);
        }
    }

    #[test]
    fn parameters_are_bytes_and_versions_are_passed_on() {
        for version in [0x0003_0000, 0x0003_0002, 0x0003_270f] {
            let Ok(First::Session(startup)) = read(&session(version, b"user\0\xff\0options\0\0\0")) else { panic!() };
            assert_eq!((startup.version, startup.get("user")), (version, Some(&b"\xff"[..])));
            assert_eq!(startup.get("options"), Some(&b""[..]));
        }
    }

    #[test]
    fn a_length_is_believed_up_to_postgresqls_own_limit() {
        for (length, found) in [
            (8_u32, Ok(4)),
            (10_000, Ok(9_996)),
            (10_001, Err(Malformed::Length)),
            (7, Err(Malformed::Length)),
            (0, Err(Malformed::Length)),
            (u32::MAX, Err(Malformed::Length)),
            // "GET " and the start of a TLS handshake.
            (u32::from_be_bytes(*b"GET "), Err(Malformed::Length)),
            (u32::from_be_bytes([0x16, 3, 1, 2]), Err(Malformed::Length)),
        ] {
            assert_eq!(rest(length.to_be_bytes()), found, "{length}");
        }
    }
}
