//! The service on macOS: a launchd agent of the user, which runs `run`, and another one for the local proxy, which listens itself. There is no timer, since launchd's do not fire during sleep,
//! and nothing for the whole machine: the passwords belong to a user.
//!
//! It can only tell what launchd knows. launchd does not know how a rotation goes; the password file shows that.

mod agent;
mod launchctl;
mod original;
mod proxy;
mod view;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::original::Original;
use super::{Account, Scope, ServiceManager, Started, State, Way, files};
use crate::failure::{Code, Failure};
use crate::generated::expressible;
use crate::os::dirs::Environment;
use crate::os::launchd::{LABEL, SUBSYSTEM};
use crate::typed::shell_path;
use agent::{Agent, Job, MARK};
use launchctl::{Domain, Launchctl, Refusal};

/// How long a job may take to end: launchd kills it after 20 s (ExitTimeOut, launchd.plist(5)).
const LONGEST_END: Duration = Duration::from_secs(25);

/// How many times as long the proxy may take, whose ExitTimeOut is 100 s.
const PROXY_TAKES: u32 = 5;

/// How often it is checked meanwhile.
const GLANCE: Duration = Duration::from_millis(100);

/// The Python original's agent, which would write its own tokens into the same file.
const ORIGINAL: &str = "com.databricks.oauth.rotator";

/// Where the agent finds other programs: Homebrew's places on both processors, then launchd's own list.
const PATH: &str = "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// The agent of one user.
pub(crate) struct Launchd {
    launchctl: Launchctl,
    home: PathBuf,
    environment: Environment,
    longest_end: Duration,
}

impl Launchd {
    /// The agent of the calling user.
    ///
    /// # Errors
    /// The machine's service was asked for, or root asks.
    #[cfg_attr(not(target_os = "macos"), allow(dead_code, reason = "tests take a stand-in for launchctl"))]
    pub(crate) fn new(scope: Scope, account: &Account) -> Result<Self, Failure> {
        let uid = rustix::process::getuid().as_raw();
        let refuse = |why: &str, hint: &str| Err(Failure::permanent(Code::Configuration, why).hint(hint));
        if scope == Scope::System {
            return refuse(
                "on macOS a user's own agent keeps passwords alive, none of the machine's",
                "leave out --system",
            );
        }
        if uid == 0 {
            return refuse("root has no agents in launchd", "call it as yourself, without sudo");
        }
        Ok(Self::with("/bin/launchctl", uid, account))
    }

    /// The agent of this user, with this `launchctl`.
    pub(crate) fn with(launchctl: impl Into<PathBuf>, uid: u32, account: &Account) -> Self {
        let path = format!("{}:{PATH}", account.home.join(".local/bin").display());
        let environment: Environment = [("PATH", path.as_str()), ("USER", &account.name)].into_iter().collect();
        Launchd {
            launchctl: Launchctl::new(launchctl, uid),
            home: account.home.clone(),
            environment: environment.with("HOME", &account.home),
            longest_end: LONGEST_END,
        }
    }

    /// The state of this user's agent; none if there is no agent.
    #[cfg_attr(not(target_os = "macos"), allow(dead_code, reason = "tests take a stand-in for launchctl"))]
    pub(crate) fn look(environment: &Environment) -> Option<State> {
        let manager = Self::new(Scope::User, &Account::own(environment)?).ok()?;
        manager.state().inspect_err(|error| tracing::debug!("{error}")).ok()?
    }

    fn file(&self, label: &str) -> PathBuf {
        self.home.join("Library/LaunchAgents").join(format!("{label}.plist"))
    }

    /// Where a job is loaded, and what launchd says about it.
    fn find(&self, label: &str) -> Result<Option<(Domain, String)>, Failure> {
        for domain in Domain::ALL {
            match self.launchctl.print(domain, label) {
                Ok(answer) => return Ok(Some((domain, answer))),
                Err(refusal) if refusal.is_not_loaded() || refusal.is_no_such_domain() => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Ok(None)
    }

    fn is_enabled(&self, label: &str) -> Result<bool, Failure> {
        Ok(self.file(label).exists() && !self.launchctl.is_disabled(label)?)
    }

    // ---- loading ----

    /// Unloads a job wherever it is loaded, and waits until it has ended.
    fn unload(&self, label: &str) -> Result<(), Failure> {
        for domain in Domain::ALL {
            match self.launchctl.bootout(domain, label) {
                Err(refusal) if !(refusal.is_not_loaded() || refusal.is_no_such_domain() || refusal.is_under_way()) => {
                    return Err(refusal.into());
                }
                _ => {}
            }
        }
        let asked = Instant::now();
        let limit = if label == LABEL { self.longest_end } else { self.longest_end * PROXY_TAKES };
        // Until the job has ended, bootstrap would fail.
        while self.find(label)?.is_some() {
            if asked.elapsed() > limit {
                let why = format!("launchd has not ended {label} after {} s", limit.as_secs());
                return Err(
                    Failure::transient(Code::TryAgain, why).hint(format!("launchctl kill KILL {}", self.target(label)))
                );
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Loads the agent if necessary, and makes sure that it runs.
    fn load(&self, label: &str) -> Result<Started, Failure> {
        // A disabled agent cannot be loaded, and launchd does not name this reason.
        self.launchctl.set_enabled(label, true)?;
        let domain = self.bootstrap(label)?;
        self.kick(domain, label, false)
    }

    /// Loads it for the screen if somebody is logged in there, else in the background.
    fn bootstrap(&self, label: &str) -> Result<Domain, Failure> {
        let (file, asked) = (self.file(label), Instant::now());
        let mut domain = Domain::Gui;
        loop {
            match self.launchctl.bootstrap(domain, &file) {
                Ok(()) => return Ok(domain),
                Err(refusal) if refusal.is_no_such_domain() && domain == Domain::Gui => domain = Domain::User,
                Err(refusal) if refusal.may_be_loaded() => {
                    if let Some((domain, _)) = self.find(label)? {
                        return Ok(domain);
                    }
                    // The old job may still be ending.
                    if asked.elapsed() > self.longest_end.min(Duration::from_secs(5)) {
                        return Err(self.explained(refusal, label));
                    }
                    std::thread::sleep(GLANCE);
                }
                Err(refusal) => return Err(self.explained(refusal, label)),
            }
        }
    }

    /// Starts a loaded job. It is fine if it already runs.
    fn kick(&self, domain: Domain, label: &str, anew: bool) -> Result<Started, Failure> {
        match self.launchctl.kickstart(domain, label, anew) {
            Err(refusal) if !refusal.is_under_way() => Err(refusal.into()),
            _ => Ok(Started::Untold),
        }
    }

    fn explained(&self, refusal: Refusal, label: &str) -> Failure {
        let (code, file) = (refusal.code, self.file(label));
        let failure: Failure = refusal.into();
        let lint = format!("plutil -lint {}", shell_path(&file));
        failure.hint(match code {
            // launchctl uses this number for nearly everything.
            5 => format!(
                "see that the file is yours, of mode 0644 and in order: {lint}; then `dbx-rotator service restart`"
            ),
            119 => format!("launchctl enable {}", self.target(label)),
            _ => format!("launchctl error {code}; {lint}"),
        })
    }

    fn target(&self, label: &str) -> String {
        self.launchctl.target(Domain::Gui, label)
    }

    // ---- files ----

    /// Writes an agent whose last words go into this log; returns its file, unless somebody else's has that name.
    fn write(&self, job: Job, program: &Path, log: &str) -> Result<Vec<PathBuf>, Failure> {
        let (file, logs) = (self.file(job.label()), self.home.join("Library/Logs"));
        // launchd opens the log, and does not start the program if it cannot.
        std::fs::create_dir_all(&logs).map_err(|error| files::cannot("make", &logs, &error))?;
        let errors = logs.join(log);
        let (program, errors) =
            (expressible("an agent of launchd", program, &[])?, expressible("an agent of launchd", &errors, &[])?);
        let path = self.environment.get("PATH").unwrap_or(PATH);
        let text = Agent { job, program, path, errors }.text()?;
        // `brew services` has an agent with the same name; Homebrew's file is not replaced.
        Ok(files::write(&file, &text, MARK)?.then_some(file).into_iter().collect())
    }

    /// Unloads an agent and removes its file if it is ours, else disables it.
    fn withdraw(&self, label: &str) -> Result<Vec<PathBuf>, Failure> {
        self.unload(label)?;
        let file = self.file(label);
        if files::remove_if_ours(&file, MARK)? {
            return Ok(vec![file]);
        }
        if file.exists() {
            // Otherwise it would be loaded again at the next login.
            self.launchctl.set_enabled(label, false)?;
        }
        Ok(Vec::new())
    }
}

impl ServiceManager for Launchd {
    fn way(&self, _: bool) -> Way {
        Way::Daemon
    }

    fn environment(&self) -> &Environment {
        &self.environment
    }

    fn state(&self) -> Result<Option<State>, Failure> {
        let enabled = self.is_enabled(LABEL)?;
        Ok(match self.find(LABEL)? {
            Some((_, answer)) => Some(view::state(&answer, enabled)),
            None => self.file(LABEL).exists().then(|| view::unloaded(enabled)),
        })
    }

    fn logs(&self, _: Way) -> String {
        format!("log show --last 10m --predicate 'subsystem == \"{SUBSYSTEM}\"'")
    }

    fn provide(&self, program: &Path, _: Way, relaxed: bool, _: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
        if relaxed {
            return Err(Failure::permanent(Code::Configuration, "an agent of launchd has no sandbox to be relaxed")
                .hint("leave out --relaxed"));
        }
        self.write(Job::Renew, program, "dbx-rotator.log")
    }

    fn original(&self) -> Result<Option<Original>, Failure> {
        let (file, is_loaded) = (self.file(ORIGINAL), self.find(ORIGINAL)?.is_some());
        let in_service = is_loaded || self.is_enabled(ORIGINAL)?;
        if !is_loaded && file.symlink_metadata().is_err() {
            return Ok(None);
        }
        Ok(Some(Original { name: ORIGINAL, told: original::read(&file), file, in_service }))
    }

    fn retire_original(&self) -> Result<(), Failure> {
        self.unload(ORIGINAL)?;
        Ok(self.launchctl.set_enabled(ORIGINAL, false)?)
    }

    fn enable(&self, _: Way) -> Result<Started, Failure> {
        // The loaded agent may have another program or path.
        self.unload(LABEL)?;
        self.load(LABEL)
    }

    fn restart(&self, _: Way) -> Result<Started, Failure> {
        match self.find(LABEL)? {
            Some((domain, _)) => self.kick(domain, LABEL, true),
            None => self.load(LABEL),
        }
    }

    fn start(&self, _: Way) -> Result<Started, Failure> {
        match self.find(LABEL)? {
            Some((domain, _)) => self.kick(domain, LABEL, false),
            None => self.load(LABEL),
        }
    }

    fn stop(&self) -> Result<(), Failure> {
        self.unload(LABEL)
    }

    fn remove(&self) -> Result<Vec<PathBuf>, Failure> {
        self.withdraw(LABEL)
    }

    fn enable_lingering(&self) -> Result<(), Failure> {
        Err(Failure::permanent(
            Code::Configuration,
            "an agent of launchd ends when you log out, and starts when you log in",
        )
        .hint("leave out --linger"))
    }

    fn advice(&self, _: Way, missed: &[&str], here: &Environment, _: bool) -> Vec<String> {
        let is_unseen = |name: &&&str| here.get_os(name).is_some() && !self.launchctl.has_variable(name);
        let unseen: Vec<&str> = missed.iter().filter(is_unseen).copied().collect();
        if unseen.is_empty() {
            return Vec::new();
        }
        let remedy = "an agent sees what `launchctl setenv NAME VALUE` sets until you log out, after \
                      `dbx-rotator service restart`";
        vec![format!("{}: set in this shell and not for the service; {remedy}", unseen.join(", "))]
    }

    fn remains(&self) -> Option<String> {
        let file = self.file(LABEL);
        file.exists().then(|| {
            format!(
                "Left {}, which somebody else wrote (`brew services stop dbx-rotator`?), and disabled it",
                file.display()
            )
        })
    }
}

#[cfg(test)]
mod tests;
