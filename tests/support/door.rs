//! A listener on a free port of this machine that hands each connection to a function, until it is dropped.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

pub struct Door {
    port: u16,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Hands over one connection at a time, in the order in which they come.
    pub fn open(mut receive: impl FnMut(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let port = listener.local_addr().expect("the port just bound").port();
        let closing = Arc::<AtomicBool>::default();
        let is_over = Arc::clone(&closing);
        let thread = thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                receive(connection);
            }
        });
        Door { port, closing, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // The thread waits for a connection: this one lets it see that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
