//! `dbx-rotator exec`: a program with a live password, in place of this process.
//!
//! The program replaces this process (execve(2)): signals, terminal, standard input and exit code are its own, and nothing of ours
//! stays in memory. Locks and files of ours close at that moment, signal handlers become the default. Only the limit on core dumps
//! is inherited, so it is put back.

use std::ffi::{OsStr, OsString};
use std::io::{Error, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::arguments::ExecOptions;
use super::{Fault, block_on_to_the_end, choose, print};
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::logging;
use crate::model::uri::Login;
use crate::model::{Connection, SslMode};
use crate::os::core_dumps;
use crate::os::dirs::Environment;
use crate::rotation::{PATIENCE, RotateRequest, Rotation};

/// Exit codes of POSIX shells ("Exit Status for Commands"): the program was found and cannot be executed, or was not found.
pub(super) const CANNOT_EXECUTE: u8 = 126;
pub(super) const NOT_FOUND: u8 = 127;

/// How long the renewal of a password that still lives may hold up the program. A sign-in through the vendor's CLI takes a few seconds.
const RENEWAL_WAIT: Duration = Duration::from_secs(10);

/// They would lead libpq to another server than `PGHOST` does, with this password.
const OTHER_SERVERS: [&str; 2] = ["PGHOSTADDR", "PGSERVICE"];

pub(super) fn run(options: &ExecOptions, rotation: &Rotation) -> Result<u8, Fault> {
    let index = choose::one(rotation, options.connection.as_deref())?;
    let database = live_database(rotation, index)?;
    let variables = database.variables(options.password_env, options.url);
    Ok(replace_this_process(&options.command, variables))
}

// ---- the password ----

/// The database with a password that lives; renewed before where that was due.
fn live_database(rotation: &Rotation, index: usize) -> Result<Database, Failure> {
    let failure = renew(rotation, index)?;
    let snapshot = rotation.snapshot()?;
    let connection = &snapshot.connections()[index];
    let status = &snapshot.statuses[index];
    let live = status.left_to_clients().zip(status.token.as_ref());
    let (Some((left, token)), Some(database)) = (live, Database::of(rotation.config(), connection)) else {
        let none = || Failure::transient(Code::Unavailable, format!("{} has no live password", connection.name()));
        return Err(failure.unwrap_or_else(none));
    };
    if let Some(failure) = failure {
        let (name, left) = (connection.name(), print::duration(left));
        print::warning(&format!("{name}: not renewed, and the present password lives {left} more: {failure}"));
    }
    Ok(Database { password: token.password.clone(), ..database })
}

/// Renews the password where it is due, as `rotate --if-due` does; returns why that failed.
fn renew(rotation: &Rotation, index: usize) -> Result<Option<Failure>, Failure> {
    let (request, only) = (RotateRequest::DueBeforeNextRun, [index]);
    if rotation.nothing_to_do(&request, Some(&only)).is_some() {
        return Ok(None);
    }
    // An outage must not hold up a program again and again while the password lives: then there is one try.
    let is_live = rotation.snapshot()?.statuses[index].left_to_clients().is_some();
    let (wait, patience) = if is_live { (RENEWAL_WAIT, Duration::ZERO) } else { (Duration::MAX, PATIENCE) };
    let renewal = async {
        let report = rotation.rotate(&request, Some(&only), patience).await;
        rotation.settle(&RotateRequest::Due).await;
        report.failure_of(index).cloned()
    };
    let late = |_| {
        let message = format!("the workspace did not answer within {} s", wait.as_secs());
        Some(Failure::transient(Code::TryAgain, message))
    };
    // What is left running would be a child of a program that knows nothing of it.
    block_on_to_the_end(async { tokio::time::timeout(wait, renewal).await.unwrap_or_else(late) })
}

// ---- what the program is told ----

/// Where the program is to log in, and with what.
struct Database {
    host: String,
    port: u16,
    user: String,
    name: String,
    /// None where what the environment says is stricter than what the connection asks for.
    sslmode: Option<SslMode>,
    sslrootcert: Option<String>,
    /// None where libpq finds it without being told.
    password_file: Option<PathBuf>,
    password: SecretString,
    environment: Environment,
}

/// A variable, and its value; none where it must not be set.
type Variable = (OsString, Option<OsString>);

impl Database {
    /// None before its host and its user have been found. The password is still to be filled in.
    fn of(config: &Config, connection: &Connection) -> Option<Self> {
        let key = connection.key()?;
        let environment = &config.environment;
        Some(Database {
            host: key.host().to_owned(),
            port: key.port(),
            user: key.user().to_owned(),
            name: connection.login_database().to_owned(),
            sslmode: config.sslmode_for_client(connection),
            sslrootcert: config.root_for_libpq(connection),
            password_file: config.password_file_for_libpq(),
            password: SecretString::default(),
            environment: environment.clone(),
        })
    }

    fn variables(&self, password_env: bool, url: bool) -> Vec<Variable> {
        // Secrets that sign in: the program gets the password of one database, and nothing that is worth more.
        let secrets = self.environment.names_of_secrets().cloned();
        let not_set = secrets.chain(OTHER_SERVERS.map(OsString::from));
        let mut variables: Vec<Variable> = not_set.map(|name| (name, None)).collect();
        let password = || OsString::from(self.password.expose_secret());
        let known = [
            ("PGHOST", Some(self.host.clone().into())),
            ("PGPORT", Some(self.port.to_string().into())),
            ("PGUSER", Some(self.user.clone().into())),
            ("PGDATABASE", Some(self.name.clone().into())),
            ("PGPASSFILE", self.password_file.clone().map(OsString::from)),
            ("PGPASSWORD", password_env.then(password)),
        ];
        variables.extend(known.map(|(name, value)| (name.into(), value)));
        variables.extend(self.sslmode.map(|mode| ("PGSSLMODE".into(), Some(mode.as_str().into()))));
        if let Some(root) = &self.sslrootcert {
            variables.push(("PGSSLROOTCERT".into(), Some(root.into())));
        } else if self.root_of_environment().is_none() {
            variables.push(("PGSSLROOTCERT".into(), None));
        }
        variables.extend(url.then(|| ("DATABASE_URL".into(), Some(OsString::from(self.url().as_str())))));
        variables
    }

    /// The certificates that the environment names. libpq refuses `system` beside a mode that does not verify the host.
    fn root_of_environment(&self) -> Option<&str> {
        let root = self.environment.get("PGSSLROOTCERT")?;
        (self.sslmode.is_none_or(|mode| mode == SslMode::VerifyFull) || root != "system").then_some(root)
    }

    /// A connection URI, with the password.
    fn url(&self) -> Zeroizing<String> {
        let mode = self.sslmode.map(SslMode::as_str).or_else(|| self.environment.get("PGSSLMODE"));
        Login {
            host: &self.host,
            port: self.port,
            database: &self.name,
            user: &self.user,
            password: self.password.expose_secret(),
            sslmode: mode.unwrap_or(SslMode::Require.as_str()),
            sslrootcert: self.sslrootcert.as_deref().or_else(|| self.root_of_environment()),
        }
        .uri()
    }
}

// ---- the program ----

/// Becomes the program; returns, with the exit code, only where that fails.
fn replace_this_process(command: &[OsString], variables: Vec<Variable>) -> u8 {
    let Some((program, arguments)) = command.split_first() else { return NOT_FOUND };
    let mut command = Command::new(program);
    command.args(arguments);
    for (name, value) in variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    logging::journal::settle();
    core_dumps::allow_again();
    // It empties the mask of signals and makes SIGPIPE the default again, which Rust ignores.
    let error = command.exec();
    core_dumps::forbid();
    refused(program, &error)
}

/// Says why the program could not be run.
fn refused(program: &OsStr, error: &Error) -> u8 {
    let name = program.display();
    if error.kind() != ErrorKind::NotFound {
        print::error(
            &format!("cannot run {name}: {}", crate::words::of_io(error)),
            Some("check that it is a program, and that you may execute it"),
        );
        return CANNOT_EXECUTE;
    }
    let hint = if program.to_string_lossy().contains(' ') {
        "write the program and its arguments as words of their own, without quotes around all of them"
    } else {
        "check how it is spelled, and that it is on PATH"
    };
    print::error(&format!("cannot run {name}: there is no such program"), Some(hint));
    NOT_FOUND
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(variables: &[(&str, &str)]) -> Database {
        Database {
            host: "db.example".to_owned(),
            port: 5432,
            user: "ada@example.com".to_owned(),
            name: "a/b ü".to_owned(),
            sslmode: Some(SslMode::Require),
            sslrootcert: None,
            password_file: None,
            password: SecretString::from("p:w%/@?#&="),
            environment: variables.iter().copied().collect(),
        }
    }

    fn value<'a>(variables: &'a [Variable], name: &str) -> Option<&'a Option<OsString>> {
        variables.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    #[test]
    fn the_password_is_in_the_environment_only_where_that_was_asked_for() {
        let holds = |password_env, url| {
            let variables = database(&[]).variables(password_env, url);
            ["PGPASSWORD", "DATABASE_URL"].map(|name| value(&variables, name).is_some_and(Option::is_some))
        };
        assert_eq!(holds(false, false), [false, false]);
        assert_eq!(holds(true, false), [true, false]);
        assert_eq!(holds(false, true), [false, true]);
        for name in ["PGPASSWORD", "PGHOSTADDR", "PGSERVICE"] {
            assert_eq!(value(&database(&[]).variables(false, true), name), Some(&None), "{name}");
        }
    }

    #[test]
    fn no_secret_that_signs_in_is_handed_on() {
        let secrets = [
            "DATABRICKS_CLIENT_SECRET",
            "DATABRICKS_TOKEN",
            "DATABRICKS_OIDC_TOKEN",
            "DATABRICKS_METADATA_SERVICE_URL",
            "ARM_CLIENT_SECRET",
            "GOOGLE_CREDENTIALS",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
            "SYSTEM_ACCESSTOKEN",
            "IDENTITY_HEADER",
            "DATABRICKS_PASSWORD",
            "NAMED_BY_ANOTHER",
        ];
        let mut all: Vec<(&str, &str)> = secrets.iter().map(|name| (*name, "s3cret")).collect();
        all.extend([("DATABRICKS_OIDC_TOKEN_ENV", "NAMED_BY_ANOTHER"), ("MINE", "kept")]);
        let variables = database(&all).variables(false, false);
        for name in secrets {
            assert_eq!(value(&variables, name), Some(&None), "{name}");
        }
        assert_eq!(value(&variables, "MINE"), None, "as it is");
    }

    #[test]
    fn tls_is_never_weaker_than_the_environment_asks_for() {
        let root = |mode, inherited: &[(&str, &str)]| {
            let database = Database { sslmode: mode, ..database(inherited) };
            let variables = database.variables(false, false);
            let [mode, root] = ["PGSSLMODE", "PGSSLROOTCERT"].map(|name| value(&variables, name).cloned());
            (mode.map(|mode| mode.unwrap()), root.is_none(), database.url().split_once('?').unwrap().1.to_owned())
        };
        let strict = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", "system")];
        assert_eq!(root(None, &strict), (None, true, "sslmode=verify-full&sslrootcert=system".to_owned()));
        let require = Some(SslMode::Require);
        let told = Some(OsString::from("require"));
        assert_eq!(root(require, &[("PGSSLROOTCERT", "system")]), (told.clone(), false, "sslmode=require".to_owned()));
        let own = "sslmode=require&sslrootcert=%2Fx".to_owned();
        assert_eq!(root(require, &[("PGSSLROOTCERT", "/x")]), (told, true, own));
    }
}
