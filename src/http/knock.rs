//! Whether a proxy lets us through to a workspace: asked with a connection of its own, before the HTTP library uses the proxy. The
//! library says only that it was not let through, and not why; who was refused must not come again, who met a trouble should.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::os::blocking::addresses;
use crate::proxies::{Proxy, Scheme};

/// The first line of an answer is read up to here; no proxy says more than a sentence there.
const LONGEST_LINE: usize = 1024;

/// Why the proxy does not let through.
#[derive(Debug)]
pub(super) enum Barred {
    /// Its name has no address.
    Lookup(io::Error),
    Connect(io::Error),
    Tls(rustls::Error),
    /// It closed the connection instead of an answer.
    HungUp,
    Late,
    /// It is no HTTP proxy.
    Nonsense,
    /// It answered so.
    Status(u16),
}

/// Asks the proxy for a connection to this host, and closes it again. `tls` is for a proxy that is spoken to by TLS.
///
/// # Errors
/// Why there is none.
pub(super) async fn knock(
    proxy: &Proxy,
    (host, port): (&str, u16),
    tls: &ClientConfig,
    limit: Duration,
) -> Result<(), Barred> {
    tokio::time::timeout(limit, ask(proxy, &format!("{host}:{port}"), tls)).await.unwrap_or(Err(Barred::Late))
}

async fn ask(proxy: &Proxy, to: &str, tls: &ClientConfig) -> Result<(), Barred> {
    let stream = connect(proxy).await?;
    let status = match proxy.scheme() {
        Scheme::Https => status_over(over_tls(proxy, stream, tls).await?, proxy, to).await?,
        Scheme::Http | Scheme::Socks5 => status_over(stream, proxy, to).await?,
    };
    if (200..300).contains(&status) { Ok(()) } else { Err(Barred::Status(status)) }
}

async fn connect(proxy: &Proxy) -> Result<TcpStream, Barred> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses(proxy.bare_host(), proxy.port()).await.map_err(Barred::Lookup)? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(Barred::Connect(last))
}

async fn over_tls(
    proxy: &Proxy,
    stream: TcpStream,
    tls: &ClientConfig,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Barred> {
    let mut tls = tls.clone();
    // As the HTTP library has it for proxies.
    tls.alpn_protocols.clear();
    let name = ServerName::try_from(proxy.bare_host().to_owned()).map_err(|_| Barred::Nonsense)?;
    TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|error| {
        let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        fault.map_or(Barred::HungUp, |fault| Barred::Tls(fault.clone()))
    })
}

/// What a proxy answers to CONNECT (RFC 9110, section 9.3.6).
async fn status_over(mut stream: impl AsyncRead + AsyncWrite + Unpin, proxy: &Proxy, to: &str) -> Result<u16, Barred> {
    let agent = concat!("dbx-rotator/", env!("CARGO_PKG_VERSION"));
    let mut request = Zeroizing::new(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {agent}\r\n"));
    if let Some(user) = proxy.user() {
        let password = proxy.password().map_or("", ExposeSecret::expose_secret);
        let pair = Zeroizing::new(format!("{user}:{password}"));
        let pair = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        request = Zeroizing::new(format!("{}Proxy-Authorization: Basic {}\r\n", *request, *pair));
    }
    let request = Zeroizing::new(format!("{}\r\n", *request));
    stream.write_all(request.as_bytes()).await.map_err(|_| Barred::HungUp)?;
    stream.flush().await.map_err(|_| Barred::HungUp)?;
    let mut line = Vec::with_capacity(LONGEST_LINE);
    while !line.contains(&b'\n') {
        if line.len() >= LONGEST_LINE {
            return Err(Barred::Nonsense);
        }
        match stream.read_buf(&mut line).await {
            Ok(0) if line.is_empty() => return Err(Barred::HungUp),
            Ok(0) => return Err(Barred::Nonsense),
            Ok(_) => {}
            Err(_) => return Err(Barred::HungUp),
        }
    }
    status_of(&line).ok_or(Barred::Nonsense)
}

/// The number in `HTTP/1.1 407 Proxy Authentication Required`.
fn status_of(line: &[u8]) -> Option<u16> {
    let mut words = line.strip_prefix(b"HTTP/1.")?.split(|byte| *byte == b' ');
    let number = words.nth(1)?.trim_ascii_end().get(..3)?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_from_the_first_line() {
        for (line, status) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Some(200)),
            ("HTTP/1.0 407 Proxy Authentication Required\r\nx: y\r\n", Some(407)),
            ("HTTP/1.1 503\r\n", Some(503)),
            ("HTTP/1.1 \r\n", None),
            ("HTTP/2 200\r\n", None),
            ("SSH-2.0-OpenSSH\r\n", None),
            ("\r\n", None),
            ("HTTP/1.1 2\u{fffd}0\r\n", None),
        ] {
            assert_eq!(status_of(line.as_bytes()), status, "{line}");
        }
    }
}
