//! Limits what a server may send before it has proved who it is.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The limit for a login with its TLS, in bytes. It takes a few thousand.
pub(super) const MOST: usize = 1024 * 1024;

/// The server sent more than a login needs.
#[derive(Debug)]
pub(super) struct TooMuch(String);

impl fmt::Display for TooMuch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TooMuch {}

/// A stream from which at most [`MOST`] bytes are read until that is lifted.
#[derive(Debug)]
pub(crate) struct Bounded<S> {
    stream: S,
    /// How many bytes may still be read; none where there is no limit any more.
    left: Option<usize>,
}

impl<S> Bounded<S> {
    /// What it is over.
    pub(crate) fn inner(&self) -> &S {
        &self.stream
    }

    pub(super) fn over(stream: S) -> Self {
        Bounded { stream, left: Some(MOST) }
    }

    /// The login is over.
    pub(super) fn lift(&mut self) {
        self.left = None;
    }

    fn note(&mut self, read: usize) -> io::Result<()> {
        if let Some(left) = &mut self.left {
            let too_much = || TooMuch(format!("it sent more than {} KiB during a login", MOST / 1024));
            *left = left.checked_sub(read).ok_or_else(|| io::Error::other(too_much()))?;
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        if let Err(error) = self.note(into.filled().len() - before) {
            into.set_filled(before);
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn so_many_bytes_and_no_more_until_the_login_is_over() {
        let mut bounded = Bounded::over(tokio::io::repeat(b'x'));
        let mut all = vec![0; MOST];
        bounded.read_exact(&mut all).await.unwrap();
        let refused = bounded.read_u8().await.unwrap_err();
        assert!(refused.to_string().contains("more than 1024 KiB"), "{refused}");
        bounded.lift();
        bounded.read_exact(&mut all).await.unwrap();
    }
}
