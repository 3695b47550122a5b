//! The few messages of PostgreSQL's protocol 3 that are used in a login and a simple query.

use std::io::{self, Read};

// The number in place of a version in a first message.
const TLS_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const MAJOR_VERSION: u32 = 3;

/// PostgreSQL's own limit for a password; no other message of a login is longer.
const LONGEST_MESSAGE: u32 = 65_535;
/// `AuthenticationCleartextPassword`.
pub const ASK_FOR_PASSWORD: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];
const TEXT_TYPE: u32 = 25;

/// Why a login is refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    sqlstate: String,
    message: String,
    detail: Option<String>,
    asks_for_nothing: bool,
}

impl Refusal {
    /// Sent once the password is there.
    pub fn new(sqlstate: &str, message: &str) -> Self {
        assert_eq!(sqlstate.len(), 5, "an SQLSTATE has five characters");
        Self { sqlstate: sqlstate.to_owned(), message: message.to_owned(), detail: None, asks_for_nothing: false }
    }

    /// As from a server that is not up yet, without asking for a password.
    pub fn waking() -> Self {
        Self { asks_for_nothing: true, ..Self::new("57P03", "the database system is starting up") }
    }

    pub fn detail(mut self, text: &str) -> Self {
        self.detail = Some(text.to_owned());
        self
    }

    pub fn asks_for_nothing(&self) -> bool {
        self.asks_for_nothing
    }

    /// `ErrorResponse`.
    pub fn message(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        let said = [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', &self.sqlstate), (b'M', &self.message)];
        for (kind, text) in said.into_iter().chain(self.detail.iter().map(|detail| (b'D', detail.as_str()))) {
            fields.push(kind);
            fields.extend_from_slice(&terminated(text));
        }
        fields.push(0);
        message(b'E', &fields)
    }
}

/// The beginning of a connection.
pub enum Opening {
    WantsTls,
    WantsGss,
    Startup,
    Other,
}

pub fn opening(client: &mut impl Read) -> io::Result<Opening> {
    let body = body(client)?;
    let code = body.first_chunk().map(|code| u32::from_be_bytes(*code));
    Ok(match code {
        Some(TLS_REQUEST) => Opening::WantsTls,
        Some(GSS_REQUEST) => Opening::WantsGss,
        Some(version) if version >> 16 == MAJOR_VERSION => Opening::Startup,
        _ => Opening::Other,
    })
}

pub fn skip_password(client: &mut impl Read) -> io::Result<()> {
    let (kind, _) = typed(client)?;
    if kind == b'p' { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Whether the next message is a simple query, and not the end.
pub fn is_query(client: &mut impl Read) -> io::Result<bool> {
    typed(client).map(|(kind, _)| kind == b'Q')
}

/// `AuthenticationOk`, the session's parameters, and `ReadyForQuery`.
pub fn welcome() -> Vec<u8> {
    let mut bytes = message(b'R', &0_u32.to_be_bytes());
    for (name, value) in [("server_version", "17.5"), ("client_encoding", "UTF8"), ("server_encoding", "UTF8")] {
        bytes.extend(message(b'S', &[terminated(name), terminated(value)].concat()));
    }
    bytes.extend(message(b'K', &[0; 8]));
    bytes.extend(ready());
    bytes
}

/// A result with one column and one row.
pub fn row(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("a short answer").to_be_bytes();
    let one_column = 1_u16.to_be_bytes();
    // No table, no column number, the type, any length, no modifier, as text.
    let column = [&[0; 6], &TEXT_TYPE.to_be_bytes()[..], &[0xff; 6], &[0; 2]].concat();
    [
        message(b'T', &[&one_column[..], &terminated("answer"), &column].concat()),
        message(b'D', &[&one_column[..], &length, text.as_bytes()].concat()),
        message(b'C', &terminated("SELECT 1")),
        ready(),
    ]
    .concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn typed(client: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut kind = [0];
    client.read_exact(&mut kind)?;
    Ok((kind[0], body(client)?))
}

/// The rest of a message after its length, which includes itself.
fn body(client: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if !(4..=LONGEST_MESSAGE + 5).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; usize::try_from(length - 4).expect("a length in memory")];
    client.read_exact(&mut body)?;
    Ok(body)
}
