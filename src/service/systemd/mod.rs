//! The service on systemd: for one user, in the user's own manager or as an instance of the machine's templates.

mod circumstances;
mod instance;
mod proxy;
mod sockets;
mod systemctl;
mod units;
mod view;

use std::cell::{Cell, OnceCell};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::original::{Original, unit as original_unit};
use super::{Account, PATIENCE, Scope, ServiceManager, Started, State, Way};
use crate::failure::{Code, Failure};
use crate::os::dirs::{Environment, SYSTEM_DIRECTORY};
use crate::os::files::read_text;
use crate::service::files;
use crate::typed::shell_word;
use systemctl::{Systemctl, run};
use units::Directory;

/// The first version that knows `Type=notify-reload`.
const KNOWS_NOTIFY_RELOAD: u32 = 253;

/// The first version that knows `RestartSteps=`; earlier ones complain of it at each reload.
const KNOWS_RESTART_STEPS: u32 = 254;

/// `LoadCredential=` reads escapes in its path, and takes no path with a blank: seen with 262, not with 252.
const READS_ESCAPES: u32 = 253;

/// The unit of the Python original, which would write its own tokens into the same file.
const ORIGINAL: &str = "com.databricks.oauth.rotator.service";

/// The units of one user, in the user's own manager or in the machine's.
pub(super) struct Systemd {
    systemctl: Systemctl,
    scope: Scope,
    account: Account,
    /// See [`Systemd::environment`].
    environment: OnceCell<Environment>,
    /// Whether the proxy's sockets were told to be others than they are.
    sockets_changed: Cell<bool>,
}

impl Systemd {
    /// The manager of this scope for this user.
    ///
    /// # Errors
    /// The manager does not run here.
    pub(crate) fn new(scope: Scope, account: Account) -> Result<Self, Failure> {
        let systemctl = Systemctl::new(scope);
        if !systemctl.is_there() {
            let (what, hint) = match scope {
                Scope::System => ("systemd does not run here", "let another manager run `dbx-rotator run`"),
                Scope::User => (
                    "no systemd manager of yours runs here",
                    "log in as yourself instead of by su or sudo; on a server let `sudo dbx-rotator service install --system` do it",
                ),
            };
            return Err(Failure::permanent(Code::Unavailable, what).hint(hint));
        }
        let longest = format!("dbx-rotator-daemon@{}.service", instance::escape(&account.name));
        if scope == Scope::System && !instance::is_short_enough(&longest) {
            let what = format!("the name {} is too long for a unit", account.name);
            return Err(Failure::permanent(Code::Configuration, what).hint("let that user install a unit of its own"));
        }
        Ok(Systemd { systemctl, scope, account, environment: OnceCell::new(), sockets_changed: Cell::new(false) })
    }

    fn directory(&self) -> Directory {
        Directory::of(self.scope, self.environment())
    }

    /// The state of this user's service: in the user's manager, else in the machine's; none if neither has it, or no manager can
    /// be asked.
    pub(crate) fn look(environment: &Environment) -> Option<State> {
        let account = Account::own(environment)?;
        let ask = |scope| {
            let manager = Systemd::new(scope, account.clone()).ok()?;
            manager.state().inspect_err(|error| tracing::debug!("{error}")).ok()?
        };
        match ask(Scope::User) {
            Some(up) if up.is_up() => Some(up),
            // The machine's manager is only asked if it may have the service: each question takes a while.
            other => {
                let of_machine = units::is_packaged_for_system().then(|| ask(Scope::System)).flatten();
                of_machine.filter(|state| state.is_up() || other.is_none()).or(other)
            }
        }
    }

    // ---- names ----

    fn name(&self, stem: &str, kind: &str) -> String {
        match self.scope {
            Scope::User => format!("{stem}.{kind}"),
            Scope::System => format!("{stem}@{}.{kind}", instance::escape(&self.account.name)),
        }
    }

    fn unit(&self, way: Way) -> String {
        match way {
            Way::Timer => self.name("dbx-rotator", "timer"),
            Way::Daemon => self.name("dbx-rotator-daemon", "service"),
        }
    }

    /// The service that a timer starts.
    fn one_run(&self) -> String {
        self.name("dbx-rotator", "service")
    }

    /// All units of this user: the timer, the service that it starts, the daemon.
    fn units(&self) -> [String; 3] {
        [self.unit(Way::Timer), self.one_run(), self.unit(Way::Daemon)]
    }

    /// The unit that rotates.
    fn worker(&self, way: Way) -> String {
        if way == Way::Timer { self.one_run() } else { self.unit(way) }
    }

    // ---- circumstances ----

    fn begin(&self, verb: &str, way: Way) -> Result<Started, Failure> {
        self.begin_unit(verb, &self.worker(way))
    }

    fn begin_unit(&self, verb: &str, unit: &str) -> Result<Started, Failure> {
        match self.systemctl.call_for(&[verb, unit], PATIENCE) {
            Ok(_) => Ok(Started::Well),
            Err(failure) if failure.is_transient() => Ok(Started::NotYet),
            Err(failure) => {
                let shown = self.systemctl.show(&[unit], &["LoadState", "ExecMainStatus"])?;
                let get = |name: &str| shown.first().and_then(|unit| unit.get(name));
                if get("LoadState").is_none_or(|state| state != "loaded") {
                    return Err(failure);
                }
                Ok(Started::Failed(get("ExecMainStatus").and_then(|code| code.parse().ok())))
            }
        }
    }

    fn logs_of(&self, unit: &str) -> String {
        let user = if self.scope == Scope::User { "--user " } else { "" };
        format!("journalctl {user}-xu {}", shell_word(unit.trim_end_matches(".service")))
    }

    /// Lets these services write where they have to on this machine; returns the files that had to be written.
    fn provide_drop_ins(
        &self,
        directory: &Directory,
        services: &[&str],
        relaxed: bool,
        writes: &[PathBuf],
    ) -> Result<Vec<PathBuf>, Failure> {
        let mut written = self.provide_secret(directory, services)?;
        if relaxed && self.scope == Scope::User {
            for service in services {
                written.extend(directory.add_drop_in(service, units::RELAXED)?);
            }
        }
        if self.scope == Scope::System && self.account.home != Path::new("/home").join(&self.account.name) {
            for service in services {
                written.extend(directory.add_home(service, &self.account.home)?);
            }
        }
        let elsewhere =
            |directory: &&Path| !directory.starts_with(&self.account.home) && units::can_be_let_in(directory);
        let elsewhere: Vec<&Path> = writes.iter().map(PathBuf::as_path).filter(elsewhere).collect();
        for service in services {
            written.extend(directory.add_places(service, &elsewhere)?);
        }
        Ok(written)
    }

    /// Lets the services of a user with an unusual name have their secret; returns the files that had to be written.
    fn provide_secret(&self, directory: &Directory, services: &[&str]) -> Result<Vec<PathBuf>, Failure> {
        let Some(link) = self.link_to_secret() else { return Ok(Vec::new()) };
        if self.systemctl.version()? < READS_ESCAPES {
            return Ok(Vec::new());
        }
        let cannot = |error: &io::Error| files::cannot("make", &link, error);
        match std::os::unix::fs::symlink(format!("{}.client-secret", self.account.name), &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && link.is_symlink() => {}
            made => made.map_err(|error| cannot(&error))?,
        }
        let written = services.iter().map(|service| directory.add_secret(service, &link));
        Ok(written.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The link that names the secret's file without blanks; none where the file's own name has none, nor a backslash.
    fn link_to_secret(&self) -> Option<PathBuf> {
        let name = &self.account.name;
        let is_unusual = self.scope == Scope::System && name.contains(['\\', ' ']);
        is_unusual.then(|| Path::new(SYSTEM_DIRECTORY).join(format!("{}.client-secret", instance::escape(name))))
    }
}

impl ServiceManager for Systemd {
    fn way(&self, daemon: bool) -> Way {
        if daemon { Way::Daemon } else { Way::Timer }
    }

    fn environment(&self) -> &Environment {
        self.environment.get_or_init(|| {
            let told = match self.scope {
                Scope::User => self.systemctl.call(&["show-environment"]).unwrap_or_default(),
                Scope::System => String::new(),
            };
            let usual = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("USER", &self.account.name)];
            let variables = usual.into_iter().chain(told.lines().filter_map(|line| line.split_once('=')));
            variables.collect::<Environment>().with("HOME", &self.account.home)
        })
    }

    fn state(&self) -> Result<Option<State>, Failure> {
        let names = self.units();
        let shown = self.systemctl.show(&names.each_ref().map(String::as_str), &view::PROPERTIES)?;
        let lingering = (self.scope == Scope::User).then(|| self.lingers());
        let state = view::state(self.scope, &shown, lingering);
        Ok(state.map(|state| State { lacks_namespaces: state.lacks_sandbox() && !self.makes_namespaces(), ..state }))
    }

    fn logs(&self, way: Way) -> String {
        self.logs_of(&self.worker(way))
    }

    fn provide(&self, program: &Path, way: Way, relaxed: bool, writes: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
        let (directory, mut written) = (self.directory(), Vec::new());
        for unit in units::all(self.scope) {
            written.extend(directory.provide(*unit, program)?);
        }
        let services = [self.one_run(), self.unit(Way::Daemon)];
        written.extend(self.provide_drop_ins(&directory, &services.each_ref().map(String::as_str), relaxed, writes)?);
        if way == Way::Daemon {
            let version = self.systemctl.version()?;
            for (since, drop_in) in
                [(KNOWS_NOTIFY_RELOAD, units::NOTIFY_RELOAD), (KNOWS_RESTART_STEPS, units::RESTART_STEPS)]
            {
                if version >= since {
                    written.extend(directory.add_drop_in(&self.unit(Way::Daemon), drop_in)?);
                }
            }
        }
        self.systemctl.call(&["daemon-reload"])?;
        Ok(written)
    }

    fn original(&self) -> Result<Option<Original>, Failure> {
        if self.scope == Scope::System {
            return Ok(None);
        }
        let properties = ["LoadState", "ActiveState", "UnitFileState", "FragmentPath", "DropInPaths"];
        let shown = self.systemctl.show(&[ORIGINAL], &properties)?.pop().unwrap_or_default();
        let get = |name: &str| shown.get(name).map_or("", String::as_str);
        // One that the manager itself cannot read has no path there.
        let usual = || self.environment().units_dir().join(ORIGINAL);
        let file = Some(get("FragmentPath")).filter(|path| !path.is_empty()).map_or_else(usual, PathBuf::from);
        if get("LoadState") == "not-found" && file.symlink_metadata().is_err() {
            return Ok(None);
        }
        let drop_ins = get("DropInPaths").split_whitespace().map(PathBuf::from);
        let files: Vec<PathBuf> = std::iter::once(file.clone()).chain(drop_ins).collect();
        let told = original_unit::read(&files, &self.account.home, &self.account.name, &read_text);
        let in_service = !matches!(get("ActiveState"), "inactive" | "failed" | "") || get("UnitFileState") == "enabled";
        Ok(Some(Original { name: ORIGINAL, file, in_service, told }))
    }

    fn retire_original(&self) -> Result<(), Failure> {
        self.systemctl.call(&["disable", "--now", ORIGINAL]).map(drop)
    }

    fn enable(&self, way: Way) -> Result<Started, Failure> {
        let other = if way == Way::Timer { Way::Daemon } else { Way::Timer };
        self.systemctl.call(&["disable", "--now", &self.unit(other)])?;
        self.systemctl.call(&["enable", &self.unit(way)])?;
        self.restart(way)
    }

    fn restart(&self, way: Way) -> Result<Started, Failure> {
        if way == Way::Daemon {
            return self.begin("restart", way);
        }
        // A current run has read the old settings; the timer starts another.
        self.systemctl.call(&["stop", &self.one_run()])?;
        self.systemctl.call(&["restart", &self.unit(Way::Timer)])?;
        self.begin("start", way)
    }

    fn start(&self, way: Way) -> Result<Started, Failure> {
        if way == Way::Timer {
            self.systemctl.call(&["start", &self.unit(Way::Timer)])?;
        }
        self.begin("start", way)
    }

    fn stop(&self) -> Result<(), Failure> {
        let units = self.units();
        self.systemctl.call(&["stop", &units[0], &units[1], &units[2]]).map(drop)
    }

    fn remove(&self) -> Result<Vec<PathBuf>, Failure> {
        let units = self.units();
        let shown = self.systemctl.show(&units.each_ref().map(String::as_str), &["LoadState"])?;
        let there =
            units.iter().zip(&shown).filter(|(_, unit)| unit.get("LoadState").is_some_and(|s| s != "not-found"));
        for (unit, _) in there {
            self.systemctl.call(&["disable", "--now", unit])?;
        }
        let directory = self.directory();
        let mut gone = directory.clear(&units.each_ref().map(String::as_str))?;
        if let Some(link) = self.link_to_secret().filter(|link| link.is_symlink()) {
            std::fs::remove_file(&link).map_err(|error| files::cannot("remove", &link, &error))?;
            gone.push(link);
        }
        // The templates may serve other users of the machine too.
        if self.scope == Scope::System && !self.serves_others(&["dbx-rotator@*", "dbx-rotator-daemon@*"])? {
            let templates: Vec<&str> = units::all(self.scope).iter().map(|unit| unit.name).collect();
            gone.extend(directory.clear(&templates)?);
        }
        self.systemctl.call(&["daemon-reload"])?;
        // Otherwise a failed unit would stay in the list of failed units after its removal.
        let _ = self.systemctl.call(&["reset-failed", &units[0], &units[1], &units[2]]);
        Ok(gone)
    }

    fn enable_lingering(&self) -> Result<(), Failure> {
        let mut command = Command::new("loginctl");
        command.args(["--no-ask-password", "enable-linger", &self.account.name]);
        let done = run(command, "loginctl", &["enable-linger"], PATIENCE).map(drop);
        done.map_err(|failure| failure.hint(format!("sudo loginctl enable-linger {}", shell_word(&self.account.name))))
    }

    fn advice(&self, way: Way, missed: &[&str], here: &Environment, lingering: bool) -> Vec<String> {
        let mut advice = Vec::new();
        if self.scope == Scope::User && !lingering && !self.lingers() && self.is_server() {
            advice.push(
                "your service manager ends when you log out, and passwords expire then; to keep it: \
                 dbx-rotator service install --linger"
                    .to_owned(),
            );
        }
        // Root asks no user's manager.
        let old = self.account.home.join(".config/systemd/user").join(ORIGINAL);
        if self.scope == Scope::System && old.symlink_metadata().is_ok() {
            let (file, user) = (old.display(), &self.account.name);
            advice.push(format!(
                "{file}: the service of the Python tool is not taken over by one of the machine, and the two would write \
                 the same entry; as {user}: systemctl --user disable --now {ORIGINAL}"
            ));
        }
        let unseen = self.unseen(missed, here);
        if !unseen.is_empty() {
            let names = unseen.join(", ");
            let remedy = match self.scope {
                Scope::User => {
                    "put it into ~/.config/environment.d/dbx-rotator.conf (environment.d(5)) and log in again"
                        .to_owned()
                }
                Scope::System => {
                    format!("`systemctl edit {}` and add Environment=", shell_word(&self.worker(way)))
                }
            };
            advice.push(format!("{names}: set in this shell and not for the service; {remedy}"));
        }
        advice
    }

    fn remains(&self) -> Option<String> {
        let lingers = self.scope == Scope::User && self.lingers();
        lingers.then(|| {
            "Your service manager still goes on when you are logged out: `loginctl disable-linger` ends that".to_owned()
        })
    }
}
