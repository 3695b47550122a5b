//! The system calls of a command, listed and disturbed with strace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::workspace::scratch_directory;
use crate::support::{Outcome, Session, skip};

const STRACE: &str = "/usr/bin/strace";

/// The first thing that `main` does. What the loader and the runtime did before is not tested.
const FIRST_OF_MAIN: &str = "RLIMIT_CORE";

/// These cannot fail, or their failure is no event in a program's life that a program could answer: glibc ends it.
const CANNOT_FAIL: [&str; 18] = [
    "brk",
    "execve",
    "exit",
    "exit_group",
    "futex",
    "getpid",
    "gettid",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    // To ask for a limit of this process.
    "prlimit64",
    "rseq",
    "rt_sigprocmask",
    "rt_sigreturn",
    "set_robust_list",
    "sigaltstack",
];

/// One system call of a command: the `nth` with its name in its thread.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) nth: usize,
}

impl Call {
    pub(crate) fn may_fail(&self) -> bool {
        !CANNOT_FAIL.contains(&self.name.as_str())
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.name, self.nth)
    }
}

/// What strace does to a call.
#[derive(Clone, Copy)]
pub(crate) enum Disturbance {
    Kill,
    /// It is not executed, and returns this error.
    Error(&'static str),
}

impl fmt::Debug for Disturbance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disturbance::Kill => formatter.write_str("killed"),
            Disturbance::Error(error) => formatter.write_str(error),
        }
    }
}

/// Whether a test that needs strace can run; if not, reports that it is skipped.
pub(crate) fn can_trace(test: &str) -> bool {
    if !Path::new(STRACE).exists() {
        skip(test, "there is no strace");
        return false;
    }
    let tried = std::process::Command::new(STRACE).args(["-qq", "-o", "/dev/null", "true"]).output();
    let works = tried.is_ok_and(|tried| tried.status.success());
    if !works {
        skip(test, "strace may not trace here");
    }
    works
}

/// Runs a command with this call disturbed; `None` if it did not get to this call.
pub(crate) fn disturb<'a>(
    start: impl FnOnce(&[&str]) -> Session<'a>,
    call: &Call,
    disturbance: Disturbance,
) -> Option<Outcome> {
    let Call { name, nth } = call;
    let directory = scratch_directory(0o700);
    let list = directory.path().join("calls");
    let list = list.to_str().expect("a plain path");
    let trace = format!("trace={name}");
    let mut words = vec![STRACE, "-f", "-qq", "-o", list, "-e", &trace, "-e"];
    let inject = match disturbance {
        Disturbance::Kill => format!("inject={name}:signal=KILL:when={nth}"),
        Disturbance::Error(error) => format!("inject={name}:error={error}:when={nth}"),
    };
    words.push(&inject);
    if matches!(disturbance, Disturbance::Error(_)) {
        // Stops only at these calls, which is faster but cannot be combined with a signal.
        words.push("--seccomp-bpf");
    }
    let outcome = start(&words).run();
    let happened = match disturbance {
        Disturbance::Kill => outcome.signal == Some(Signal::KILL.as_raw()),
        Disturbance::Error(_) => fs::read_to_string(list).expect("strace's list").contains("(INJECTED)"),
    };
    happened.then_some(outcome)
}

/// Runs a command to which all of these calls are refused, from the first of the loader on.
pub(crate) fn refuse<'a>(start: impl FnOnce(&[&str]) -> Session<'a>, calls: &str, error: &str) -> Outcome {
    let inject = format!("inject={calls}:error={error}");
    start(&[STRACE, "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}"), "-e", &inject]).run()
}

/// Runs a command and lists its system calls from the first of `main` on, each once.
pub(crate) fn calls_of<'a>(start: impl FnOnce(&[&str]) -> Session<'a>) -> (Vec<Call>, Outcome) {
    let directory = scratch_directory(0o700);
    let list = directory.path().join("calls");
    let outcome = start(&[STRACE, "-f", "-qq", "-o", list.to_str().expect("a plain path")]).run();
    (listed(&fs::read_to_string(&list).expect("strace's list")), outcome)
}

/// Runs a command by strace; the paths that it opened, in order. strace is not its parent, so that it can be told to end, and does not
/// outlive a test that fails.
pub(crate) fn opened(run: impl FnOnce(&[&str]) -> Outcome) -> (Vec<String>, Outcome) {
    let directory = scratch_directory(0o700);
    let list = directory.path().join("calls");
    let words = ["-D", "-f", "-q", "-e", "trace=open,openat,openat2", "-o", list.to_str().expect("a plain path")];
    let outcome = run(&[&[STRACE], words.as_slice()].concat());
    // It writes on after the end of the command.
    let began = Instant::now();
    let text = loop {
        let text = fs::read_to_string(&list).expect("strace's list");
        let threads = |end: &str| -> BTreeSet<String> {
            let lines = text.lines().filter(|line| line.contains(end));
            lines.filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
        };
        if !text.is_empty() && threads("") == threads("+++ exited") {
            break text;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "strace does not end:\n{text}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let opened = text.lines().filter(|line| !line.contains(" = -1 "));
    (opened.filter_map(|line| Some(line.split('"').nth(1)?.to_owned())).collect(), outcome)
}

/// strace counts calls by their name in each thread, so that is how they are told apart.
fn listed(text: &str) -> Vec<Call> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let (mut found, mut in_main) = (BTreeSet::new(), false);
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
        // Signals, ends, and the second half of a slow call begin with other characters.
        if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
            continue;
        }
        let nth = counts.entry((thread, name)).and_modify(|count| *count += 1).or_insert(1);
        in_main |= arguments.contains(FIRST_OF_MAIN);
        if in_main {
            found.insert(Call { name: name.to_owned(), nth: *nth });
        }
    }
    assert!(in_main, "no {FIRST_OF_MAIN} in what strace saw:\n{text}");
    found.into_iter().collect()
}
