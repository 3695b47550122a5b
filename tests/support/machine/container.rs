//! The container of a machine: its start, entering it, its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const BOOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/machine/boot");
/// From the container's start to its first process there are only mounts, or the copy of a root.
const START_LIMIT: Duration = Duration::from_secs(60);
const PACE: Duration = Duration::from_millis(10);

pub(super) struct Container {
    /// Runs until the pipe is closed, which the kernel does if we die.
    supervisor: Child,
    pipe: Option<ChildStdin>,
    /// The cgroup in which systemd runs.
    cgroup: PathBuf,
    /// systemd's process id on the host; it changes with a reboot.
    leader: AtomicU32,
    console: PathBuf,
}

/// Waits by polling for something that nothing reports.
pub(super) fn wait<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            None if Instant::now() < deadline => std::thread::sleep(PACE),
            seen => return seen,
        }
    }
}

impl Container {
    pub(super) fn start(root: &Path, scratch: &Path) -> Result<Self, String> {
        static STARTED: AtomicU32 = AtomicU32::new(1);
        let name = format!("dbx-rotator-test-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let cgroup = hierarchy().ok_or("there is no cgroup2 file system")?.join(&name).join("payload");
        fs::create_dir(scratch).map_err(|error| error.to_string())?;
        let console = scratch.with_extension("console");
        let log = File::create(&console).map_err(|error| error.to_string())?;
        let mut supervisor = Command::new(BOOT)
            .arg(root)
            .arg(&name)
            .arg(scratch)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(|error| error.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{BOOT}: {error}"))?;
        let pipe = supervisor.stdin.take();
        let mut container = Self { supervisor, pipe, cgroup, leader: AtomicU32::new(0), console };
        container.await_leader(START_LIMIT, |_| true)?;
        Ok(container)
    }

    /// Waits until the first process is the wanted one.
    pub(super) fn await_leader(&mut self, limit: Duration, wanted: impl Fn(u32) -> bool) -> Result<(), String> {
        let processes = self.cgroup.join("init.scope/cgroup.procs");
        let found = wait(limit, || {
            if !self.is_running() {
                return Some(0);
            }
            let leader = fs::read_to_string(&processes).ok()?.lines().next()?.parse().ok()?;
            wanted(leader).then_some(leader)
        });
        match found {
            Some(leader @ 1..) => self.leader.store(leader, Ordering::Relaxed),
            _ => return Err(format!("the container does not start: {}", self.console())),
        }
        fs::create_dir_all(self.cgroup.join("rig")).map_err(|error| error.to_string())
    }

    pub(super) fn leader(&self) -> u32 {
        self.leader.load(Ordering::Relaxed)
    }

    /// Its root directory, as the host sees it.
    pub(super) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.leader()))
    }

    /// A process that writes its id here becomes a process of the machine.
    pub(super) fn door(&self) -> PathBuf {
        self.cgroup.join("rig/cgroup.procs")
    }

    /// The text on the console.
    pub(super) fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    pub(super) fn is_running(&mut self) -> bool {
        matches!(self.supervisor.try_wait(), Ok(None))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let ended = wait(Duration::from_secs(20), || self.supervisor.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = self.supervisor.kill();
            let _ = self.supervisor.wait();
        }
    }
}

/// Where the host has cgroup2: alone, or next to the old ones.
fn hierarchy() -> Option<PathBuf> {
    let candidates = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    candidates.into_iter().find(|directory| directory.join("cgroup.procs").exists())
}
