//! PostgreSQL's messages on a stream, as far as a login needs them (PostgreSQL, "Message Formats").
//!
//! Each length is checked before memory is reserved for it: whoever answers has perhaps not proved who it is.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::fault::Fault;

/// The longest message that is read during a login, in bytes, with its length field: longer than any error, notice or row of one.
const LONGEST: u32 = 64 * 1024;

/// The size of a message's type and length.
const HEAD: usize = 5;

/// One message of a server.
#[derive(Debug)]
pub(crate) struct Message {
    whole: BytesMut,
}

impl Message {
    /// Its type.
    pub(crate) fn tag(&self) -> u8 {
        self.whole[0]
    }

    /// What follows its length.
    pub(crate) fn body(&self) -> &[u8] {
        &self.whole[HEAD..]
    }

    /// As it was sent.
    pub(crate) fn as_sent(&self) -> &[u8] {
        &self.whole
    }

    /// The number at the start of the body, and what follows it.
    pub(super) fn number(&self) -> Result<(i32, &[u8]), Fault> {
        let (number, rest) = self.body().split_first_chunk().ok_or_else(malformed)?;
        Ok((i32::from_be_bytes(*number), rest))
    }
}

/// What was no message of the protocol.
pub(super) fn malformed() -> Fault {
    Fault::Strange("it does not keep to PostgreSQL's protocol".to_owned())
}

/// A stream of messages.
#[derive(Debug)]
pub(crate) struct Messages<S> {
    stream: S,
    read: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Messages<S> {
    pub(crate) fn over(stream: S) -> Self {
        Messages { stream, read: BytesMut::new() }
    }

    /// The next message.
    ///
    /// # Errors
    /// The stream has ended or failed, or the message is too long.
    pub(crate) async fn next(&mut self) -> Result<Message, Fault> {
        loop {
            if let Some(length) = self.length()?
                && self.read.len() >= length
            {
                return Ok(Message { whole: self.read.split_to(length) });
            }
            self.read.reserve(HEAD);
            if self.stream.read_buf(&mut self.read).await.map_err(Fault::of_io)? == 0 {
                return Err(Fault::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The length of the message that has begun, with its type.
    fn length(&self) -> Result<Option<usize>, Fault> {
        let mut head = &self.read[..];
        if head.len() < HEAD {
            return Ok(None);
        }
        head.advance(1);
        let length = head.get_u32();
        if length > LONGEST {
            return Err(Fault::Strange(format!("it sent a message of {length} bytes during a login")));
        }
        if length < 4 {
            return Err(Fault::Strange("it sent a message without a length".to_owned()));
        }
        Ok(usize::try_from(length).ok().map(|length| length + 1))
    }

    /// Sends what was written into `message`, and wipes it.
    pub(crate) async fn send(&mut self, message: &mut BytesMut) -> Result<(), Fault> {
        let sent = async {
            self.stream.write_all(message).await?;
            self.stream.flush().await
        };
        let sent = sent.await;
        // It may hold a password.
        zeroize::Zeroize::zeroize(&mut message[..]);
        message.clear();
        sent.map_err(Fault::of_io)
    }

    /// Ends the stream in order: with TLS, so that the server knows that nothing was cut off.
    pub(super) async fn close(mut self) {
        // The session is over in any case.
        let _ = self.stream.shutdown().await;
    }

    /// The stream, and what was read beyond the last message.
    pub(crate) fn into_parts(self) -> (S, BytesMut) {
        (self.stream, self.read)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn message(kind: u8, length: u32) -> Vec<u8> {
        let body = vec![b'x'; usize::try_from(length).unwrap().saturating_sub(4).min(100_000)];
        [&[kind], &length.to_be_bytes()[..], &body].concat()
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_is_refused_by_its_head_however_the_bytes_come() {
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
                let (ours, mut theirs) = duplex(piece);
                let sending = async {
                    // Who reads may have given up.
                    let _ = theirs.write_all(&bytes).await;
                    drop(theirs);
                };
                let reading = async {
                    let mut messages = Messages::over(ours);
                    let first = messages.next().await.unwrap();
                    assert_eq!((first.tag(), first.body().len(), first.as_sent().len()), (b'S', 16, 21));
                    assert!(messages.next().await.unwrap().body().is_empty());
                    let third = messages.next().await;
                    assert_eq!(third.is_ok(), is_fine, "{length} in pieces of {piece}: {third:?}");
                };
                tokio::join!(sending, reading);
            }
        }
    }
}
