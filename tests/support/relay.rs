//! A proxy that leads everybody to one place, whatever name was asked for, and notes the names: for what must happen under names
//! that are somebody else's.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// A running relay, by HTTP's CONNECT.
pub struct Relay {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Leads to this port of this machine.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let own = listener.local_addr().expect("the port just bound").port();
        let (asked, closing) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (notes, is_over) = (Arc::clone(&asked), Arc::clone(&closing));
        let thread = thread::spawn(move || {
            for visitor in listener.incoming().flatten() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let notes = Arc::clone(&notes);
                // A client that goes away in the middle is no concern of ours.
                thread::spawn(move || drop(lead(visitor, port, &notes)));
            }
        });
        Relay { port: own, asked, closing, thread: Some(thread) }
    }

    /// Its address, as `HTTPS_PROXY` takes it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The names and ports that were asked for, each once, in alphabetical order.
    pub fn asked_for(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        asked.sort();
        asked.dedup();
        asked
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lead(mut visitor: TcpStream, port: u16, notes: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        visitor.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let name = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    notes.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    let mut place = TcpStream::connect(("127.0.0.1", port))?;
    visitor.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (mut back, mut forth) = (visitor.try_clone()?, place.try_clone()?);
    let returning = thread::spawn(move || {
        let _ = io::copy(&mut forth, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let _ = io::copy(&mut visitor, &mut place);
    let _ = place.shutdown(Shutdown::Both);
    let _ = returning.join();
    Ok(())
}
