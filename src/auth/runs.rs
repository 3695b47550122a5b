//! The runs of the tools that keep people's logins: in this process at most one at a time for each login, shared by all callers.
//!
//! Invariants: a run ends on its own or at its own limit, never because a caller stops waiting; no second run starts next to it. If
//! a refresh token can be used only once, an interrupted or doubled refresh would end a person's login.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::sync::watch;

use crate::os::child::{self, GRACE, Ran};

/// The least time for a run, however little its caller has: enough for a refresh over a slow network, with all that the CLI looks
/// up first.
const SHORTEST: Duration = Duration::from_secs(15);

/// The CLI's own limit is an hour; a run that takes longer than this hangs.
const LONGEST: Duration = Duration::from_secs(30);

/// After its limit, the grace period and this, a run has reported its end. If not, its runtime is no longer running.
const SLACK: Duration = Duration::from_secs(2);

/// What identifies a login: the program, its arguments, and its environment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Login {
    pub(super) program: PathBuf,
    /// All arguments except `--force-refresh`.
    pub(super) arguments: Vec<OsString>,
    /// The child's whole environment.
    pub(super) environment: Vec<(OsString, OsString)>,
}

/// How a run ended, for all who waited. It may hold a token.
pub(super) struct Ended {
    /// None if it was ended at its limit.
    pub(super) ran: io::Result<Option<Ran>>,
    /// How long it was allowed to take.
    pub(super) limit: Duration,
}

impl Ended {
    fn is_success(&self) -> bool {
        matches!(&self.ran, Ok(Some(ran)) if ran.status.success())
    }
}

/// A running run.
#[derive(Clone)]
struct Run {
    force: bool,
    stale_at: Instant,
    end: watch::Receiver<Option<Arc<Ended>>>,
}

static RUNS: LazyLock<Mutex<HashMap<Login, Run>>> = LazyLock::new(Mutex::default);

fn runs() -> MutexGuard<'static, HashMap<Login, Run>> {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Login {
    /// Runs the CLI, or waits for the present run. With `force` the CLI must refresh its token: a present run without that is awaited,
    /// and then another one is started.
    ///
    /// # Errors
    /// How long the wait was, if `limit` was too short. The run goes on, and its result serves the next caller.
    pub(super) async fn run(&self, force: bool, limit: Duration) -> Result<Arc<Ended>, Duration> {
        // A caller with enough time for the whole run also learns that it was ended.
        let patience = if limit < SHORTEST { limit } else { limit.min(LONGEST) + GRACE + SLACK };
        let end = async {
            loop {
                let mut run = self.join(force, limit);
                let end = run.end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
                match end {
                    Some(ended) if run.force == force || (run.force && ended.is_success()) => return ended,
                    // The run was of the other kind, or its runtime is gone. If a refresh failed, there may still be a live token.
                    _ => {}
                }
            }
        };
        tokio::time::timeout(patience, end).await.map_err(|_| patience)
    }

    /// The present run, or a new one.
    fn join(&self, force: bool, limit: Duration) -> Run {
        let mut runs = runs();
        let is_alive = |run: &&Run| run.stale_at > Instant::now() && run.end.has_changed().is_ok();
        if let Some(run) = runs.get(self).filter(is_alive) {
            return run.clone();
        }
        let limit = limit.clamp(SHORTEST, LONGEST);
        let (tell, end) = watch::channel(None);
        let run = Run { force, stale_at: Instant::now() + limit + GRACE + SLACK, end };
        runs.insert(self.clone(), run.clone());
        let (login, command) = (self.clone(), self.command(force));
        tokio::spawn(async move {
            let ran = child::run(command, async move { tokio::time::sleep(limit).await }).await;
            // First removed, so that later callers get their own run.
            runs_without(&login, &tell);
            tell.send_replace(Some(Arc::new(Ended { ran, limit })));
        });
        run
    }

    fn command(&self, force: bool) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().envs(self.environment.iter().cloned());
        if force {
            command.arg("--force-refresh");
        }
        command
    }
}

/// Forgets this login's run with this channel, but not another one that has replaced it.
fn runs_without(login: &Login, tell: &watch::Sender<Option<Arc<Ended>>>) {
    let mut runs = runs();
    if runs.get(login).is_some_and(|run| run.end.same_channel(&tell.subscribe())) {
        runs.remove(login);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A CLI that records when it begins, gets SIGTERM, and ends. It ends once there is a file `go` next to it, or its
    /// records are gone.
    const CLI: &str = r#"cd "$0" || exit 1
        trap 'echo TERM >> notes' TERM
        case "$*" in *--force-refresh*) what=force ;; *) what=plain ;; esac
        echo "begun $what" >> notes
        while [ ! -e go ] && [ -e notes ]; do sleep 0.05; done
        echo "ended $what" >> notes
        [ "$what" = plain ] || [ ! -e refuse ] || exit 1
        echo "token of $$ by $what""#;

    const LONG: Duration = Duration::from_secs(30);

    fn login(directory: &Path) -> Login {
        let arguments = ["-c".into(), CLI.into(), directory.into()].into();
        Login { program: "/bin/sh".into(), arguments, environment: vec![("PATH".into(), "/usr/bin:/bin".into())] }
    }

    fn notes(directory: &Path) -> String {
        std::fs::read_to_string(directory.join("notes")).unwrap_or_default()
    }

    async fn until(directory: &Path, note: &str) {
        while !notes(directory).contains(note) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn said(ended: &Ended) -> String {
        let ran = ended.ran.as_ref().unwrap().as_ref().unwrap();
        String::from_utf8(ran.stdout.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_run_outlives_who_gives_up_and_serves_the_next_who_asks() {
        let directory = tempfile::tempdir().unwrap();
        let (here, login) = (directory.path(), login(directory.path()));
        let given_up = login.run(false, Duration::from_secs(2)).await.err();
        assert_eq!(given_up, Some(Duration::from_secs(2)));
        let second = {
            let login = login.clone();
            tokio::spawn(async move { login.run(false, LONG).await })
        };
        let third = {
            let login = login.clone();
            tokio::spawn(async move { login.run(false, LONG).await })
        };
        tokio::task::yield_now().await;
        std::fs::write(here.join("go"), "").unwrap();
        let (second, third) = (second.await.unwrap().unwrap(), third.await.unwrap().unwrap());
        assert!(said(&second).starts_with("token of ") && said(&second) == said(&third));
        assert_eq!(notes(here), "begun plain\nended plain\n", "one run, and nobody asked it to end");
        // That run has ended: later callers get a new one.
        let later = login.run(false, LONG).await.unwrap();
        assert_ne!(said(&later), said(&second));
    }

    #[tokio::test]
    async fn a_refresh_by_force_waits_for_a_plain_run_and_serves_those_who_ask_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let (here, login) = (directory.path(), login(directory.path()));
        let ask = |force| {
            let login = login.clone();
            tokio::spawn(async move { login.run(force, LONG).await })
        };
        let plain = ask(false);
        until(here, "begun plain").await;
        let forced = ask(true);
        tokio::task::yield_now().await;
        assert_eq!(notes(here), "begun plain\n", "never two beside each other");
        std::fs::write(here.join("go"), "").unwrap();
        assert!(said(&plain.await.unwrap().unwrap()).ends_with("by plain\n"));
        assert!(said(&forced.await.unwrap().unwrap()).ends_with("by force\n"));
        std::fs::remove_file(here.join("go")).unwrap();
        let forced = ask(true);
        tokio::task::yield_now().await;
        let meanwhile = ask(false);
        tokio::task::yield_now().await;
        std::fs::write(here.join("go"), "").unwrap();
        let (forced, meanwhile) = (forced.await.unwrap().unwrap(), meanwhile.await.unwrap().unwrap());
        assert_eq!(said(&meanwhile), said(&forced));
    }

    #[tokio::test]
    async fn a_refresh_that_fails_is_no_answer_for_who_asks_for_any_token() {
        let directory = tempfile::tempdir().unwrap();
        let (here, login) = (directory.path(), login(directory.path()));
        let ask = |force| {
            let login = login.clone();
            tokio::spawn(async move { login.run(force, LONG).await })
        };
        let forced = ask(true);
        until(here, "begun force").await;
        let meanwhile = ask(false);
        tokio::task::yield_now().await;
        assert_eq!(notes(here), "begun force\n");
        for name in ["refuse", "go"] {
            std::fs::write(here.join(name), "").unwrap();
        }
        assert!(!forced.await.unwrap().unwrap().is_success());
        assert!(said(&meanwhile.await.unwrap().unwrap()).ends_with("by plain\n"));
    }

    #[tokio::test]
    async fn another_login_or_another_environment_is_another_run() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, two) = (login(one.path()), login(two.path()));
        let mut elsewhere = one.clone();
        elsewhere.environment.push(("DATABRICKS_CONFIG_FILE".into(), "/elsewhere".into()));
        let runs = [one.join(false, LONG), two.join(false, LONG), elsewhere.join(false, LONG)];
        assert!(one.join(false, LONG).end.same_channel(&runs[0].end));
        assert!(!runs[0].end.same_channel(&runs[1].end) && !runs[0].end.same_channel(&runs[2].end));
    }

    #[test]
    fn a_run_whose_runtime_is_gone_keeps_nobody_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let login = login(directory.path());
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let left_behind = runtime().block_on(async { login.join(false, LONG) });
        assert!(left_behind.end.has_changed().is_err());
        std::fs::write(directory.path().join("go"), "").unwrap();
        let ended = runtime().block_on(login.run(false, LONG)).unwrap();
        assert!(said(&ended).starts_with("token of "));
    }
}
