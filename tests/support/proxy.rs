//! Proxies for HTTPS: a real one that asks for a password (tinyproxy), and one that gives the same answer to everybody.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::door::Door;
use super::names;
use super::ports::free_port;
use super::workspace::scratch_directory;

const PROGRAM: &str = "/usr/bin/tinyproxy";

/// How long tinyproxy may take to say something.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running tinyproxy on this machine, gone with its value.
pub struct Tinyproxy {
    child: Child,
    port: u16,
    said: Arc<(Mutex<String>, Condvar)>,
    reader: Option<JoinHandle<()>>,
    _files: tempfile::TempDir,
}

impl Tinyproxy {
    /// One that lets this user through, to whom `workspace.test` is this machine. It takes no other characters in a password than
    /// letters, digits, dots, hyphens and underscores.
    ///
    /// # Errors
    /// Why there can be none here, which is a reason to skip.
    pub fn start(user: &str, password: &str) -> Result<Self, String> {
        if !Path::new(PROGRAM).exists() {
            return Err(format!("no {PROGRAM} (Debian's tinyproxy-bin)"));
        }
        let wrapper = names::wrapper()?;
        let files = scratch_directory(0o700);
        let hosts = files.path().join("hosts");
        std::fs::write(&hosts, "127.0.0.1 workspace.test\n").unwrap();
        let port = free_port();
        let settings = files.path().join("tinyproxy.conf");
        let text = format!("Listen 127.0.0.1\nPort {port}\nTimeout 60\nLogLevel Info\nBasicAuth {user} {password}\n");
        std::fs::write(&settings, text).unwrap();
        let mut child = Command::new(PROGRAM)
            .arg("-d")
            .arg("-c")
            .arg(&settings)
            .env("LD_PRELOAD", wrapper)
            .env("NSS_WRAPPER_HOSTS", hosts)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let said: Arc<(Mutex<String>, Condvar)> = Arc::default();
        let (lines, seen) = (BufReader::new(child.stdout.take().unwrap()).lines(), Arc::clone(&said));
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                seen.0.lock().unwrap().push_str(&format!("{line}\n"));
                seen.1.notify_all();
            }
        });
        let proxy = Self { child, port, said, reader: Some(reader), _files: files };
        proxy.says("Accepting connections", 1);
        Ok(proxy)
    }

    /// The address of the proxy for who comes as this user; the password is written as it is.
    pub fn address(&self, user: &str, password: &str) -> String {
        format!("http://{user}:{password}@127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How often somebody asked for a connection to somewhere, let through or not.
    pub fn asked(&self) -> usize {
        self.said.0.lock().unwrap().matches(": CONNECT ").count()
    }

    /// Waits until its log has this so many times.
    #[track_caller]
    pub fn says(&self, text: &str, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut said = self.said.0.lock().unwrap();
        while said.matches(text).count() < times {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "tinyproxy should say {text:?}, and said\n{said}");
            said = self.said.1.wait_timeout(said, left).unwrap().0;
        }
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// A proxy that gives this answer to all, and keeps what they said.
pub struct Answering {
    door: Door,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Answering {
    pub fn with(answer: &'static [u8]) -> Self {
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let hears = Arc::clone(&heard);
        let door = Door::open(move |mut client| {
            let mut first = [0; 4096];
            let length = client.read(&mut first).unwrap_or(0);
            hears.lock().unwrap().push(String::from_utf8_lossy(&first[..length]).into_owned());
            let _ = client.write_all(answer);
            let _ = client.shutdown(Shutdown::Both);
        });
        Self { door, heard }
    }

    pub fn port(&self) -> u16 {
        self.door.port()
    }

    /// What each who came said first.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}
