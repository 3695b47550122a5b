//! Whoever reads the file while it is replaced finds a password.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dbx_rotator::pgpass::{Reading, Target};

use super::{Home, OURS, token};
use crate::support::skip;

/// Reads repeatedly like clients until the writer is done; returns how often, and how often there was no password.
fn read_until(done: &AtomicBool, path: &Path) -> (usize, usize) {
    let (mut reads, mut missing) = (0, 0);
    let target = Target::new(b"db.example.com", b"5432", b"app", b"alice");
    while !done.load(Ordering::SeqCst) {
        let found = fs::read(path).ok().and_then(|bytes| Reading::new(&bytes).lookup(&target));
        reads += 1;
        missing += usize::from(!found.is_some_and(|found| found.password.starts_with(b"token-")));
    }
    (reads, missing)
}

/// The same with the real libpq, in another process, which prints how often there was no password when it is stopped.
const LIBPQ_READER: &str = r#"
import sys, threading
sys.path.insert(0, sys.argv[1])
import libpq_oracle
pq = libpq_oracle.Libpq()
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
reads = missing = 0
params = {"host": "db.example.com", "hostaddr": "127.0.0.1", "port": "5432", "dbname": "app", "user": "alice", "passfile": sys.argv[2]}
print("reading", flush=True)
while not done.is_set():
    matched, password, _ = pq.lookup(params)
    reads += 1
    missing += not (matched and password.startswith(b"token-"))
print(reads, missing)
"#;

/// Starts that and waits until it reads. Closing its input (which waiting for its output does) stops it.
fn start_libpq_reader(path: &Path) -> Option<Child> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut child = Command::new("python3")
        .args(["-c", LIBPQ_READER])
        .args([&cases, path])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut ready = [0; 8];
    child.stdout.as_mut()?.read_exact(&mut ready).ok()?;
    Some(child)
}

#[test]
fn readers_never_miss_the_password_while_it_is_replaced_over_and_over() {
    let test = "readers_never_miss_the_password_while_it_is_replaced_over_and_over";
    let filler = "other:5432:*:bob:pw\n".repeat(200);
    let home = Home::with(&format!("{filler}{OURS}token-0\n{filler}"));
    let done = AtomicBool::new(false);
    let mut libpq = start_libpq_reader(&home.path());
    if libpq.is_none() {
        skip(&format!("{test} (libpq's part)"), "no python3 or no libpq.so.5");
    }
    let (rotations, (reads, missing)) = std::thread::scope(|scope| {
        let path = home.path();
        let done = &done;
        let reader = scope.spawn(move || read_until(done, &path));
        let started = Instant::now();
        let mut rotations = 0;
        while started.elapsed() < Duration::from_secs(2) || rotations < 20 {
            rotations += 1;
            home.file().publish(&token(&format!("token-{rotations}"))).unwrap();
        }
        done.store(true, Ordering::SeqCst);
        (rotations, reader.join().unwrap())
    });
    eprintln!("{test}: {rotations} rotations; the model read {reads} times, without a password {missing}");
    assert_eq!(missing, 0);
    assert!(reads > 0);
    if let Some(child) = libpq.take() {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let numbers: Vec<usize> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
        eprintln!("{test}: libpq read {} times, without a password {}", numbers[0], numbers[1]);
        assert_eq!(numbers[1], 0);
        assert!(numbers[0] > 0);
    }
    home.holds_only(&[".pgpass"]);
}
