//! Runs commands repeatedly and measures their time, their peak memory, and their state at rest.
//!
//! No command sees the machine's environment. Times are from before the start of the process to after its end. Peak
//! memory is the kernel's figure (`ru_maxrss`) as GNU time reports it. GNU time runs in between, because a child
//! inherits the peak of the process that starts it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::workspace::scratch_directory;

/// Tools are not taken from the caller's PATH.
const TOOL_DIRECTORIES: [&str; 3] = ["/usr/bin", "/bin", "/usr/local/bin"];

/// Rounds that do not count: after these, caches and the like are warm.
const WARM_UP_ROUNDS: usize = 3;

/// Where a tool is installed.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    TOOL_DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
}

/// A home directory for some commands, removed when dropped.
pub(crate) struct Home(tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(scratch_directory(0o700))
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside)
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write(&self, inside: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(inside);
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("make its directory");
        fs::write(&path, text).expect("write a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set its mode");
        path
    }

    /// A command in this home, without the machine's environment.
    pub(crate) fn trial(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Trial {
        let directory = self.0.path();
        let mut environment = BTreeMap::new();
        for (name, value) in [
            ("HOME", directory.to_owned()),
            ("XDG_CONFIG_HOME", directory.join(".config")),
            ("XDG_STATE_HOME", directory.join(".local/state")),
            ("TMPDIR", directory.to_owned()),
        ] {
            environment.insert(OsString::from(name), value.into_os_string());
        }
        for (name, value) in [("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("TZ", "UTC")] {
            environment.insert(OsString::from(name), OsString::from(value));
        }
        let trial = Trial {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment,
            directory: directory.to_owned(),
            output: directory.join("said"),
        };
        trial.args(arguments)
    }
}

/// A command to run repeatedly.
pub(crate) struct Trial {
    program: OsString,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    directory: PathBuf,
    output: PathBuf,
}

impl Trial {
    pub(crate) fn arg(self, argument: impl AsRef<OsStr>) -> Self {
        self.args([argument])
    }

    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.into(), value.as_ref().to_owned());
        self
    }

    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.environment.remove(OsStr::new(name));
        self
    }

    /// Writes its messages to a file of that name, for when another command runs in the same home at the same time.
    pub(crate) fn saying_into(mut self, name: &str) -> Self {
        self.output = self.directory.join(name);
        self
    }

    /// The last run's output on standard error.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    pub(crate) fn spawn(&self) -> Child {
        self.start(&[])
    }

    fn start(&self, wrapper: &[&OsStr]) -> Child {
        let mut line = wrapper.iter().copied().chain([self.program.as_os_str()]);
        let mut command = Command::new(line.next().expect("a program"));
        command
            .args(line)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&self.output).expect("a file for its last words"));
        command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display()))
    }

    fn succeed(&self, mut child: Child) {
        let status = child.wait().expect("wait for its end");
        assert!(status.success(), "{} {:?}: {status}\n{}", self.program.display(), self.arguments.first(), self.said());
    }

    /// Runs it once.
    pub(crate) fn time(&self) -> Duration {
        let began = Instant::now();
        self.succeed(self.spawn());
        began.elapsed()
    }

    /// Runs it once; its peak resident memory, in bytes. None without GNU time.
    fn peak(&self) -> Option<u64> {
        let time =
            installed("time").filter(|time| super::version_of(time).is_some_and(|version| version.contains("GNU")))?;
        let report = self.directory.join("peak");
        let format = OsStr::new("%M");
        self.succeed(self.start(&[time.as_os_str(), "-o".as_ref(), report.as_os_str(), "-f".as_ref(), format]));
        let kibibytes: u64 = fs::read_to_string(report).ok()?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// Runs it once; its system calls of these kinds, as strace shows them. None without strace, or if strace may not
    /// trace it.
    pub(crate) fn system_calls(&self, kinds: &str) -> Option<String> {
        let strace = installed("strace")?;
        let report = self.directory.join("calls");
        let kinds = format!("trace={kinds}");
        let wrapper =
            [strace.as_os_str(), "-f".as_ref(), "-o".as_ref(), report.as_os_str(), "-e".as_ref(), kinds.as_ref()];
        let status = self.start(&wrapper).wait().ok()?;
        fs::read_to_string(report).ok().filter(|calls| status.success() && calls.contains("openat("))
    }
}

/// Times the commands in turn, round after round.
pub(crate) fn in_turn(trials: &[Option<&Trial>], rounds: usize) -> Vec<Option<Samples>> {
    let mut times = vec![Vec::with_capacity(rounds); trials.len()];
    for round in 0..WARM_UP_ROUNDS + rounds {
        for (trial, times) in trials.iter().zip(&mut times) {
            let time = trial.map(Trial::time);
            times.extend(time.filter(|_| round >= WARM_UP_ROUNDS));
        }
    }
    times.into_iter().map(|times| (!times.is_empty()).then(|| Samples::new(times))).collect()
}

/// The largest peak of each command.
pub(crate) fn peaks(trials: &[Option<&Trial>], rounds: usize) -> Vec<Option<u64>> {
    trials.iter().map(|trial| (0..rounds).filter_map(|_| trial.as_ref()?.peak()).max()).collect()
}

/// The times of one command, shortest first.
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub(crate) fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// The time that this part of the runs did not exceed, such as 0.95.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a few dozen"
        )]
        let place = (part * (self.0.len() - 1) as f64).round() as usize;
        self.0[place]
    }
}

/// A process at rest, as /proc shows it.
#[derive(Clone)]
pub(crate) struct Idle {
    /// Bytes.
    pub(crate) resident: u64,
    /// Bytes, since its start.
    pub(crate) peak: u64,
    pub(crate) threads: usize,
    /// How often its threads have waited for something or made room for another process.
    pub(crate) switches: u64,
}

impl Idle {
    pub(crate) fn of(pid: u32) -> Self {
        let field = |status: &str, name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).expect("a number in /proc")
        };
        let process = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
        let threads: Vec<String> = fs::read_dir(format!("/proc/{pid}/task"))
            .expect("its threads")
            .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok())
            .collect();
        let switches =
            |status: &String| field(status, "voluntary_ctxt_switches") + field(status, "nonvoluntary_ctxt_switches");
        Self {
            resident: field(&process, "VmRSS") * 1024,
            peak: field(&process, "VmHWM") * 1024,
            threads: threads.len(),
            switches: threads.iter().map(switches).sum(),
        }
    }
}
