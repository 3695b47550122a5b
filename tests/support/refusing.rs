//! A server that gives each client the reply that its test wants, in PostgreSQL's protocol over TLS.
//!
//! A real PostgreSQL cannot say what Lakebase says about tokens, paused instances and networks, and cannot pretend to
//! be waking up. This one checks nothing: it asks for the password, discards it, and gives the planned reply.
//!
//! Invariants: passwords are counted but never kept; every connection ends with the server.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::postgres::{USUAL_PORT, address_of_its_own};
use super::workspace::Workspace;

#[path = "refusing/wire.rs"]
mod wire;

use wire::Opening;
pub use wire::{Refusal, message};

/// A client that is silent for longer than a test waits is dead.
const SILENCE: Duration = Duration::from_secs(60);

/// The reply to an attempt to log in.
#[derive(Clone, Debug)]
pub enum Reply {
    Refuse(Refusal),
    /// The connection ends without a message.
    HangUp,
    /// The first bytes once, then the others repeatedly, as long as the client listens.
    Endless(Vec<u8>, Vec<u8>),
    /// The login succeeds, and the first query is answered like that.
    EndlessAnswer(Vec<u8>, Vec<u8>),
    /// The login succeeds, and every query is answered with one row that contains this.
    Welcome(String),
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// A running server.
pub struct Refusing {
    address: Ipv4Addr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    tls: Arc<ServerConfig>,
    state: Mutex<State>,
    happened: Condvar,
}

struct State {
    first: VecDeque<Reply>,
    then: Reply,
    names: Vec<Option<String>>,
    attempts: usize,
    passwords: usize,
    /// Held weakly, since a connection ends by being dropped.
    connections: Vec<Weak<TcpStream>>,
    closing: bool,
}

impl Refusing {
    /// At port 5432 of its own address, with a certificate of the workspace's authority for these host names.
    pub fn start(workspace: &Workspace, names: &[&str], reply: impl Into<Reply>) -> Result<Self, String> {
        let address = address_of_its_own()?;
        let listener = TcpListener::bind((address, USUAL_PORT)).map_err(|error| format!("{address}: {error}"))?;
        let in_digits = address.to_string();
        let names: Vec<&str> = names.iter().copied().chain([in_digits.as_str()]).collect();
        let state = State {
            first: VecDeque::new(),
            then: reply.into(),
            names: Vec::new(),
            attempts: 0,
            passwords: 0,
            connections: Vec::new(),
            closing: false,
        };
        let shared = Arc::new(Shared {
            tls: workspace.certify(&names).server_config(b"postgresql"),
            state: Mutex::new(state),
            happened: Condvar::new(),
        });
        let thread = thread::Builder::new()
            .name("refusing PostgreSQL".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || listen(&listener, &shared)
            })
            .expect("a thread");
        Ok(Self { address, shared, thread: Some(thread) })
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub fn port(&self) -> u16 {
        USUAL_PORT
    }

    /// The next `n` attempts get this reply, then the usual one again; another call adds to these.
    pub fn first(&self, n: usize, reply: impl Into<Reply>) -> &Self {
        let reply = reply.into();
        self.shared.state().first.extend(std::iter::repeat_n(reply, n));
        self
    }

    /// All other attempts get this reply from now on.
    pub fn then(&self, reply: impl Into<Reply>) -> &Self {
        self.shared.state().then = reply.into();
        self
    }

    /// Attempts to log in over TLS, whatever their result.
    pub fn attempts(&self) -> usize {
        self.shared.state().attempts
    }

    /// Waits until there were this many since the start; false if the time runs out first.
    pub fn wait_for_attempts(&self, n: usize, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.state();
        while state.attempts < n {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.happened.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The names that TLS clients asked for, in order, including clients that then rejected the certificate.
    pub fn names_asked_for(&self) -> Vec<Option<String>> {
        self.shared.state().names.clone()
    }

    pub fn passwords_received(&self) -> usize {
        self.shared.state().passwords
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state();
            state.closing = true;
            for connection in state.connections.iter().filter_map(Weak::upgrade) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        }
        let _ = TcpStream::connect((self.address, USUAL_PORT));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming().flatten() {
        let mut state = shared.state();
        if state.closing {
            return;
        }
        let client = Arc::new(client);
        state.connections.push(Arc::downgrade(&client));
        drop(state);
        let shared = Arc::clone(shared);
        // It does not matter if a client goes away in the middle.
        thread::spawn(move || drop(shared.receive(&client)));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles the beginning, up to TLS.
    fn receive(&self, mut client: &TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(SILENCE))?;
        loop {
            match wire::opening(&mut client)? {
                Opening::WantsGss => client.write_all(b"N")?,
                Opening::WantsTls => break,
                Opening::Startup => {
                    client.write_all(&Refusal::new("28000", "connection requires encryption").message())?;
                    return farewell(client);
                }
                Opening::Other => return Ok(()),
            }
        }
        client.write_all(b"S")?;
        let mut tls = ServerConnection::new(Arc::clone(&self.tls)).map_err(io::Error::other)?;
        let shaken = tls.complete_io(&mut client);
        self.state().names.push(tls.server_name().map(str::to_owned));
        shaken?;
        self.converse(StreamOwned::new(tls, client))
    }

    fn converse(&self, mut client: StreamOwned<ServerConnection, &TcpStream>) -> io::Result<()> {
        if !matches!(wire::opening(&mut client)?, Opening::Startup) {
            return Ok(());
        }
        match self.reply() {
            Reply::HangUp => return Ok(()),
            Reply::Endless(first, again) => {
                self.take_password(&mut client)?;
                talk(&mut client, &first, &again)?;
            }
            Reply::EndlessAnswer(first, again) => {
                self.take_password(&mut client)?;
                client.write_all(&wire::welcome())?;
                wire::is_query(&mut client)?;
                talk(&mut client, &first, &again)?;
            }
            Reply::Refuse(refusal) => {
                if !refusal.asks_for_nothing() {
                    self.take_password(&mut client)?;
                }
                client.write_all(&refusal.message())?;
            }
            Reply::Welcome(answer) => {
                self.take_password(&mut client)?;
                client.write_all(&wire::welcome())?;
                while wire::is_query(&mut client)? {
                    client.write_all(&wire::row(&answer))?;
                }
            }
        }
        client.conn.send_close_notify();
        client.flush()?;
        farewell(client.sock)
    }

    fn reply(&self) -> Reply {
        let mut state = self.state();
        state.attempts += 1;
        self.happened.notify_all();
        state.first.pop_front().unwrap_or_else(|| state.then.clone())
    }

    fn take_password(&self, client: &mut (impl Read + Write)) -> io::Result<()> {
        client.write_all(&wire::ASK_FOR_PASSWORD)?;
        wire::skip_password(client)?;
        self.state().passwords += 1;
        Ok(())
    }
}

/// Sends until the client is gone.
fn talk(client: &mut impl Write, first: &[u8], again: &[u8]) -> io::Result<()> {
    client.write_all(first)?;
    loop {
        client.write_all(again)?;
    }
}

/// Closing at once could reset the connection, so that the client would lose what it has not read yet.
fn farewell(mut client: &TcpStream) -> io::Result<()> {
    client.shutdown(Shutdown::Write)?;
    io::copy(&mut client, &mut io::sink()).map(drop)
}
