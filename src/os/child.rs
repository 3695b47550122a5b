//! Running somebody else's program: found without a shell, told nothing that is ours alone, and ended with all of its children
//! when its time is over.

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

use super::dirs::Environment;
use super::identity::{is_root, owner_of};
use super::wiped;

/// So much of the end of each of a child's outputs is kept: more than any token, or the reason of any failure.
const KEPT_OUTPUT: usize = 64 * 1024;

/// How long a child's output is waited for after its end: something in the background may hold its pipes.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How the names of variables begin that are secrets, identities, or what a service manager told this process alone.
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

/// The environment for a child: what is not ours alone, and besides the variables named in `kept`.
pub(crate) fn inherited(environment: &Environment, kept: &[&str]) -> Vec<(OsString, OsString)> {
    let handed_on = environment.iter().filter(|(name, _)| {
        let name = name.to_string_lossy();
        kept.contains(&name.as_ref()) || !OURS_ALONE.iter().any(|prefix| name.starts_with(prefix))
    });
    // Much is found below the home directory, which a service manager may not have told.
    let home = environment.home().map(|home| ("HOME".into(), home.into()));
    home.into_iter().chain(handed_on.map(|(name, value)| (name.clone(), value.clone()))).collect()
}

/// Where a program of this name may be, best first: on PATH, and where people and installers put programs.
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
        // Root runs by name only what nobody else can replace.
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

/// Runs a program without a terminal, in a process group of its own, until it ends, or until `over`: then the whole group is
/// killed, and there is `None`. What it leaves running in the background when it ends is let be.
///
/// # Errors
/// It cannot be started or waited for.
pub(crate) async fn run(mut command: Command, over: impl Future<Output = ()>) -> std::io::Result<Option<Ran>> {
    command.current_dir("/").process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn()?;
    let group = Group(child.id());
    tokio::select! {
        ran = finish(child, group) => ran.map(Some),
        () = over => Ok(None),
    }
}

/// Waits for a child's end and what it printed. Its pipes are not waited for where something in the background holds them; if
/// this is dropped before the end, even before it was begun, all of its group is killed.
async fn finish(mut child: Child, mut group: Group) -> std::io::Result<Ran> {
    let (mut stdout, mut stderr) = (Zeroizing::new(Vec::new()), Zeroizing::new(Vec::new()));
    let status = {
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let printing = async { tokio::join!(last_of(out, &mut stdout), last_of(err, &mut stderr)) };
        tokio::pin!(printing);
        tokio::select! {
            _ = &mut printing => child.wait().await?,
            status = child.wait() => {
                let _ = tokio::time::timeout(LAST_WORDS, &mut printing).await;
                status?
            }
        }
    };
    group.0 = None;
    Ok(Ran { status, stdout, stderr })
}

/// The process group of a child that has not ended.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(leader) = leader {
            // It may have ended just now: then there is nothing to kill.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Reads to the end, so that no child waits for a reader or dies for want of one, and keeps the last of it.
async fn last_of(pipe: Option<impl AsyncRead + Unpin>, text: &mut Zeroizing<Vec<u8>>) {
    let Some(mut pipe) = pipe else { return };
    // What could be read before an error is judged as it is.
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

    #[tokio::test]
    async fn what_nobody_has_begun_to_wait_for_is_ended_with_all_that_it_started() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 100 & echo $!; wait"]).process_group(0).kill_on_drop(true).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut started = [0; 1];
        let mut pipe = child.stdout.take().unwrap();
        pipe.read_exact(&mut started).await.unwrap();
        let group = Group(child.id());
        drop(finish(child, group));
        // It ends when the last one that could write to it is gone.
        tokio::time::timeout(Duration::from_secs(20), pipe.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
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
