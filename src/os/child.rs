//! Runs other programs: found without a shell, without the variables that are only for us, and ended with all of their
//! children when their time is up.
//!
//! Invariants: only its own time limit ends a child, never a caller that stops waiting; and it gets SIGTERM before SIGKILL. It
//! may be in the middle of something that must not be half done, such as the exchange of a refresh token that can be used once.

use std::ffi::OsString;
use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::dirs::Environment;
use super::identity::{has_left_root, is_root, owner_of};
use super::wiped;

/// How much of the end of each of a child's outputs is kept: more than any token, or the reason of any failure.
const KEPT_OUTPUT: usize = 64 * 1024;

/// How long a child's output is awaited after its end: a process in the background may keep the pipes open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long a child has between SIGTERM and SIGKILL to finish what it is doing.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// How often we check whether a group that got SIGTERM is gone: nothing reports that.
const LOOK: Duration = Duration::from_millis(50);

/// How long this program waits for its children before it ends. The vendor's CLI gets 15 s and the grace period.
pub(crate) const LAST_WAIT: Duration = Duration::from_secs(20);

/// Prefixes of variables that hold secrets or identities, or what the service manager meant for this process only.
const OURS_ALONE: [&str; 10] = [
    "DATABRICKS_",
    "ARM_",
    "GOOGLE_CREDENTIALS",
    "ACTIONS_ID_TOKEN_",
    "SYSTEM_ACCESSTOKEN",
    "PGPASSWORD",
    "NOTIFY_SOCKET",
    "WATCHDOG_",
    "LISTEN_",
    "CREDENTIALS_DIRECTORY",
];

/// Prefixes of variables that a child gets where this process was root and is not any more: all others are root's.
const NOBODYS: [&str; 7] = ["PATH", "LANG", "LC_", "TERM", "TZ", "XDG_RUNTIME_DIR", "SSL_CERT_"];

/// For close_range(2), of Linux 5.11 and later.
#[cfg(target_os = "linux")]
const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;

/// The environment for a child: the variables that are not only for us, and those named in `kept`.
pub(crate) fn inherited(environment: &Environment, kept: &[&str]) -> Vec<(OsString, OsString)> {
    let was_root = has_left_root();
    let handed_on = environment.iter().filter(|(name, _)| {
        let name = name.to_string_lossy();
        let begins_so = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        let is_own = !begins_so(&OURS_ALONE) && (!was_root || begins_so(&NOBODYS));
        kept.contains(&name.as_ref()) || is_own
    });
    // Many things are found below the home directory, but a service manager may not have set HOME.
    let home = environment.home().map(|home| ("HOME".into(), home.into()));
    home.into_iter().chain(handed_on.map(|(name, value)| (name.clone(), value.clone()))).collect()
}

/// Where a program of this name may be, best first: on PATH, and in the usual places for programs.
pub(crate) fn candidates(environment: &Environment, name: &Path) -> Vec<PathBuf> {
    let path: OsString = environment.get_os("PATH").cloned().unwrap_or_default();
    // systemd and launchd do not give their children the shell's PATH.
    let usual = ["/usr/local/bin", "/opt/homebrew/bin", "/home/linuxbrew/.linuxbrew/bin", "/usr/bin"];
    let own = environment.home().into_iter().flat_map(|home| [home.join(".local/bin"), home.join("bin")]);
    std::env::split_paths(&path)
        .chain(own)
        .chain(usual.map(PathBuf::from))
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        // By name, root runs only programs that nobody else can replace.
        .filter(|program| !is_root() || owner_of(program).is_none())
        .collect()
}

/// Whether this is a file that this process may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// How a child ended, and the end of what it printed: at most 64 KiB each. It may hold a token.
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Zeroizing<Vec<u8>>,
    pub(crate) stderr: Zeroizing<Vec<u8>>,
}

/// Keeps a program apart from signals of the terminal. Where this process was root, the terminal and what root's shell has open are not
/// for the user that it became: then the program gets a session of its own, and no open file but its own.
#[expect(unsafe_code, reason = "the standard library begins a process group, and no session")]
pub(crate) fn detach(command: &mut std::process::Command) {
    if !has_left_root() {
        command.process_group(0);
        return;
    }
    let detach = || {
        // A filter of system calls may know groups alone.
        if rustix::process::setsid().is_err() {
            rustix::process::setpgid(None, None)?;
        }
        // Older kernels do not know it, and then what was left open stays so.
        #[cfg(target_os = "linux")]
        // SAFETY: it changes flags of descriptors of this process and touches no memory.
        let _ = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
        Ok(())
    };
    // SAFETY: between fork and exec these are plain system calls, which allocate nothing and take no lock.
    unsafe { command.pre_exec(detach) };
}

/// Runs a program without a terminal, in its own process group, until it ends or `over` is ready. In the latter case the whole
/// group gets SIGTERM and, after [`GRACE`], SIGKILL, and the result is `None`. Processes that it leaves in the background when it
/// ends are left alone.
///
/// Dropping this future only stops the waiting: the child goes on in a task of the same runtime, and `over` still ends it. Once
/// the runtime itself is dropped, nothing ends the child.
///
/// # Errors
/// The program cannot be started or waited for.
pub(crate) async fn run(
    command: Command,
    over: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<Option<Ran>> {
    run_until(command, Box::pin(over)).await
}

/// What [`run`] does, once for limits of all kinds.
async fn run_until(
    mut command: Command,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
) -> std::io::Result<Option<Ran>> {
    command.current_dir("/").kill_on_drop(false);
    detach(command.as_std_mut());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn()?;
    let counted = Counted::new();
    let task = tokio::spawn(async move {
        let _counted = counted;
        supervise(child, over).await
    });
    task.await.unwrap_or_else(|fault| Err(std::io::Error::other(fault)))
}

/// Work in this process that must come to its end although nobody waits for it any more, such as the exchange of a refresh token that
/// can be used once. It counts as a child for [`finish_all`].
pub(crate) fn keep_going<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    let counted = Counted::new();
    tokio::spawn(async move {
        let _counted = counted;
        work.await
    })
}

/// Waits up to `limit` until all children that [`run`] has started in this process have ended; returns whether they have.
///
/// For the end of the program. A child that still runs goes on, but printing to a closed pipe may end it.
pub(crate) async fn finish_all(limit: Duration) -> bool {
    let mut running = RUNNING.subscribe();
    let none_left = running.wait_for(|count| *count == 0);
    // An error would mean that the sender was dropped, which never happens.
    timeout(limit, none_left).await.is_ok_and(|found| found.is_ok())
}

/// How many children [`run`] has started that have not ended.
static RUNNING: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

/// Counts as one of [`RUNNING`] until it is dropped.
struct Counted;

impl Counted {
    fn new() -> Self {
        RUNNING.send_modify(|count| *count += 1);
        Counted
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        RUNNING.send_modify(|count| *count -= 1);
    }
}

/// Waits for a child's end, and ends its group when its time is up.
async fn supervise(mut child: Child, over: impl Future<Output = ()>) -> std::io::Result<Option<Ran>> {
    let group = Group::of(&child);
    {
        let finish = finish(&mut child);
        tokio::pin!(finish);
        tokio::select! {
            ran = &mut finish => return ran.map(Some),
            () = over => {}
        }
        group.send(Signal::TERM);
        // A wrapper may end at once while the program that it started is still busy.
        let gone = async { tokio::join!(&mut finish, group.is_gone()) };
        if timeout(GRACE, gone).await.is_ok() {
            return Ok(None);
        }
        group.send(Signal::KILL);
    }
    // A process that hangs in the kernel is not waited for.
    let _ = timeout(LAST_WORDS, child.wait()).await;
    Ok(None)
}

/// Waits for a child's end and its output, but not for pipes that a background process keeps open.
async fn finish(child: &mut Child) -> std::io::Result<Ran> {
    let (mut stdout, mut stderr) = (Zeroizing::new(Vec::new()), Zeroizing::new(Vec::new()));
    let status = {
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let printing = async { tokio::join!(last_of(out, &mut stdout), last_of(err, &mut stderr)) };
        tokio::pin!(printing);
        tokio::select! {
            _ = &mut printing => child.wait().await?,
            status = child.wait() => {
                let _ = timeout(LAST_WORDS, &mut printing).await;
                status?
            }
        }
    };
    Ok(Ran { status, stdout, stderr })
}

/// The process group that a child leads. The number stays taken as long as the group has a member.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn send(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // The group may just have ended: then nobody needs the signal.
            let _ = kill_process_group(leader, signal);
        }
    }

    /// Waits until the group has no member left.
    async fn is_gone(&self) {
        while self.0.is_some_and(|leader| test_kill_process_group(leader) != Err(Errno::SRCH)) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Reads to the end and keeps the last part, so that no child blocks on a full pipe or dies of a closed one.
async fn last_of(pipe: Option<impl AsyncRead + Unpin>, text: &mut Zeroizing<Vec<u8>>) {
    let Some(mut pipe) = pipe else { return };
    // An error counts as the end: what was read before it is used.
    let mut piece = Zeroizing::new([0; 8 * 1024]);
    while let Ok(length @ 1..) = pipe.read(piece.as_mut_slice()).await {
        wiped::append(text, &piece[..length]);
        if text.len() > 2 * KEPT_OUTPUT {
            let first = text.len() - KEPT_OUTPUT;
            text.drain(..first);
        }
    }
    let first = text.len().saturating_sub(KEPT_OUTPUT);
    text.drain(..first);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_alone_is_not_handed_on() {
        let ours =
            ["DATABRICKS_CLIENT_SECRET", "PGPASSWORD", "NOTIFY_SOCKET", "WATCHDOG_USEC", "CREDENTIALS_DIRECTORY"];
        let others = ["DATABRICKS_CONFIG_FILE", "LANG", "DBX_ROTATOR_CONFIG", "PGPASSFILE"];
        let environment: Environment =
            ours.iter().chain(&others).map(|name| (*name, "x")).chain([("HOME", "/home/ada")]).collect();
        let mut names: Vec<_> = inherited(&environment, &["DATABRICKS_CONFIG_FILE"])
            .into_iter()
            .map(|(name, _)| name.into_string().unwrap())
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names, ["DATABRICKS_CONFIG_FILE", "DBX_ROTATOR_CONFIG", "HOME", "LANG", "PGPASSFILE"]);
    }

    fn shell(script: &str, argument: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).arg(argument);
        command
    }

    /// A named pipe, and what is written to it from now until its last writer closes it.
    fn overheard(directory: &Path) -> (PathBuf, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let pipe = directory.join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let (say, said) = tokio::sync::mpsc::unbounded_channel();
        let opened = pipe.clone();
        std::thread::spawn(move || {
            let lines = std::io::BufReader::new(std::fs::File::open(opened).unwrap());
            std::io::BufRead::lines(lines).for_each(|line| drop(say.send(line.unwrap())));
        });
        (pipe, said)
    }

    #[tokio::test]
    async fn a_child_that_nobody_waits_for_any_more_goes_on_to_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let (pipe, mut said) = overheard(directory.path());
        let script = "trap 'echo TERM >&3' TERM; exec 3> \"$0\"; echo begun >&3; read go < \"$0.go\"; echo ended >&3";
        let go = directory.path().join("pipe.go");
        assert!(std::process::Command::new("mkfifo").arg(&go).status().unwrap().success());
        let waiter = tokio::spawn(run(shell(script, &pipe), std::future::pending()));
        assert_eq!(said.recv().await.unwrap(), "begun");
        waiter.abort();
        assert!(waiter.await.is_err_and(|fault| fault.is_cancelled()));
        tokio::task::spawn_blocking(|| std::fs::write(go, "go\n").unwrap()).await.unwrap();
        assert_eq!(said.recv().await.as_deref(), Some("ended"));
        assert_eq!(said.recv().await, None);
        assert!(finish_all(Duration::from_secs(60)).await);
    }

    #[tokio::test]
    async fn a_child_that_nobody_waits_for_any_more_is_waited_for_at_the_end_of_the_program() {
        let directory = tempfile::tempdir().unwrap();
        let (pipe, mut said) = overheard(directory.path());
        let script = "echo begun > \"$0\"; sleep 1; echo ended > \"$0.ended\"";
        let waiter = tokio::spawn(run(shell(script, &pipe), std::future::pending()));
        assert_eq!(said.recv().await.unwrap(), "begun");
        waiter.abort();
        assert!(finish_all(Duration::from_secs(60)).await);
        assert_eq!(std::fs::read_to_string(directory.path().join("pipe.ended")).unwrap(), "ended\n");
    }

    #[test]
    fn a_child_whose_runtime_is_gone_goes_on_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (pipe, mut said) = overheard(directory.path());
        let script = "trap 'echo TERM >&3' TERM; exec 3> \"$0\"; echo begun >&3; sleep 1; echo ended >&3";
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let waiter = tokio::spawn(run(shell(script, &pipe), std::future::pending()));
            assert_eq!(said.recv().await.unwrap(), "begun");
            drop(waiter);
        });
        drop(runtime);
        assert_eq!(said.blocking_recv().as_deref(), Some("ended"));
    }

    /// What a program and its children write when their time is up as soon as they have started.
    async fn said_at_the_end(script: &str) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let (pipe, mut said) = overheard(directory.path());
        let (begun, over) = tokio::sync::oneshot::channel();
        let over = async { over.await.unwrap() };
        let waiter = tokio::spawn(run(shell(&format!("exec 3> \"$0\"; {script}"), &pipe), over));
        assert_eq!(said.recv().await.unwrap(), "begun");
        begun.send(()).unwrap();
        assert!(waiter.await.unwrap().unwrap().is_none());
        // The pipe ends when nobody of the group is left.
        let mut all = Vec::new();
        while let Some(line) = said.recv().await {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn a_child_whose_time_is_over_may_bring_to_an_end_what_it_is_doing() {
        let busy = "trap 'echo TERM >&3; sleep 0.2; echo done >&3; exit 0' TERM; echo begun >&3; \
                    while :; do sleep 0.1; done";
        assert_eq!(said_at_the_end(busy).await, ["TERM", "done"]);
        let wrapped = format!("(trap '' TERM; {}) & wait", "echo begun >&3; sleep 0.2; echo done >&3");
        assert_eq!(said_at_the_end(&wrapped).await, ["done"], "the wrapper is gone before what it wraps");
    }

    #[tokio::test]
    async fn a_group_that_does_not_end_when_asked_to_is_killed() {
        for script in [
            "trap 'echo TERM >&3' TERM; echo begun >&3; while :; do sleep 100 & wait $!; done",
            "(trap 'echo TERM >&3' TERM; echo begun >&3; while :; do sleep 100 & wait $!; done) & wait",
        ] {
            assert_eq!(said_at_the_end(script).await, ["TERM"], "{script}");
        }
    }

    #[tokio::test]
    async fn of_a_program_that_prints_without_measure_the_last_is_kept_and_it_is_not_cut_off() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "i=0; while [ $i -lt 40 ]; do printf '%010000d' 0; i=$((i + 1)); done; echo end"]);
        let ran = run(command, std::future::pending()).await.unwrap().unwrap();
        assert!(ran.status.success(), "{}", ran.status);
        assert!(ran.stdout.len() == KEPT_OUTPUT && ran.stdout.ends_with(b"0end\n"), "{}", ran.stdout.len());
    }
}
