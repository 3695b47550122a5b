//! `dbx-rotator setup`: finds what there is, asks for the rest, and leaves a password that is kept alive.
//!
//! Invariant: nothing is written before the last question is answered.

mod first_login;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::arguments::{InstallOptions, SetupOptions, WhichManager};
use super::prompt::{Person, chosen, yes_or_no};
use super::{Fault, block_on_to_the_end, check, choose, connections, own_program, print, service};
use crate::config::{Config, ConfigError, Overrides, Place, profiles};
use crate::failure::Failure;
use crate::lakebase::Database;
use crate::os::dirs::Environment;
use crate::rotation::{Discovered, PATIENCE, RotateRequest, Rotation};
use crate::service::{Plan, ServiceInputs};
use crate::typed::shell_path;

/// What will renew the passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Renewal {
    Timer,
    Daemon,
    Nothing,
}

pub(super) fn run(options: &SetupOptions, overrides: &Overrides) -> Result<u8, Fault> {
    let person = Person::find(options.yes)?;
    let environment = Environment::of_this_process();
    if !options.no_service && service::is_possible() {
        own_program::check()?;
    }
    let own = environment.own_config_file();
    let named = named_elsewhere(options, overrides, &environment, &own)?;
    let file = named.unwrap_or(own);
    // It has been looked at, and it may not be there yet.
    let environment = environment.without("DBX_ROTATOR_CONFIG");
    let overrides = &Overrides { config: None, ..overrides.clone() };
    let place = Place::of_service(&file, None);
    if place.look()? {
        let shown = place.shown();
        say(&format!("{shown} exists already and is used as it is."))?;
        warn_of_idle(options, overrides);
        let renewal = renewal(options, person)?;
        let finished = finish(renewal, options, &file, Overrides::default());
        return finished.map_err(|fault| by_hand(fault, &file, &shown));
    }
    if overrides.pg_host.is_some() && !options.database.is_empty() {
        let error = ConfigError::usage("--pg-host and --database both say which database is meant");
        return Err(error.hint("leave out one of the two").into());
    }
    if let Some(renewal) = taken_over(options, overrides, person)? {
        return finish(renewal, options, &file, overrides.clone());
    }
    let overrides = with_workspace(overrides, &environment, person)?;
    let databases = databases(options, &overrides, &environment, person)?;
    let renewal = renewal(options, person)?;
    let (plan, config) = plan(&databases, &overrides, &environment, &file)?;
    let unit = match renewal {
        Renewal::Timer => " and let a timer renew the passwords",
        Renewal::Daemon => " and let a daemon renew the passwords",
        Renewal::Nothing => "",
    };
    let question = format!("Write {}{unit}?", file.display());
    let is_wanted = person.ask_for(&question, "yes", yes_or_no)?;
    if !is_wanted {
        return Err(ConfigError::usage("nothing was changed").into());
    }
    for written in plan.carry_out(&config)? {
        say(&format!("Wrote {}", written.display()))?;
    }
    finish(renewal, options, &file, Overrides::default())
}

/// The configuration that a person names in another place than setup's own. It must be there: setup writes its own and no other.
fn named_elsewhere(
    options: &SetupOptions,
    overrides: &Overrides,
    environment: &Environment,
    own: &Path,
) -> Result<Option<PathBuf>, ConfigError> {
    let named = overrides.named_config(environment).map(|named| std::path::absolute(&named).unwrap_or(named));
    let Some(named) = named.filter(|named| named != own) else { return Ok(None) };
    let (own, shown) = (own.display(), named.display());
    if !named.exists() {
        let error = ConfigError::usage(format!("there is no {shown}, and setup writes no other file than {own}"));
        return Err(error.hint(
            "leave out --config and DBX_ROTATOR_CONFIG; or make that file first: `dbx-rotator connections --toml`, without them, prints what to \
             put into it",
        ));
    }
    if !options.no_service && service::is_possible() {
        let error = ConfigError::usage(format!("a service reads {own}, not {shown}"));
        return Err(error.hint(
            "leave out --config and DBX_ROTATOR_CONFIG (a link from there to your file will do), or add --no-service to use that file without \
             a service",
        ));
    }
    Ok(Some(named))
}

/// Says which options have no effect, because the configuration that is there stays as it is.
fn warn_of_idle(options: &SetupOptions, overrides: &Overrides) {
    let mut idle = overrides.flags();
    idle.extend((!options.database.is_empty()).then_some("--database"));
    if !idle.is_empty() {
        let change = if idle.len() == 1 { "changes" } else { "change" };
        let idle = idle.join(", ");
        print::warning(&format!("{idle} {change} nothing in it: edit it, or move it away and run setup again"));
    }
}

/// The same where the configuration that is there lacks something: its hint must not lead back to `setup`.
fn by_hand(fault: Fault, file: &Path, shown: &str) -> Fault {
    let Fault::Config(error) = fault else { return fault };
    if !error.asks_for_setup() {
        return Fault::Config(error);
    }
    let config = Some(PathBuf::from(file)).filter(|file| file.exists());
    let is_own = Environment::of_this_process().own_config_file() == file;
    let named = if is_own { String::new() } else { format!(" --config {}", shell_path(file)) };
    let has_workspace = Config::load_workspaces(&Overrides { config, ..Overrides::default() }).is_ok();
    let workspace = if has_workspace { "" } else { " --workspace-url URL" };
    let hint = format!(
        "setup leaves {shown} as it is. Add what is missing there: `dbx-rotator connections --toml{workspace}{named}` prints the tables. \
         Or move it away, and run setup again"
    );
    Fault::Config(error.hint(hint))
}

fn say(sentence: &str) -> Result<(), Failure> {
    print::out(&print::line(sentence))
}

// ---- the Python tool ----

/// What shall renew the passwords, if a person wants the settings of the Python tool's service: then `service install` takes them over.
/// Whoever names a workspace or a database as an option wants something else; its users have the variables in their shells.
fn taken_over(options: &SetupOptions, overrides: &Overrides, person: Person) -> Result<Option<Renewal>, Fault> {
    let named = [&overrides.workspace_url, &overrides.profile, &overrides.pg_host];
    let is_named = named.iter().any(|option| option.is_some()) || !options.database.is_empty();
    if options.no_service || is_named {
        return Ok(None);
    }
    let Some(original) = service::original_in_service()? else { return Ok(None) };
    let file = original.file.display();
    say(&format!("The Python tool's service renews a password here: {} ({file}).", original.name))?;
    let question = "Take over its settings, and stop it?";
    if !person.ask_for(question, "yes", yes_or_no)? {
        return Ok(None);
    }
    let renewal = renewal(options, person)?;
    Ok(Some(renewal).filter(|renewal| *renewal != Renewal::Nothing))
}

// ---- the workspace ----

/// The settings with a workspace: the one that they name, or that a person chooses.
fn with_workspace(overrides: &Overrides, environment: &Environment, person: Person) -> Result<Overrides, Fault> {
    let is_named = overrides.workspace_url.is_some()
        || overrides.profile.is_some()
        || ["DATABRICKS_HOST", "DATABRICKS_CONFIG_PROFILE"].iter().any(|name| environment.get(name).is_some());
    if is_named {
        return Ok(overrides.clone());
    }
    let known = profiles(environment)?;
    let mut overrides = overrides.clone();
    if known.is_empty() && person == Person::SaidYes {
        let message = "no workspace is known here: neither DATABRICKS_HOST nor a profile in ~/.databrickscfg names one";
        let hint = "name it with --workspace-url, such as --workspace-url https://dbc-1234.cloud.databricks.com";
        return Err(ConfigError::usage(message).hint(hint).into());
    }
    if known.is_empty() {
        say("No workspace is known here: neither DATABRICKS_HOST nor a profile in ~/.databrickscfg names one.")?;
        let question = "Address of the workspace, such as dbc-1234.cloud.databricks.com";
        overrides.workspace_url = Some(person.ask_for(question, "", address)?);
        return Ok(overrides);
    }
    say("Workspaces in ~/.databrickscfg:")?;
    let rows = known.iter().enumerate();
    let rows: Vec<Vec<String>> = rows
        .map(|(index, profile)| vec![format!("  {}", index + 1), profile.name.clone(), profile.host.clone()])
        .collect();
    print::out(&print::table(&rows))?;
    let usual = if known.len() == 1 { "1" } else { "" };
    let choice = person.ask_for("Which of them? A number, a name, or another address", usual, |answer| {
        let names: Vec<&str> = known.iter().map(|profile| profile.name.as_str()).collect();
        match chosen(answer, &names).ok().as_deref() {
            Some([index]) => Ok(known.get(*index).map(|profile| profile.name.clone()).ok_or_else(|| answer.to_owned())),
            Some(_) => Err("give one of them".to_owned()),
            None if answer.contains('.') => address(answer).map(Err),
            None if answer.is_empty() => {
                Err("several workspaces are known: --profile NAME or --workspace-url URL says which".to_owned())
            }
            None => Err(format!("there is no profile `{answer}`")),
        }
    })?;
    match choice {
        Ok(profile) => overrides.profile = Some(profile),
        Err(address) => overrides.workspace_url = Some(address),
    }
    Ok(overrides)
}

fn address(answer: &str) -> Result<String, String> {
    crate::model::WorkspaceHost::parse(answer).map(|host| host.origin().to_owned())
}

// ---- the databases ----

/// Which `[[connection]]` there shall be, as text; none where the options name the database.
fn databases(
    options: &SetupOptions,
    overrides: &Overrides,
    environment: &Environment,
    person: Person,
) -> Result<String, Fault> {
    if overrides.pg_host.is_some() {
        return Ok(String::new());
    }
    let config = Config::load_workspaces_in(environment.clone(), overrides)?;
    let see = || -> Result<connections::Seen<'_>, Fault> {
        let first = connections::see(&config)?.into_iter().next();
        first.ok_or_else(|| ConfigError::new("no workspace is configured").into())
    };
    let (mut workspace, mut result) = see()?;
    if let Err(failure) = result {
        first_login::offer(&config, workspace, failure, person)?;
        (workspace, result) = see()?;
    }
    let Discovered { user, databases } = result?;
    let user = user.unwrap_or_else(|| "this identity".to_owned());
    say(&format!("Signed in to {} as {user}.", workspace.host()))?;
    if databases.is_empty() {
        let message = format!("{user} sees no database in {}", workspace.host());
        let hint = "let an administrator give it CAN USE on one, or name one with --pg-host HOST";
        return Err(ConfigError::new(message).hint(hint).into());
    }
    let names: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
    let wanted = if options.database.is_empty() {
        list(&databases)?;
        let usual = if databases.len() == 1 { "1" } else { "all" };
        person.ask_for("Which of them? Numbers or names with commas between them", usual, |answer| {
            chosen(answer, &names)
        })?
    } else {
        chosen(&options.database.join(","), &names)
            .map_err(|why| ConfigError::usage(why).hint(format!("the databases there are: {}", choose::few(&names))))?
    };
    let by_number = options.database.is_empty() && person == Person::AtTerminal;
    let others = if by_number { "choose the others by their numbers" } else { "name the others with --database" };
    Ok(connections::sections_for(wanted.iter().filter_map(|index| databases.get(*index)), others)?)
}

fn list(databases: &[Database]) -> Result<(), Failure> {
    say("Databases:")?;
    let row = |(index, database): (usize, &Database)| {
        let host = database.found.host.clone().unwrap_or_else(|| "no host yet".to_owned());
        vec![format!("  {}", index + 1), database.name.clone(), database.found.state.word().to_owned(), host]
    };
    print::out(&print::table(&databases.iter().enumerate().map(row).collect::<Vec<_>>()))
}

// ---- what renews them ----

fn renewal(options: &SetupOptions, person: Person) -> Result<Renewal, Fault> {
    if options.no_service {
        return Ok(Renewal::Nothing);
    }
    if !service::is_possible() {
        say("No service manager runs here for you: `dbx-rotator run` renews the passwords for as long as it runs.")?;
        return Ok(Renewal::Nothing);
    }
    if options.daemon || cfg!(target_os = "macos") {
        return Ok(Renewal::Daemon);
    }
    if person == Person::AtTerminal {
        print::out(
            "What shall renew the passwords?\n  \
               1  a timer: runs every ten minutes, and ends at once when nothing is due\n  \
               2  a daemon: stays, and renews to the second\n  \
               3  nothing: you run `dbx-rotator rotate` yourself\n",
        )?;
    }
    person.ask_for("Which?", "1", |answer| match answer {
        "1" | "timer" => Ok(Renewal::Timer),
        "2" | "daemon" => Ok(Renewal::Daemon),
        "3" | "nothing" => Ok(Renewal::Nothing),
        _ => Err("give 1, 2 or 3".to_owned()),
    })
}

// ---- what is written ----

/// What will be written, with the configuration that it will be; nothing is, yet.
fn plan(
    connections: &str,
    overrides: &Overrides,
    environment: &Environment,
    file: &Path,
) -> Result<(Plan, Config), Fault> {
    let mut text = Plan::HEAD.to_owned();
    // Writing to a String cannot fail.
    let _ = write!(text, "# All settings: man dbx-rotator.toml\n\n{connections}");
    let draft = tempfile::NamedTempFile::new().and_then(|draft| std::fs::write(draft.path(), &text).map(|()| draft));
    let draft = draft.map_err(|error| {
        Failure::permanent(
            crate::Code::CannotWrite,
            format!("cannot write a temporary file: {}", crate::words::of_io(&error)),
        )
        .hint("see TMPDIR and the space that is left there")
    })?;
    let place = Place::of_service(file, Some(draft.path()));
    let config = Config::load_at(place, environment.clone(), overrides)?;
    let inputs = ServiceInputs {
        config: file.to_owned(),
        credential: None,
        environment: without_settings(environment),
        keychain: false,
    };
    Ok((Plan::of_text(&text, &config, inputs)?, config))
}

/// What a service sees of an environment: nothing that is a setting.
fn without_settings(environment: &Environment) -> Environment {
    let kept = ["HOME", "PATH", "USER", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    kept.into_iter().filter_map(|name| Some((name, environment.get_os(name)?.clone()))).collect()
}

/// Sets up what renews the passwords, rotates, and logs in to prove it. A service gets `given` into its configuration.
fn finish(renewal: Renewal, options: &SetupOptions, file: &Path, given: Overrides) -> Result<u8, Fault> {
    if renewal != Renewal::Nothing {
        let which = WhichManager { system: false, user: None };
        let daemon = renewal == Renewal::Daemon;
        let (linger, yes) = (options.linger, true);
        let install = InstallOptions {
            which,
            daemon,
            proxy: false,
            linger,
            relaxed: options.relaxed,
            keychain: false,
            yes,
            as_original: false,
        };
        let code = service::install(&install, &Overrides { config: Some(file.to_owned()), ..given })?;
        if code != 0 {
            return Ok(code);
        }
    }
    let config = Some(PathBuf::from(file)).filter(|file| file.exists());
    let rotation = Rotation::new(Config::load(&Overrides { config, ..Overrides::default() })?);
    if renewal == Renewal::Nothing {
        let request = RotateRequest::All { since: Timestamp::now() };
        let report = block_on_to_the_end(rotation.rotate(&request, None, PATIENCE))?;
        if !report.succeeded() {
            return Ok(report.exit_code());
        }
        print::out(&format!("{}\n", service::what_works(&rotation, "`dbx-rotator rotate` renews the passwords")?))?;
    }
    check::run(&rotation, true, false)
}
