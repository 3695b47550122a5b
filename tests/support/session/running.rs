//! A command that runs: what it has printed so far, what it is told, and its end.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::Session;
use crate::support::outcome::{Outcome, assert_no_secret};

/// How long to wait for output after a command's end: a grandchild may still hold it open.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The output of a command so far.
#[derive(Default)]
struct Seen {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    streams_ended: usize,
    ended: Option<(ExitStatus, Instant)>,
}

type Watched = Arc<(Mutex<Seen>, Condvar)>;

fn lock(watched: &Watched) -> MutexGuard<'_, Seen> {
    watched.0.lock().unwrap_or_else(PoisonError::into_inner)
}

fn collect(mut stream: impl Read + Send + 'static, seen: &Watched, into: fn(&mut Seen) -> &mut Vec<u8>) {
    let seen = Arc::clone(seen);
    thread::spawn(move || {
        let mut piece = [0; 8192];
        while let Ok(length @ 1..) = stream.read(&mut piece) {
            into(&mut lock(&seen)).extend_from_slice(&piece[..length]);
            seen.1.notify_all();
        }
        lock(&seen).streams_ended += 1;
        seen.1.notify_all();
    });
}

fn await_end(mut child: Child, pid: Pid, seen: &Watched) {
    let seen = Arc::clone(seen);
    thread::spawn(move || {
        // Waits first without reaping, then reaps under the lock. So whoever holds the lock and sees no end can still
        // send a signal, and be sure that the process id is this command's.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let mut held = lock(&seen);
        held.ended = child.wait().ok().map(|status| (status, Instant::now()));
        seen.1.notify_all();
    });
}

/// A command in the background; it is killed when this is dropped.
pub struct Running<'a> {
    session: Session<'a>,
    began: Instant,
    pid: Pid,
    seen: Watched,
    keyboard: Mutex<Option<ChildStdin>>,
}

impl<'a> Running<'a> {
    /// Collects what the command prints, and notices its end.
    pub(super) fn watch(session: Session<'a>, mut child: Child, began: Instant) -> Self {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        let keyboard = Mutex::new(child.stdin.take());
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        collect(child.stdout.take().expect("its stdout"), &seen, |seen| &mut seen.stdout);
        collect(child.stderr.take().expect("its stderr"), &seen, |seen| &mut seen.stderr);
        await_end(child, pid, &seen);
        Running { session, began, pid, seen, keyboard }
    }

    /// Types into it, as far as it has a keyboard.
    pub fn types(&self, keys: &str) -> &Self {
        let mut keyboard = self.keyboard.lock().unwrap_or_else(PoisonError::into_inner);
        keyboard.as_mut().expect("a session with_keyboard").write_all(keys.as_bytes()).expect("type");
        self
    }

    /// Waits until standard output after its first `from` bytes is as wanted; returns how long it is then.
    #[track_caller]
    pub fn shows(&self, from: usize, what: &str, limit: Duration, is_shown: impl Fn(&str) -> bool) -> usize {
        let shown = |seen: &Seen| is_shown(&String::from_utf8_lossy(&seen.stdout[from.min(seen.stdout.len())..]));
        if !self.wait(limit, |seen| shown(seen) || (seen.ended.is_some() && seen.streams_ended == 2))
            || !shown(&lock(&self.seen))
        {
            let outcome = self.outcome();
            panic!("it did not show {what} within {limit:?}\n{outcome}");
        }
        lock(&self.seen).stdout.len()
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub fn signal(&self, signal: Signal) {
        let seen = lock(&self.seen);
        if seen.ended.is_none() {
            let _ = kill_process(self.pid, signal);
        }
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&lock(&self.seen).stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&lock(&self.seen).stderr).into_owned()
    }

    pub fn has_ended(&self) -> bool {
        lock(&self.seen).ended.is_some()
    }

    /// Waits until this text has appeared on standard error.
    #[track_caller]
    pub fn says(&self, text: &str, limit: Duration) -> &Self {
        self.says_times(1, text, limit)
    }

    /// Waits until this text has appeared on standard error this many times.
    #[track_caller]
    pub fn says_times(&self, times: usize, text: &str, limit: Duration) -> &Self {
        self.waits_for(|seen| &seen.stderr, times, text, limit)
    }

    /// Waits until this text has appeared on standard output.
    #[track_caller]
    pub fn prints(&self, text: &str, limit: Duration) -> &Self {
        self.waits_for(|seen| &seen.stdout, 1, text, limit)
    }

    #[track_caller]
    fn waits_for(&self, stream: impl Fn(&Seen) -> &Vec<u8>, times: usize, text: &str, limit: Duration) -> &Self {
        let said = |seen: &Seen| String::from_utf8_lossy(stream(seen)).matches(text).count() >= times;
        if !self.wait(limit, |seen| said(seen) || (seen.ended.is_some() && seen.streams_ended == 2))
            || !said(&lock(&self.seen))
        {
            let outcome = self.outcome();
            panic!("it did not say {text:?} ({times} times) within {limit:?}\n{outcome}");
        }
        self
    }

    /// Ends it as a service manager does.
    #[track_caller]
    pub fn terminate(self) -> Outcome {
        self.signal(Signal::TERM);
        self.ends()
    }

    /// Waits for its end, but no longer than its session's patience.
    #[track_caller]
    pub fn ends(self) -> Outcome {
        let limit = self.session.patience;
        if !self.wait(limit, |seen| seen.ended.is_some()) {
            self.signal(Signal::KILL);
            self.wait(LAST_WORDS, |seen| seen.ended.is_some());
            panic!("it did not end within {limit:?}\n{}", self.outcome());
        }
        self.wait(LAST_WORDS, |seen| seen.streams_ended == 2);
        let outcome = self.outcome();
        let secrets = self.session.home.all_secrets();
        assert_no_secret("standard error", &outcome.stderr, &secrets);
        if !self.session.may_print_secrets {
            assert_no_secret("standard output", &outcome.stdout, &secrets);
        }
        if self.session.recorded {
            let mut history = self.session.home.history.lock().unwrap_or_else(PoisonError::into_inner);
            *history += &outcome.transcript();
        }
        outcome
    }

    fn wait(&self, limit: Duration, mut until: impl FnMut(&Seen) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut seen = lock(&self.seen);
        while !until(&seen) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            seen = self.seen.1.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn outcome(&self) -> Outcome {
        let seen = lock(&self.seen);
        let status = seen.ended.map(|(status, _)| status);
        Outcome {
            code: status.and_then(|status| status.code()),
            signal: status.and_then(|status| status.signal()),
            stdout: String::from_utf8_lossy(&seen.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&seen.stderr).into_owned(),
            elapsed: seen.ended.map_or_else(|| self.began.elapsed(), |(_, at)| at - self.began),
            line: self.session.line(),
            history: Arc::clone(&self.session.home.history),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
