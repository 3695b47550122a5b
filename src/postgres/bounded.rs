//! Limits what a server may send before it has proved who it is: the bytes in all, and the length of each message.
//!
//! The client library reserves memory for whatever length a message claims, and keeps all rows. So the bytes are counted as they
//! arrive from the network, and each length is checked before the client sees it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The limit for a whole session with its TLS, in bytes. A login takes a few thousand.
pub(super) const MOST: usize = 1024 * 1024;

/// The limit for one message, in bytes, including its length field: longer than any error, notice or row of a login.
const LONGEST_MESSAGE: u32 = 64 * 1024;

/// The size of a message's type and length (PostgreSQL, "Message Formats").
const HEAD: usize = 5;

/// The server sent more than a login needs.
#[derive(Debug)]
pub(super) struct TooMuch(String);

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TooMuch {}

fn too_much(what: impl Into<String>) -> io::Error {
    io::Error::other(TooMuch(what.into()))
}

/// Checks what was read before it is handed on.
pub(super) trait Check {
    /// # Errors
    /// The limit is exceeded.
    fn look(&mut self, read: &[u8]) -> io::Result<()>;
}

/// How many bytes may still be read.
pub(super) struct Bytes(usize);

impl Check for Bytes {
    fn look(&mut self, read: &[u8]) -> io::Result<()> {
        let left = self.0.checked_sub(read.len());
        self.0 = left.ok_or_else(|| too_much(format!("it sent more than {} KiB during a login", MOST / 1024)))?;
        Ok(())
    }
}

/// The position of the stream in the sequence of messages.
#[derive(Default)]
pub(super) struct Messages {
    head: Vec<u8>,
    /// How many bytes of the current message's body are still to come.
    left: usize,
}

impl Check for Messages {
    fn look(&mut self, mut read: &[u8]) -> io::Result<()> {
        while !read.is_empty() {
            let body = self.left.min(read.len());
            self.left -= body;
            read = &read[body..];
            if self.left > 0 {
                break;
            }
            let (head, rest) = read.split_at(read.len().min(HEAD - self.head.len()));
            self.head.extend_from_slice(head);
            read = rest;
            if let [_, length @ ..] = self.head.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.left = body_of(u32::from_be_bytes(length))?;
                self.head.clear();
            }
        }
        Ok(())
    }
}

/// The length of a message's body. The length that a message claims includes the length field.
fn body_of(length: u32) -> io::Result<usize> {
    if length > LONGEST_MESSAGE {
        return Err(too_much(format!("it sent a message of {length} bytes during a login")));
    }
    let body = length.checked_sub(4).ok_or_else(|| too_much("it sent a message without a length"))?;
    usize::try_from(body).map_err(io::Error::other)
}

/// A stream that passes everything it reads to a check.
pub(super) struct Bounded<S, C> {
    stream: S,
    check: C,
}

impl<S> Bounded<S, Bytes> {
    /// Ends with an error after [`MOST`] bytes.
    pub(super) fn in_all(stream: S) -> Self {
        Bounded { stream, check: Bytes(MOST) }
    }
}

impl<S> Bounded<S, Messages> {
    /// Ends with an error at a message that is too long.
    pub(super) fn by_message(stream: S) -> Self {
        Bounded { stream, check: Messages::default() }
    }
}

impl<S: AsyncRead + Unpin, C: Check + Unpin> AsyncRead for Bounded<S, C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let this = &mut *self;
        ready!(Pin::new(&mut this.stream).poll_read(context, into))?;
        if let Err(error) = this.check.look(&into.filled()[before..]) {
            into.set_filled(before);
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, C: Unpin> AsyncWrite for Bounded<S, C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, length: u32) -> Vec<u8> {
        let body = vec![b'x'; usize::try_from(length).unwrap().saturating_sub(4).min(100_000)];
        [&[kind], &length.to_be_bytes()[..], &body].concat()
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_head_however_the_bytes_come() {
        for (length, is_fine) in [
            (4, true),
            (5, true),
            (64 * 1024, true),
            (64 * 1024 + 1, false),
            (0x7fff_ffff, false),
            (u32::MAX, false),
            (3, false),
            (0, false),
        ] {
            let bytes = [message(b'S', 20), message(b'S', 4), message(b'D', length)].concat();
            for piece in [1, 2, 3, 5, 7, 1000, bytes.len()] {
                let mut messages = Messages::default();
                let looked = bytes.chunks(piece).try_for_each(|piece| messages.look(piece));
                assert_eq!(looked.is_ok(), is_fine, "{length} in pieces of {piece}: {looked:?}");
            }
        }
    }

    #[test]
    fn so_many_bytes_and_no_more() {
        let mut bytes = Bytes(MOST);
        for _ in 0..MOST / 1024 {
            bytes.look(&[0; 1024]).unwrap();
        }
        assert!(bytes.look(&[0]).unwrap_err().to_string().contains("more than 1024 KiB"));
    }
}
