//! HTTP/1.1 by hand, as far as a token endpoint needs it: faults happen between bytes, where no framework lets us.

use std::io;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

/// More than any of our clients sends.
const MOST_BYTES: usize = 1 << 20;

#[derive(Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Never logged: it may contain secrets.
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    http_1_0: bool,
}

impl Request {
    /// The next request on a connection, or `None` when the client hung up between two.
    /// `buffer` keeps what was read beyond it.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let head_end = loop {
            if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !more(stream, buffer).await? {
                return Ok(None);
            }
        };
        let mut request = Self::parse(&buffer[..head_end])?;
        let length = match request.header("content-length") {
            Some(length) => length.parse().map_err(|_| malformed("Content-Length is no number"))?,
            None if request.header("transfer-encoding").is_some() => {
                return Err(malformed("chunks are not spoken here"));
            }
            None => 0,
        };
        while buffer.len() < head_end + length {
            if !more(stream, buffer).await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        request.body = buffer[head_end..head_end + length].to_vec();
        buffer.drain(..head_end + length);
        Ok(Some(request))
    }

    fn parse(head: &[u8]) -> io::Result<Self> {
        let head = std::str::from_utf8(head).map_err(|_| malformed("the head is not UTF-8"))?;
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
            return Err(malformed("no request line"));
        };
        let headers = lines
            .take_while(|line| !line.is_empty())
            .map(|line| {
                let (name, value) = line.split_once(':').ok_or_else(|| malformed("a header without a colon"))?;
                Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect::<io::Result<_>>()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: Vec::new(),
            http_1_0: version == "HTTP/1.0",
        })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A field of the query.
    pub fn query(&self, name: &str) -> Option<String> {
        form_fields(&self.query)?.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub fn keep_alive(&self) -> bool {
        match self.header("connection") {
            Some(connection) => !connection.eq_ignore_ascii_case("close"),
            None => !self.http_1_0,
        }
    }

    pub fn body(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }
}

async fn more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<bool> {
    if buffer.len() > MOST_BYTES {
        return Err(malformed("too much"));
    }
    Ok(stream.read_buf(buffer).await? > 0)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The fields of `application/x-www-form-urlencoded` text; `None` when an escape is broken.
pub fn form_fields(text: &str) -> Option<Vec<(String, String)>> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((form_decoded(name)?, form_decoded(value)?))
        })
        .collect()
}

pub fn form_decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok()
}

/// A segment of a path, where a plus is a plus.
pub fn segment_decoded(segment: &str) -> Option<String> {
    form_decoded(&segment.replace('+', "%2B"))
}

#[derive(Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(status: u16, body: &Value) -> Self {
        let json = Self { status, headers: Vec::new(), body: body.to_string().into_bytes() };
        json.with("Content-Type", "application/json; charset=utf-8")
    }

    pub fn html(status: u16, body: &str) -> Self {
        let html = Self { status, headers: Vec::new(), body: body.as_bytes().to_vec() };
        html.with("Content-Type", "text/html; charset=utf-8")
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Status line and headers, for a body announced to be of `length` bytes.
    pub fn head(&self, length: usize, keep_alive: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {length}\r\n");
        head += if keep_alive { "\r\n" } else { "Connection: close\r\n\r\n" };
        head.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}
