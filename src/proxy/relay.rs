//! Copies bytes between a client and its server, and nothing else.
//!
//! What was read is written at once. Only what the other side does not take yet is kept, and nothing more is read before it has taken
//! that: so an idle session holds no buffer, and a slow one at most one for each direction.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// How much is read at once, in bytes: four records of TLS.
const PIECE: usize = 64 * 1024;

/// `ReadyForQuery` of a session that is in no transaction (PostgreSQL, "Message Formats").
const READY_AND_IDLE: u64 = 0x5a00_0000_0549;

/// How many bytes are looked at for it, at the end of what was read: some messages may follow it that nobody has asked for.
const TAIL: usize = 1024;

thread_local! {
    /// All sessions of a thread read into the same place.
    static PLACE: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE]);
}

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both sides have said all.
    Closed,
    /// One side was lost.
    Lost(io::Error),
    /// The proxy is stopping, and the session was between two queries.
    Drained,
}

/// Copies until both sides have closed, one is lost, or the proxy is stopping and the session is idle. Each side comes with what was
/// read from it before; `count` gets the number of bytes that came from the client or from the server. Whether one `is_lost` without a
/// word is asked whenever the proxy says again whether it is stopping.
pub(super) async fn relay<C, S>(
    (client, from_client): (&mut C, Vec<u8>),
    (server, from_server): (&mut S, Vec<u8>),
    stopping: &mut watch::Receiver<bool>,
    count: impl Fn(From, usize),
    is_lost: impl Fn(&C, &S) -> bool,
) -> End
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The session begins where its server has said that it is ready.
    let mut idle = Idle { is_ready: true, ..Idle::default() };
    idle.hear(&from_server);
    idle.is_ready &= from_client.is_empty();
    let (mut up, mut down) = (Way::with(from_client), Way::with(from_server));
    let mut drains = *stopping.borrow();
    let mut server_takes_more = true;
    loop {
        let copying = std::future::poll_fn(|context| {
            let note_client = |bytes: &[u8], idle: &mut Idle| {
                idle.is_ready = false;
                count(From::Client, bytes.len());
            };
            let note_server = |bytes: &[u8], idle: &mut Idle| {
                idle.hear(bytes);
                count(From::Server, bytes.len());
            };
            let mut to_server = Poll::Pending;
            if server_takes_more {
                match up.copy(context, client, server, |bytes| note_client(bytes, &mut idle)) {
                    Ok(poll) => to_server = poll,
                    // It has gone. What it has said before, such as why, is still passed on.
                    Err(Broken::Writing(_)) => server_takes_more = false,
                    Err(Broken::Reading(error)) => return Poll::Ready(Err(error)),
                }
            }
            let to_client = down.copy(context, server, client, |bytes| note_server(bytes, &mut idle));
            let to_client = to_client.map_err(|(Broken::Reading(error) | Broken::Writing(error))| error)?;
            match (to_server, to_client) {
                (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(End::Closed)),
                // A session ends with its server: nobody would read what the client still says.
                (Poll::Pending, Poll::Ready(())) => Poll::Ready(Ok(End::Closed)),
                _ if drains && idle.is_between_messages() && up.is_empty() && down.is_empty() => {
                    Poll::Ready(Ok(End::Drained))
                }
                // The client has gone, and the server has not noticed yet.
                (Poll::Ready(()), Poll::Pending) if drains => Poll::Ready(Ok(End::Drained)),
                _ => Poll::Pending,
            }
        });
        tokio::select! {
            biased;
            end = copying => return end.unwrap_or_else(End::Lost),
            Ok(()) = stopping.changed() => {
                drains = *stopping.borrow_and_update();
                if is_lost(client, server) {
                    return End::Lost(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }
}

/// Which side bytes came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Client,
    Server,
}

/// Whether a session is between two queries, as far as bytes tell without reading every message: the server has said that it is ready
/// outside of a transaction, since then only what it says unasked, and the client nothing. Data with the same six bytes near the end of
/// what was read may be taken for it, which matters only to a session that is ended in any case.
#[derive(Default)]
struct Idle {
    is_ready: bool,
    /// The last bytes that were looked at, the newest lowest.
    last: u64,
    /// How many of them belong to the type and the length of a message that has begun since it was ready.
    of_head: u8,
    /// How many bytes of its content are still to come.
    left: u32,
}

impl Idle {
    fn is_between_messages(&self) -> bool {
        self.is_ready && self.of_head == 0 && self.left == 0
    }

    /// What the server says.
    fn hear(&mut self, bytes: &[u8]) {
        let skipped = if self.is_ready { 0 } else { bytes.len().saturating_sub(TAIL) };
        for byte in &bytes[skipped..] {
            if self.is_ready && self.left > 0 {
                self.left -= 1;
                continue;
            }
            self.last = self.last << 8 | u64::from(*byte);
            if self.is_ready {
                self.of_head += 1;
                if self.of_head == 5 {
                    self.begin(self.last.to_be_bytes());
                }
            } else if self.last & 0xffff_ffff_ffff == READY_AND_IDLE {
                *self = Idle { is_ready: true, ..Idle::default() };
            }
        }
    }

    /// A notification, a parameter or a notice may come at any time (PostgreSQL, "Asynchronous Operations").
    fn begin(&mut self, [_, _, _, kind, length @ ..]: [u8; 8]) {
        let left = u32::from_be_bytes(length).checked_sub(4);
        self.is_ready = matches!(kind, b'A' | b'S' | b'N') && left.is_some();
        (self.of_head, self.left) = (0, left.unwrap_or_default());
    }
}

/// Which side of a direction has failed.
enum Broken {
    Reading(io::Error),
    Writing(io::Error),
}

/// One direction.
#[derive(Default)]
struct Way {
    /// What was read and is not taken yet.
    kept: Vec<u8>,
    /// How much of it has been taken.
    taken: usize,
    must_flush: bool,
    is_at_end: bool,
    is_closed: bool,
}

impl Way {
    fn with(kept: Vec<u8>) -> Self {
        Way { kept, ..Way::default() }
    }

    fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Copies as much as goes now. Ready once the end was passed on.
    fn copy(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        mut note: impl FnMut(&[u8]),
    ) -> Result<Poll<()>, Broken> {
        match self.poll(context, from, to, &mut note) {
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        note: &mut impl FnMut(&[u8]),
    ) -> Poll<Result<(), Broken>> {
        if self.is_closed {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.pass_on_kept(context, to)).map_err(Broken::Writing)?;
            if self.is_at_end {
                ready!(Pin::new(&mut *to).poll_shutdown(context)).map_err(Broken::Writing)?;
                self.is_closed = true;
                return Poll::Ready(Ok(()));
            }
            if PLACE.with_borrow_mut(|place| self.read_once(place, context, from, to, note))?.is_pending() {
                if self.must_flush {
                    self.must_flush = Pin::new(&mut *to).poll_flush(context).map_err(Broken::Writing)?.is_pending();
                }
                return Poll::Pending;
            }
        }
    }

    /// Reads once, and writes as much of that as goes. Pending if there is nothing to read.
    fn read_once(
        &mut self,
        place: &mut [u8],
        context: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        note: &mut impl FnMut(&[u8]),
    ) -> Result<Poll<()>, Broken> {
        let mut read = ReadBuf::new(place);
        match Pin::new(from).poll_read(context, &mut read) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(result) => result.map_err(Broken::Reading)?,
        }
        let mut left = read.filled();
        self.is_at_end = left.is_empty();
        note(left);
        while !left.is_empty() {
            match Pin::new(&mut *to).poll_write(context, left) {
                Poll::Ready(Ok(0)) => return Err(Broken::Writing(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => left = &left[written..],
                Poll::Ready(Err(error)) => return Err(Broken::Writing(error)),
                Poll::Pending => break,
            }
            self.must_flush = true;
        }
        self.kept = left.to_vec();
        Ok(Poll::Ready(()))
    }

    fn pass_on_kept(&mut self, context: &mut Context<'_>, to: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<()>> {
        while self.taken < self.kept.len() {
            match ready!(Pin::new(&mut *to).poll_write(context, &self.kept[self.taken..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.taken += written,
            }
            self.must_flush = true;
        }
        // Its memory is given back.
        (self.kept, self.taken) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const READY: &[u8] = b"Z\0\0\0\x05I";

    #[test]
    fn what_a_server_says_unasked_leaves_a_session_idle_wherever_it_is_cut() {
        let message = |kind: u8, body: &[u8]| super::super::message::message(kind, body);
        let news = message(b'A', b"\0\0\0\x07news\0Z\0\0\0\x05I");
        let (setting, notice) = (message(b'S', b"TimeZone\0UTC\0"), message(b'N', &[b'x'; 600]));
        let row = message(b'D', &[7; 5000]);
        let data = message(b'D', b"\0\x01\0\0\0\x01x");
        for (what, said, is_idle) in [
            ("an answer", [&row[..], READY].concat(), true),
            ("an answer and news", [&row[..], READY, &news].concat(), true),
            ("an answer, and much that is new", [READY, &news, &setting, &notice, &news].concat(), true),
            ("a transaction", [&row[..], b"Z\0\0\0\x05T", &setting].concat(), false),
            ("the next answer has begun", [READY, &news, &data].concat(), false),
            ("no message has this length", [READY, b"N\0\0\0\x03"].concat(), false),
            ("half a message", [READY, &notice[..200]].concat(), false),
            ("the head of one", [READY, &notice[..3]].concat(), false),
        ] {
            for size in [1, 2, 3, 5, 7, 64, 65_536] {
                let mut idle = Idle::default();
                for piece in said.chunks(size) {
                    idle.hear(piece);
                }
                assert_eq!(idle.is_between_messages(), is_idle, "{what}, {size} at a time");
            }
        }
    }

    struct Stage {
        client: DuplexStream,
        server: DuplexStream,
        stop: watch::Sender<bool>,
        session: tokio::task::JoinHandle<End>,
    }

    fn stage(capacity: usize, early: &[u8]) -> Stage {
        let (client, mut client_side) = duplex(capacity);
        let (server, mut server_side) = duplex(capacity);
        let (stop, mut stopping) = watch::channel(false);
        let early = early.to_vec();
        let session = tokio::spawn(async move {
            relay((&mut client_side, early), (&mut server_side, Vec::new()), &mut stopping, |_, _| {}, |_, _| false)
                .await
        });
        Stage { client, server, stop, session }
    }

    #[tokio::test]
    async fn every_byte_arrives_in_both_directions_however_small_the_pipes_are() {
        for capacity in [1, 7, 4096, 1 << 20] {
            let Stage { client, server, session, .. } = stage(capacity, b"early ");
            let data: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect();
            // The server closes when it has heard all; the client has closed its side before.
            let exchange = async |stream: DuplexStream, closes_first: bool| {
                let (mut reader, mut writer) = tokio::io::split(stream);
                let write = async {
                    writer.write_all(&data).await.unwrap();
                    if closes_first {
                        writer.shutdown().await.unwrap();
                    }
                };
                let mut got = Vec::new();
                let (_, read) = tokio::join!(write, reader.read_to_end(&mut got));
                read.unwrap();
                got
            };
            let (at_client, at_server) = tokio::join!(exchange(client, true), exchange(server, false));
            assert!(at_client == data && at_server == [&b"early "[..], &data].concat(), "{capacity}");
            assert!(matches!(session.await.unwrap(), End::Closed));
        }
    }

    #[tokio::test]
    async fn a_client_that_has_said_all_still_gets_its_answer() {
        let Stage { mut client, mut server, session, .. } = stage(100, b"");
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"question");
        server.write_all(b"answer").await.unwrap();
        drop(server);
        got.clear();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"answer");
        assert!(matches!(session.await.unwrap(), End::Closed));
    }

    #[tokio::test]
    async fn a_server_that_has_gone_ends_the_session_although_the_client_stays() {
        let Stage { mut client, server, session, .. } = stage(100, b"");
        drop(server);
        assert!(matches!(session.await.unwrap(), End::Closed));
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_client_that_goes_on_writing_still_gets_the_last_that_its_server_has_said() {
        let Stage { mut client, mut server, session, .. } = stage(100, b"");
        server.write_all(b"why").await.unwrap();
        drop(server);
        // More than fits: the session notices by this that nobody takes it.
        let _ = client.write_all(&[0; 1000]).await;
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"why");
        session.await.unwrap();
    }

    #[tokio::test]
    async fn who_does_not_read_holds_up_the_other_side_and_no_memory() {
        let Stage { client, mut server, session, .. } = stage(1000, b"");
        let piece = vec![0; 1 << 20];
        let sent = tokio::time::timeout(std::time::Duration::from_millis(50), server.write_all(&piece)).await;
        assert!(sent.is_err(), "a megabyte went into pipes of a kilobyte");
        drop(client);
        assert!(matches!(session.await.unwrap(), End::Lost(_)));
    }

    #[tokio::test]
    async fn a_session_between_two_queries_ends_when_the_proxy_stops_and_a_busy_one_after_its_query() {
        let idle = stage(100, b"");
        idle.stop.send(true).unwrap();
        assert!(matches!(idle.session.await.unwrap(), End::Drained));

        let mut busy = stage(100, b"");
        busy.client.write_all(b"query").await.unwrap();
        busy.server.read_exact(&mut [0; 5]).await.unwrap();
        busy.stop.send(true).unwrap();
        busy.server.write_all(b"row").await.unwrap();
        busy.client.read_exact(&mut [0; 3]).await.unwrap();
        assert!(!busy.session.is_finished());
        // In a transaction.
        busy.server.write_all(b"Z\0\0\0\x05T").await.unwrap();
        busy.client.read_exact(&mut [0; 6]).await.unwrap();
        assert!(!busy.session.is_finished());
        busy.server.write_all(READY).await.unwrap();
        busy.client.read_exact(&mut [0; 6]).await.unwrap();
        assert!(matches!(busy.session.await.unwrap(), End::Drained));
    }
}
