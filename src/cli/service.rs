//! `dbx-rotator service`: the dialogue with a person about units and agents.

mod life;
mod proxy;

use std::io::{self, BufRead, IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::arguments::{InstallOptions, ServiceCommand, WhichManager};
use super::service_inputs::inputs;
use super::take_over::{Here, TakeOver};
use super::{Fault, block_on_to_the_end, own_program, print, status};
use crate::config::{Config, ConfigError, Overrides, Place};
use crate::failure::{Code, Failure};
use crate::foreign;
use crate::model::Workspace;
use crate::os::dirs::{Environment, SYSTEM_DIRECTORY};
use crate::os::{identity, keychain};
use crate::rotation::{self, Rotation};
use crate::service::{
    Account, Original, PATIENCE, Plan, Scope, ServiceInputs, ServiceManager, Started, State, Way, WriteError,
    as_service, manager, what_an_upgrade_means,
};
use crate::typed::shell_word;

/// What the shell of a person often sets, and a manager does not hand to its services.
const MISSED: [&str; 4] = ["SSL_CERT_FILE", "SSL_CERT_DIR", "DATABRICKS_CONFIG_FILE", "DATABRICKS_AUTH_STORAGE"];

/// How often the password file is checked while waiting for the first rotation.
const GLANCE: Duration = Duration::from_millis(200);

/// Every how many checks the manager is asked whether the service still runs.
const LOOKS_PER_QUESTION: u32 = 5;

impl From<WriteError> for Fault {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Config(error) => Fault::Config(*error),
            WriteError::Failure(failure) => Fault::Failure(failure),
        }
    }
}

/// Whether a service manager of this user runs here.
pub(super) fn is_possible() -> bool {
    let account = Account::own(&Environment::of_this_process());
    account.is_some_and(|account| manager(Scope::User, &account).is_ok())
}

/// The Python tool's service of this user, where it still renews a password.
///
/// # Errors
/// The service manager refuses.
pub(super) fn original_in_service() -> Result<Option<Original>, Fault> {
    let account = Account::own(&Environment::of_this_process());
    let Some(manager) = account.and_then(|account| manager(Scope::User, &account).ok()) else { return Ok(None) };
    Ok(manager.original()?.filter(|original| original.in_service))
}

/// Sets up the service of this user, as `service install` does.
///
/// # Errors
/// As that.
pub(super) fn install(options: &InstallOptions, overrides: &Overrides) -> Result<u8, Fault> {
    Service::of(&options.which, overrides)?.install(options, overrides)
}

pub(super) fn run(command: &ServiceCommand, overrides: &Overrides) -> Result<u8, Fault> {
    if matches!(command, ServiceCommand::Install(_)) {
        own_program::check()?;
    }
    let service = Service::of(command.which(), overrides).map_err(|fault| fitting(fault, command))?;
    match command {
        ServiceCommand::Install(options) => service.install(options, overrides),
        ServiceCommand::Uninstall { proxy: true, .. } => service.uninstall_proxy(),
        ServiceCommand::Uninstall { purge, .. } => service.uninstall(*purge),
        ServiceCommand::Start { proxy, .. } => service.start(*proxy),
        ServiceCommand::Stop { proxy, .. } => service.stop(*proxy),
        ServiceCommand::Restart { proxy, .. } => service.restart(*proxy),
        ServiceCommand::Status { json, .. } => service.status(*json),
    }
}

/// The same with a hint that names this command, where it names the installation for the machine as a way out.
fn fitting(fault: Fault, command: &ServiceCommand) -> Fault {
    let Fault::Failure(failure) = fault else { return fault };
    let wanted = format!("dbx-rotator service {} --system", command.word());
    let hint = failure.hint.as_deref().map(|hint| hint.replace("dbx-rotator service install --system", &wanted));
    Fault::Failure(Failure { hint, ..failure })
}

/// The service of one user, and the files it reads.
struct Service {
    manager: Box<dyn ServiceManager>,
    scope: Scope,
    account: Account,
    inputs: ServiceInputs,
    environment: Environment,
    /// Signs in to a workspace, and changes nothing.
    try_sign_in: fn(&Workspace, &Config) -> Result<(), Failure>,
}

impl Service {
    fn of(which: &WhichManager, overrides: &Overrides) -> Result<Self, Fault> {
        let environment = Environment::of_this_process();
        let scope = if which.system { Scope::System } else { Scope::User };
        let account = match scope {
            Scope::System => Account::wanted(which.user.as_deref(), &environment)?,
            Scope::User => Account::own(&environment)
                .ok_or_else(|| ConfigError::new("the name of this user is not known").hint("set USER and HOME"))?,
        };
        let manager = manager(scope, &account)?;
        let inputs = inputs(scope, &account, &*manager);
        let named = overrides.named_config(&environment);
        if let Some(other) = named.filter(|path| *path != inputs.config) {
            let message = format!("a service reads {}, not {}", inputs.config.display(), other.display());
            let hint = "leave out --config and DBX_ROTATOR_CONFIG; a link at that place will do";
            return Err(ConfigError::usage(message).hint(hint).into());
        }
        Ok(Service { manager, scope, account, inputs, environment, try_sign_in })
    }

    // ---- install ----

    fn install(&self, options: &InstallOptions, overrides: &Overrides) -> Result<u8, Fault> {
        let here = Here {
            overrides,
            environment: &self.environment,
            config: &self.inputs.config,
            home: &self.account.home,
            as_original: options.as_original,
        };
        let taken = TakeOver::of(self.manager.original()?, &here);
        taken.say_what_is_left();
        let config = self.wanted_config(&taken.filled.overrides, &taken.filled.environment)?;
        config.check_for_service()?;
        for warning in config.warnings() {
            print::warning(warning);
        }
        if options.keychain && !keychain::IS_HERE {
            let error = ConfigError::usage("only macOS has a keychain");
            return Err(error.hint("leave out --keychain: the secret goes into a file of mode 0600").into());
        }
        let program = self.program()?;
        let plan = Plan::new(&config, ServiceInputs { keychain: options.keychain, ..self.inputs.clone() })?;
        if !plan.changes().is_empty() && !options.yes {
            let changes: Vec<String> = plan.changes().iter().map(|change| foreign::line(change).into_owned()).collect();
            let changes = changes.join("\n    ");
            ask(
                &format!("{} would change:\n    {changes}\nChange it?", plan.file().display()),
                "--yes",
                "nothing was changed",
            )?;
        }
        self.prove(&config)?;
        for file in plan.carry_out(&config)? {
            say(&format!("Wrote {}", file.display()))?;
        }
        let way = self.manager.way(options.daemon);
        if options.linger {
            self.manager.enable_lingering()?;
        }
        let asked = Timestamp::now();
        let writes = config.written_directories();
        let started = self.set_up(&program, way, options.relaxed, &writes)?;
        // Whatever becomes of it, the passwords are renewed.
        let proxy = options.proxy.then(|| self.set_up_proxy(&program, options.relaxed, &writes));
        if let Some(original) = taken.to_retire() {
            self.manager.retire_original()?;
            say(&format!("Stopped and disabled {original}, the service of the Python tool"))?;
        }
        let unit = self.manager.state()?.map_or_else(String::new, |state| state.unit);
        let set_up = as_service(&self.inputs)?;
        taken.tell(&unit, &self.manager.logs(way), plan.file(), &set_up)?;
        if let Some(sentence) = what_an_upgrade_means(&program, &self.environment) {
            say(&sentence)?;
        }
        let shown = self.show(way, &started, asked);
        let reached = proxy.map_or(Ok(0), |proxy| self.tell_of_proxy(&proxy?));
        for advice in self.manager.advice(way, &MISSED, &self.environment, options.linger) {
            print::warning(&advice);
        }
        reached.and(shown)
    }

    /// Tries what the service will do before anything is written or enabled: what needs a person would only fail again there.
    fn prove(&self, config: &Config) -> Result<(), Failure> {
        let unchanged = |failure: Failure| {
            let hint = failure.hint.as_ref().map_or_else(String::new, |hint| format!("{hint}; "));
            failure.hint(format!("{hint}nothing was changed"))
        };
        if let Some(fault) = config.connections().iter().find_map(|connection| connection.outputs.faults().next()) {
            return Err(unchanged(fault));
        }
        for workspace in config.workspaces() {
            // Another user's login is not root's to use, nor are the programs that their configuration names.
            let without_programs = workspace.without_programs();
            let tried = match (self.scope, &without_programs) {
                (Scope::User, _) => workspace,
                (Scope::System, Some(workspace)) => workspace,
                (Scope::System, None) => continue,
            };
            match (self.try_sign_in)(tried, config) {
                Err(failure) if failure.is_transient() => {
                    print::warning(&format!("cannot sign in now, so the service will try again: {failure}"));
                }
                tried => tried.map_err(unchanged)?,
            }
        }
        // That it can be read.
        Rotation::new(config.clone()).snapshot().map(drop).map_err(unchanged)
    }

    /// What the service shall do: what is in its file, under what is given here and now.
    fn wanted_config(&self, overrides: &Overrides, environment: &Environment) -> Result<Config, ConfigError> {
        let place = Place::of_service(&self.inputs.config, None);
        // Only the service's own file counts, and the profiles of the user that it runs as.
        let not_its_own = ["DBX_ROTATOR_CONFIG", "CONFIGURATION_DIRECTORY", "XDG_CONFIG_HOME", "USER"];
        let environment = not_its_own.into_iter().fold(environment.clone(), Environment::without);
        let environment = environment.with("HOME", &self.account.home);
        let environment = environment.handing_over(self.inputs.handed_over());
        let overrides = Overrides { config: None, ..overrides.clone() };
        if place.is_there() {
            Config::load_at(place, environment, &overrides)
        } else {
            Config::load_in(environment, &overrides)
        }
    }

    /// The path of this program for a unit.
    fn program(&self) -> Result<PathBuf, Fault> {
        let program = own_program::find(&self.environment)?;
        let hidden = ["/root", "/home", "/tmp", "/var/tmp", "/run/user"];
        if self.scope == Scope::System && hidden.iter().any(|directory| program.starts_with(directory)) {
            let message = format!("a system unit cannot see {}", program.display());
            return Err(Failure::permanent(Code::Configuration, message).hint("install it into /usr/local/bin").into());
        }
        Ok(program)
    }

    fn set_up(&self, program: &Path, way: Way, relaxed: bool, writes: &[PathBuf]) -> Result<Started, Fault> {
        for file in self.manager.provide(program, way, relaxed, writes)? {
            say(&format!("Wrote {}", file.display()))?;
        }
        let started = self.manager.enable(way)?;
        say(&format!(
            "Enabled {}",
            self.manager.state()?.map_or_else(|| "the service".to_owned(), |state| state.unit)
        ))?;
        if relaxed || !self.lacks_namespaces(way, &started)? {
            return Ok(started);
        }
        let why = "This machine does not let users make user namespaces, which the unit's sandbox needs.";
        ask(&format!("{why}\nUse a sandbox without them?"), "--relaxed", "the service is enabled, and cannot start")?;
        self.set_up(program, way, true, writes)
    }

    fn lacks_namespaces(&self, way: Way, started: &Started) -> Result<bool, Failure> {
        let Started::Failed(_) = started else { return Ok(false) };
        Ok(self.manager.state()?.is_some_and(|state| state.kind == way && state.lacks_namespaces))
    }

    /// Shows the result of a start that was requested at `asked`; returns the exit code.
    fn show(&self, way: Way, started: &Started, asked: Timestamp) -> Result<u8, Fault> {
        let rotation = Rotation::new(as_service(&self.inputs)?);
        let seen = if *started == Started::Untold { Some(self.watch(&rotation, asked)?) } else { None };
        let started = seen.as_ref().unwrap_or(started);
        let all_live = status::print_table(&rotation, self.manager.state()?.as_ref())?;
        let journal = self.manager.logs(way);
        match started {
            Started::Well if all_live => say(&what_works(&rotation, &format!("Messages: {journal}"))?),
            Started::Well | Started::Failed(None) => {
                Err(Failure::transient(Code::Unavailable, "not every password is live yet").hint(journal).into())
            }
            Started::NotYet | Started::Untold => {
                let message = "the first rotation has not succeeded yet; it is tried again until it does";
                Err(Failure::transient(Code::TryAgain, message).hint(journal).into())
            }
            Started::Failed(Some(exit)) => {
                let code = Code::of_exit_code(*exit).unwrap_or(Code::Unavailable);
                let message = format!("the first rotation failed (exit code {exit})");
                Err(Failure::permanent(code, message).hint(journal).into())
            }
        }
    }

    /// For a manager that gets no status reports: checks until every password is live or needs a person, or the service has ended,
    /// or a rotation's time has passed.
    fn watch(&self, rotation: &Rotation, asked: Timestamp) -> Result<Started, Fault> {
        let (begun, mut looks) = (Instant::now(), 0_u32);
        while begun.elapsed() < PATIENCE {
            // Asking the manager costs more than reading two files.
            let state = if looks.is_multiple_of(LOOKS_PER_QUESTION) { self.manager.state()? } else { None };
            if let Some(ended) = state.filter(|state| !state.is_up() && state.last_result.is_some()) {
                return Ok(Started::Failed(ended.last_exit_code));
            }
            if status::is_settled(rotation, asked)? {
                return Ok(Started::Well);
            }
            std::thread::sleep(GLANCE);
            looks += 1;
        }
        Ok(Started::NotYet)
    }
}

fn try_sign_in(workspace: &Workspace, config: &Config) -> Result<(), Failure> {
    block_on_to_the_end(rotation::try_sign_in(workspace, config))?
}

/// What a person can do now: log in; and a last line.
pub(super) fn what_works(rotation: &Rotation, last: &str) -> Result<String, Failure> {
    const MOST: usize = 5;
    let snapshot = rotation.snapshot()?;
    let lines = snapshot.conninfos().take(MOST).map(|conninfo| format!("    psql {}\n", shell_word(&conninfo)));
    let lines: String = lines.collect();
    Ok(format!("This works now:\n{lines}{last}"))
}

/// What a service of the machine keeps alive for this user, and how that service stands.
///
/// # Errors
/// This is not root, or there is no such user or configuration.
pub(super) fn of_user(user: &str) -> Result<(Rotation, Option<State>), Fault> {
    if !identity::is_root() {
        let error = ConfigError::usage("only root may look at the service of another user");
        return Err(error.hint(format!("run `sudo dbx-rotator status --for {}`", shell_word(user))).into());
    }
    let account = Account::wanted(Some(user), &Environment::of_this_process())?;
    let manager = manager(Scope::System, &account)?;
    let inputs = inputs(Scope::System, &account, &*manager);
    if !inputs.config.exists() {
        let message =
            format!("no service of this machine keeps passwords for {user}: there is no {}", inputs.config.display());
        let hint = format!(
            "run `dbx-rotator service install --system --for {}`, or `dbx-rotator status` as {user}",
            shell_word(user)
        );
        return Err(ConfigError::new(message).hint(hint).into());
    }
    let config = as_service(&inputs)?;
    Ok((Rotation::new(config), manager.state()?))
}

/// The same fault for root, who has no configuration: with the users whose passwords services of this machine keep alive.
pub(super) fn hint_at_instances(error: ConfigError) -> ConfigError {
    let is_configuration = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "toml");
    let files = std::fs::read_dir(SYSTEM_DIRECTORY).into_iter().flatten().filter_map(|file| Some(file.ok()?.path()));
    let mut users: Vec<String> = files
        .filter(is_configuration)
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name != "config")
        .collect();
    users.sort();
    match users.first() {
        Some(first) if identity::is_root() => error.hint(format!(
            "services of this machine keep passwords for {}: run `dbx-rotator status --for {}`",
            users.join(", "),
            shell_word(first)
        )),
        _ => error,
    }
}

fn say(sentence: &str) -> Result<u8, Fault> {
    print::news(&format!("{sentence}\n"))?;
    Ok(0)
}

/// Asks a person; without one `option` would have been the answer. `otherwise` says how things stand after a no.
fn ask(question: &str, option: &str, otherwise: &str) -> Result<(), Fault> {
    let refused = |message: &str, hint: String| Err(ConfigError::list(message.lines()).of_usage().hint(hint).into());
    if !io::stdin().is_terminal() {
        let question = question.replace('\n', "\n  ");
        return refused(&question, format!("nobody is there to be asked: {option} says yes"));
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{question} [y/N] ").and_then(|()| io::stdin().lock().read_line(&mut answer));
    match (asked, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes" | "Yes") => Ok(()),
        _ => refused(otherwise, format!("{option} says yes beforehand")),
    }
}

#[cfg(test)]
mod tests;
