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
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::door::Door;

/// A running relay, by HTTP's CONNECT.
pub struct Relay {
    door: Door,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Relay {
    /// Leads to this port of this machine.
    pub fn to(port: u16) -> Self {
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let notes = Arc::clone(&asked);
        let door = Door::open(move |visitor| {
            let notes = Arc::clone(&notes);
            // A client that goes away in the middle is no concern of ours.
            thread::spawn(move || drop(lead(visitor, port, &notes)));
        });
        Relay { door, asked }
    }

    /// Its address, as `HTTPS_PROXY` takes it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.door.port())
    }

    /// The names and ports that were asked for, each once, in alphabetical order.
    pub fn asked_for(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        asked.sort();
        asked.dedup();
        asked
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
