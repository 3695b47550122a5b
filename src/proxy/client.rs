//! The stream to a client, and what is read from it before there is a session.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use rustls::{AlertDescription, Error};

use super::first::{First, Malformed, read, rest};
use super::message::{Rejection, message};
use super::scram::{self, Verifier};
use crate::os::connections::is_lost;

/// How many requests for encryption a client may make before it says what it wants.
const MOST_REQUESTS: usize = 3;

/// PostgreSQL's protocol in TLS (IANA, "TLS ALPN Protocol IDs").
pub(super) const ALPN: &[u8] = b"postgresql";

/// The type of the record that a handshake begins with (RFC 8446, section 5.1). A first message of PostgreSQL's begins with the length
/// of at most 10,000 bytes, and so with zero.
const HANDSHAKE: u8 = 22;

/// The longest content of a record (RFC 8446, section 5.1).
const LONGEST_RECORD: u16 = 1 << 14;

/// The alert that says so, in a record of its own (RFC 8446, section 6): the client would take nothing else.
const HANDSHAKE_FAILURE: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// How long a client may take to take a last word.
const TELLING_LIMIT: Duration = Duration::from_secs(5);

/// How long it may take then to notice that this was the end.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

/// The stream to a client.
#[derive(Debug)]
pub(super) enum Client {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why it is not known what a client wants.
#[derive(Debug)]
pub(super) enum Unheard {
    /// It went away.
    Gone,
    /// It was told so by an alert of TLS, or has told why by one.
    NoTls(&'static str),
    /// It is told.
    Malformed(Client, Malformed),
}

impl From<io::Error> for Unheard {
    fn from(_: io::Error) -> Self {
        Unheard::Gone
    }
}

impl Client {
    /// Reads what the client wants, with encryption before if it asks for that, or begins it, and there is a certificate.
    pub(super) async fn first(self, tls: Option<&TlsAcceptor>) -> Result<(Self, First), Unheard> {
        match self {
            Client::Tcp(stream) if begins_with_tls(&stream).await? => {
                Self::directly(stream, tls).await?.heard(tls).await
            }
            other => other.heard(tls).await,
        }
    }

    /// TLS with a client that has begun it without asking (libpq 17: `sslnegotiation=direct`).
    async fn directly(mut stream: TcpStream, tls: Option<&TlsAcceptor>) -> Result<Self, Unheard> {
        let Some(acceptor) = tls else {
            // Read first: what is left unread at the end would make that a hard one, and take the answer with it.
            let mut header = [0; 5];
            stream.read_exact(&mut header).await?;
            let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]).min(LONGEST_RECORD))];
            stream.read_exact(&mut hello).await?;
            stream.write_all(&HANDSHAKE_FAILURE).await?;
            return Err(Unheard::Malformed(Client::Tcp(stream), Malformed::NoTls));
        };
        let stream = handshake(acceptor, stream).await?;
        // As PostgreSQL: nobody else's protocol may be sent here by a confused client (RFC 7301, ALPACA).
        let speaks_it = stream.get_ref().1.alpn_protocol() == Some(ALPN);
        let client = Client::Tls(Box::new(stream));
        if speaks_it { Ok(client) } else { Err(Unheard::Malformed(client, Malformed::Alpn)) }
    }

    async fn heard(mut self, tls: Option<&TlsAcceptor>) -> Result<(Self, First), Unheard> {
        for _ in 0..=MOST_REQUESTS {
            let first = match self.read_first().await? {
                Ok(first) => first,
                Err(malformed) => return Err(Unheard::Malformed(self, malformed)),
            };
            self = match (first, self, tls) {
                // Only the request was read, so that nothing that came in plain text with it counts as encrypted (CVE-2021-23214).
                (First::Tls, Client::Tcp(mut stream), Some(acceptor)) => {
                    stream.write_all(b"S").await?;
                    Client::Tls(Box::new(handshake(acceptor, stream).await?))
                }
                (First::Tls | First::Gss, mut client, _) => {
                    client.write_all(b"N").await?;
                    client
                }
                (first, client, _) => return Ok((client, first)),
            };
        }
        Err(Unheard::Malformed(self, Malformed::Length))
    }

    async fn read_first(&mut self) -> io::Result<Result<First, Malformed>> {
        let mut length = [0; 4];
        self.read_exact(&mut length).await?;
        let mut body = match rest(length) {
            Ok(rest) => vec![0; rest],
            Err(malformed) => return Ok(Err(malformed)),
        };
        self.read_exact(&mut body).await?;
        Ok(read(&body))
    }

    /// Asks for the proxy's own password. Returns whether the client knows it.
    ///
    /// # Errors
    /// The client went away.
    pub(super) async fn knows_password(&mut self, verifier: &Verifier, nonce: &str) -> io::Result<bool> {
        let request = |kind: i32, data: &[u8]| message(b'R', &[&kind.to_be_bytes(), data].concat());
        self.write_all(&request(10, b"SCRAM-SHA-256\0\0")).await?;
        let initial = self.password_message().await?;
        let Some(exchange) = initial_response(&initial).and_then(|first| verifier.begin(first, nonce)) else {
            return Ok(false);
        };
        self.write_all(&request(11, exchange.server_first.as_bytes())).await?;
        let last = self.password_message().await?;
        let Some(answer) = std::str::from_utf8(&last).ok().and_then(|last| verifier.end(&exchange, last)) else {
            return Ok(false);
        };
        self.write_all(&request(12, answer.as_bytes())).await?;
        Ok(true)
    }

    async fn password_message(&mut self) -> io::Result<Vec<u8>> {
        let refuse = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
        if self.read_u8().await? != b'p' {
            return Err(refuse("it is no answer to a request for a password"));
        }
        let length = usize::try_from(self.read_u32().await?).unwrap_or(usize::MAX);
        let length = length.checked_sub(4).filter(|length| *length <= scram::LONGEST);
        let mut body = vec![0; length.ok_or_else(|| refuse("no such answer has this length"))?];
        self.read_exact(&mut body).await?;
        Ok(body)
    }

    /// Tells why there is no session, and closes.
    pub(super) async fn reject(mut self, rejection: &Rejection) {
        self.tell(rejection).await;
        self.see_off().await;
    }

    /// Tells why there is no session any more.
    pub(super) async fn tell(&mut self, rejection: &Rejection) {
        // It may have gone, or read nothing.
        let _ = timeout(TELLING_LIMIT, self.write_all(&rejection.as_message())).await;
    }

    /// Waits until the client has gone away. What it sends meanwhile is put into `early`, up to a limit.
    pub(super) async fn gone(&mut self, early: &mut Vec<u8>) {
        const MOST: usize = 16 * 1024;
        while early.len() < MOST {
            match self.read_buf(early).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        std::future::pending().await
    }

    /// Lets a client that is still writing read the last that it was told: closed at once, it would lose that (RFC 2525, section 2.17).
    pub(super) async fn see_off(&mut self) {
        let mut place = [0; 4096];
        let gone = async {
            let _ = self.shutdown().await;
            while matches!(self.read(&mut place).await, Ok(1..)) {}
        };
        let _ = timeout(FAREWELL_LIMIT, gone).await;
    }

    /// Whether it is gone without a word. A Unix socket always has the last one.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Client::Unix(_) => false,
            Client::Tcp(stream) => is_lost(stream),
            Client::Tls(stream) => is_lost(stream.get_ref().0),
        }
    }

    fn stream(&mut self) -> Pin<&mut dyn Stream> {
        match self {
            Client::Unix(stream) => Pin::new(stream),
            Client::Tcp(stream) => Pin::new(stream),
            Client::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, into)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

async fn handshake(acceptor: &TlsAcceptor, stream: TcpStream) -> Result<TlsStream<TcpStream>, Unheard> {
    acceptor.accept(stream).await.map_err(|error| {
        let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        fault.map_or(Unheard::Gone, |fault| Unheard::NoTls(why_not(fault)))
    })
}

/// Why there is no TLS with a client.
fn why_not(fault: &Error) -> &'static str {
    use AlertDescription::{BadCertificate, CertificateExpired, CertificateUnknown, UnknownCA, UnsupportedCertificate};
    match fault {
        Error::AlertReceived(
            BadCertificate | CertificateExpired | CertificateUnknown | UnknownCA | UnsupportedCertificate,
        ) => "it does not trust the certificate in proxy_tls",
        Error::NoApplicationProtocol => "it does not say that it speaks PostgreSQL's protocol (ALPN postgresql)",
        Error::PeerIncompatible(_) => {
            "it knows no version of TLS, or no way to encrypt, that is safe enough for the proxy"
        }
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => "what it sends is not TLS",
        _ => "it and the proxy cannot agree on how to encrypt",
    }
}

/// Whether the client begins TLS without asking for it.
async fn begins_with_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    Ok(stream.peek(&mut first).await? == 1 && first[0] == HANDSHAKE)
}

/// The first message of the exchange, in a `SASLInitialResponse` that chooses the one mechanism there is.
fn initial_response(body: &[u8]) -> Option<&str> {
    let rest = body.strip_prefix(b"SCRAM-SHA-256\0")?;
    let (length, data) = rest.split_first_chunk()?;
    let is_whole = usize::try_from(i32::from_be_bytes(*length)).ok()? == data.len();
    std::str::from_utf8(data).ok().filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_is_seen_off_reads_to_the_end_whatever_it_was_still_writing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        peer.write_all(b"never read").await.unwrap();
        stream.readable().await.unwrap();
        // More than is on the way at once.
        let mut said = 0;
        while let Ok(written) = stream.try_write(&[7; 64 * 1024]) {
            said += written;
        }
        let seeing_off = tokio::spawn(async move {
            let mut client = Client::Tcp(stream);
            client.see_off().await;
        });
        let mut got = Vec::new();
        peer.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), said);
        drop(peer);
        seeing_off.await.unwrap();
    }
}
