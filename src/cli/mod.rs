//! What a person types and sees. One file for each subcommand.
//!
//! stdout carries only what was asked for; messages go to stderr. Errors are printed only here.

mod arguments;
mod check;
mod choose;
mod completions;
mod config;
mod connections;
mod exec;
mod exit_codes;
mod finding;
mod handed_over;
mod local_proxy;
mod login;
mod mistakes;
mod names;
mod needs;
mod old_help;
mod outlook;
mod own_program;
mod power;
mod print;
mod prometheus;
mod prompt;
mod proxy;
mod rotate;
mod run;
mod screen;
mod service;
mod service_inputs;
mod setup;
mod signalled;
mod status;
mod take_over;
mod token;
mod values;

use std::ffi::OsString;
use std::future::Future;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use clap::error::ErrorKind;
use tracing::level_filters::LevelFilter;

use crate::config::{Config, ConfigError, Overrides};
use crate::failure::{Code, Failure, Kind};
use crate::logging::{self, Form};
use crate::os::child::{LAST_WAIT, finish_all};
use crate::os::dirs::Environment;
use crate::os::{core_dumps, launchd, signals};
use crate::rotation::Rotation;
use crate::words;
pub use arguments::command;
use arguments::{Arguments, Command, RotateOptions, ServiceCommand, StatusOptions};
pub use exit_codes::{EXIT_CODES, ExitCode as DocumentedExitCode};
use names::Name;
use outlook::Whose;

/// EX_USAGE of sysexits.h.
const USAGE: u8 = 64;

/// EX_OSERR of sysexits.h is not one of our exit codes; a machine without resources for a runtime counts as
/// unavailable.
const NO_RUNTIME: Code = Code::Unavailable;

/// Why a command ends without an exit code of its own.
enum Fault {
    Config(ConfigError),
    Failure(Failure),
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Fault::Config(error)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Fault::Failure(failure)
    }
}

/// The program, from the command line to the exit code.
pub fn main() -> ExitCode {
    core_dumps::forbid();
    logging::panics::end_the_process();
    signals::let_writes_fail();
    signals::end_the_first_process_too();
    let mut words = std::env::args_os();
    let name = Name::of(words.next());
    let code = name.exit_code(run_as(name, words));
    logging::journal::settle();
    ExitCode::from(code)
}

fn run_as(name: Name, words: impl Iterator<Item = OsString>) -> u8 {
    let words: Vec<OsString> = words.collect();
    if let Some(names) = completions::names_asked_for(&words) {
        let _ = print::out(&names);
        return 0;
    }
    let known = Arguments::of_service(&words).filter(|_| name == Name::Own);
    let arguments = match known.map_or_else(|| Arguments::try_parse_from(name.words(words.into_iter())), Ok) {
        Ok(arguments) => {
            arguments.overrides.client_secret.iter().for_each(crate::foreign::secrets::keep);
            if arguments.quiet {
                print::be_quiet();
            }
            arguments
        }
        Err(error) => return not_understood(&error, name),
    };
    let is_proxy = matches!(arguments.command, Some(Command::Proxy));
    let (failure, code) = match dispatch(arguments, name) {
        Ok(code) => return code,
        Err(Fault::Config(error)) => {
            complain(&error.sentence(), None, Code::Configuration, Kind::Permanent, || print::fault(&error));
            let code = error.exit_code();
            (error.into(), code)
        }
        Err(Fault::Failure(failure)) => {
            let (message, hint) = (&failure.message, failure.hint.as_deref());
            complain(message, hint, failure.code, failure.kind, || print::error(message, hint));
            let code = failure.code.exit_code();
            (failure, code)
        }
    };
    if is_proxy {
        proxy::turn_away(&failure);
    }
    code
}

/// Prints the help that was asked for, or what is wrong with the command line.
fn not_understood(error: &clap::Error, name: Name) -> u8 {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let typed: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let fit = || values::explain(error, &typed).filter(|_| name == Name::Own);
    let printed = match (mistakes::explain(error, &typed).or_else(fit), name.explains(error)) {
        (Some(mistakes::Explained { message, hint }), _) => {
            print::error(&message, Some(&hint));
            Ok(())
        }
        (None, Some(page)) => print::page(&page, asked_for),
        (None, None) => print::usage(error),
    };
    match printed {
        Err(failure) => {
            print::error(&failure.message, None);
            failure.code.exit_code()
        }
        Ok(()) if asked_for => 0,
        Ok(()) => USAGE,
    }
}

/// Reports why a command ends: in the journal, with the fields that it uses, or on stderr with `print`.
fn complain(message: &str, hint: Option<&str>, code: Code, kind: Kind, print: impl FnOnce()) {
    if logging::journal::is_connected() {
        // It may have ended before logging was started.
        let _ = logging::start(LevelFilter::INFO, Form::Log, None);
        logging::announce::refused(message, hint, code, kind);
    } else {
        print();
    }
}

fn dispatch(mut arguments: Arguments, name: Name) -> Result<u8, Fault> {
    if arguments.once && arguments.command.is_some() {
        let error = ConfigError::usage("--once is a command of its own: the same as `rotate`");
        return Err(error.hint("leave out one of the two").into());
    }
    let mut command = arguments.command.take().unwrap_or_else(|| arguments.implied_command());
    if let Command::Service { command: ServiceCommand::Install(options) } = &mut command {
        options.as_original = name == Name::Install;
    }
    let form = form(&command, name);
    arguments.overrides = arguments.overrides.expanded(&Environment::of_this_process())?;
    // Before there is a second thread, and before anything of a home is read.
    let other_user = power::leave_root(&command, &arguments.overrides)?;
    if let Some(done) = without_rotation(&command, &arguments, form)? {
        return Ok(done);
    }
    arguments.overrides.log_file = arguments.overrides.log_file.take().or_else(|| name.log_file());
    let load = if matches!(command, Command::Run | Command::Proxy) { Config::load_for_service } else { Config::load };
    let mut loaded = load(&arguments.overrides);
    if let Some(interval) = name.interval().filter(|_| loaded.as_ref().is_ok_and(|config| config.interval.is_none())) {
        arguments.overrides.interval = Some(interval);
        loaded = load(&arguments.overrides);
    }
    let config = match loaded {
        Err(error) if matches!(command, Command::Run | Command::Proxy) && awaits_configuration(&error) => {
            run::configuration(&arguments.overrides, &error)?
        }
        Err(error) if matches!(command, Command::Status(_)) => return Err(service::hint_at_instances(error).into()),
        loaded => loaded?,
    };
    let log_file =
        matches!(command, Command::Rotate(_) | Command::Run | Command::Proxy).then(|| config.log_file()).flatten();
    logging::start(arguments.level(&command), form, log_file)?;
    if let Some(sentence) = other_user {
        match command {
            // The program will be that user's, too.
            Command::Exec(_) => print::warning(&sentence),
            _ => tracing::info!("{sentence}"),
        }
    }
    for warning in config.warnings() {
        match command {
            Command::Token(_) | Command::Exec(_) => print::warning(warning),
            _ => tracing::warn!("{warning}"),
        }
    }
    with_rotation(&command, Rotation::new(config), arguments, form)
}

/// The commands that read of the configuration what they need, if this is one of them.
fn without_rotation(command: &Command, arguments: &Arguments, form: Form) -> Result<Option<u8>, Fault> {
    let overrides = &arguments.overrides;
    let start = || logging::start(arguments.level(command), form, None);
    let done = match command {
        Command::Config { command } => config::run(command, overrides),
        Command::Completions { shell } => completions::run(*shell),
        Command::Connections { json, toml } => {
            start()?;
            connections::run(connections::Form::of(*json, *toml), overrides)
        }
        Command::Service { command: service } => {
            start()?;
            service::run(service, overrides)
        }
        Command::Setup(options) => {
            start()?;
            setup::run(options, overrides)
        }
        Command::Login(options) => {
            start()?;
            login::login(options, overrides)
        }
        Command::Logout { workspace } => {
            start()?;
            login::logout(workspace.as_deref(), overrides)
        }
        Command::Status(StatusOptions { alive: Some(what), .. }) => {
            // A configuration that has become unusable is no reason to end who goes on with the old one.
            start()?;
            status::alive(*what, &Environment::of_this_process().state_dir())
        }
        Command::Status(options @ StatusOptions { user: Some(user), .. }) => {
            start()?;
            status_of_user(options, user)
        }
        _ => return Ok(None),
    };
    done.map(Some)
}

/// What another user's service does, for root.
fn status_of_user(options: &StatusOptions, user: &str) -> Result<u8, Fault> {
    let whose = Whose::User(user.to_owned());
    if options.watch {
        let user = user.to_owned();
        return status::watch::run(options, Arc::new(move || service::of_user(&user)), whose);
    }
    let (rotation, state) = service::of_user(user)?;
    status::run(options, &rotation, state.as_ref(), &whose)
}

/// The commands that need the whole configuration.
fn with_rotation(command: &Command, rotation: Rotation, arguments: Arguments, form: Form) -> Result<u8, Fault> {
    match command {
        Command::Rotate(options) => {
            let is_told = form == Form::Person && !arguments.quiet;
            rotate::run(options, &rotation, is_told)
        }
        Command::Run => run::run(rotation, &arguments.overrides),
        Command::Proxy => proxy::run(rotation.config().clone(), &arguments.overrides),
        Command::Status(options) if options.watch => {
            let overrides = arguments.overrides;
            status::watch::run(options, Arc::new(move || seen_from_here(&overrides)), Whose::Shell)
        }
        Command::Status(options) => {
            let service = crate::service::look(&rotation.config().environment);
            status::run(options, &rotation, service.as_ref(), &Whose::Shell)
        }
        Command::Token(options) => token::run(options, &rotation),
        Command::Exec(options) => exec::run(options, &rotation),
        Command::Check { connect, json } => check::run(&rotation, *connect, *json),
        // Done without one.
        Command::Config { .. }
        | Command::Login(_)
        | Command::Logout { .. }
        | Command::Setup(_)
        | Command::Connections { .. }
        | Command::Service { .. }
        | Command::Completions { .. } => Ok(0),
    }
}

/// What `status` looks at: the configuration of this shell, and the service of this user.
fn seen_from_here(overrides: &Overrides) -> Result<status::watch::Shown, Fault> {
    let rotation = Rotation::new(Config::load(overrides)?);
    let service = crate::service::look(&rotation.config().environment);
    Ok((rotation, service))
}

/// A rotation reports each step to whoever keeps what it says: a service, a file, a pipe, and, on stdout, users of the original's
/// names.
fn form(command: &Command, name: Name) -> Form {
    match command {
        // Not among what a program reads; the original had none of these.
        Command::Status(StatusOptions { json: true, .. } | StatusOptions { prometheus: true, .. })
        | Command::Rotate(RotateOptions { json: true, .. })
        | Command::Token(_)
        | Command::Exec(_)
            if name != Name::Own =>
        {
            Form::Log
        }
        _ if name != Name::Own => Form::LogOnStdout,
        Command::Run | Command::Proxy => Form::Log,
        Command::Rotate(_) if !std::io::stderr().is_terminal() => Form::Log,
        _ => Form::Person,
    }
}

/// launchd starts what has ended again and again, whatever it ended with; it has no ConditionPathExists= and no exit code that means
/// "do not bother" (launchd.plist(5)). So under launchd what a person must mend is waited for.
fn awaits_configuration(error: &ConfigError) -> bool {
    launchd::runs_this(&Environment::of_this_process()) && error.exit_code() != USAGE
}

/// Runs a future, and then waits for the children that it started and left: a refresh of the vendor's CLI, a hook.
fn block_on_to_the_end<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    block_on(async {
        let result = future.await;
        finish_all(LAST_WAIT).await;
        result
    })
}

/// Runs a future on a runtime with one thread. Tasks that are still running then are dropped.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let mut result = None;
    drive(std::pin::pin!(async { result = Some(future.await) }))?;
    result.ok_or_else(|| cannot_start("it ended at once"))
}

fn cannot_start(why: &str) -> Failure {
    Failure::transient(NO_RUNTIME, format!("cannot start: {why}")).hint("see `ulimit -n` and free memory")
}

/// Does the work of [`block_on`], once for futures of all kinds.
fn drive(future: std::pin::Pin<&mut dyn Future<Output = ()>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // For libraries alone: what blocks of ours has threads of its own.
        .max_blocking_threads(4)
        .thread_keep_alive(std::time::Duration::from_millis(100))
        .build()
        .map_err(|error| cannot_start(&words::of_io(&error)))?;
    runtime.block_on(future);
    runtime.shutdown_background();
    Ok(())
}
