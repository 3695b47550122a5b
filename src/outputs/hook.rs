//! The programs that are told of a rotation, or that a login is needed: finds them, runs them, and describes their failure.

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::{Rotated, nameable};
use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::model::Outputs;
use crate::os::ancestors;
use crate::os::child::{self, Ran, candidates, is_executable};
use crate::os::dirs::Environment;
use crate::words;

/// Long enough to tell a connection pool or a service; the connection's next rotation waits for it.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// Set for the program and all that it starts. A rotation that finds it set runs no programs; otherwise a program that rotates
/// would start itself without end.
const INSIDE: &str = "DBX_ROTATOR_HOOK";

/// Whether this process runs inside such a program. The real environment is checked too, since an application may hide it from
/// the library; so are the parents, since a program on the way may have dropped the variable.
pub(crate) fn is_inside(environment: &Environment) -> bool {
    environment.get_os(INSIDE).is_some()
        || std::env::var_os(INSIDE).is_some_and(|value| !value.is_empty())
        || ancestors::run_this_program()
}

/// Variables that would send libpq elsewhere than this rotation's, or that belong to another rotation.
const DIVERTING: [&str; 4] = ["PGSERVICE", "PGHOSTADDR", "DBX_ROTATOR_TOKEN_FILE", "DBX_ROTATOR_ENV_FILE"];

/// Runs it until it ends or `over` is ready; then its whole group gets SIGTERM, and SIGKILL if that is not enough. It goes on
/// even if nobody waits for it any more.
pub(super) async fn run(
    command: &[String],
    outputs: &Outputs,
    about: &Rotated<'_>,
    environment: &Environment,
    over: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    tracing::debug!("running {} for the connection {}", command.join(" "), about.connection);
    let what = format!("on_rotate of {}", about.connection);
    start("on_rotate", &what, command, variables(outputs, about), environment, over).await
}

/// What a program is told where a login is needed.
pub(crate) struct Notice {
    /// The workspace's name, and its address.
    pub(crate) workspace: String,
    pub(crate) host: String,
    /// One line each, without secrets: what has happened, and what to do.
    pub(crate) message: String,
    pub(crate) hint: String,
}

/// Runs the program that tells a person that a login is needed: as [`super::Outputs::run_hook`], but told by `DBX_ROTATOR_WORKSPACE`,
/// `DBX_ROTATOR_HOST`, `DBX_ROTATOR_MESSAGE` and `DBX_ROTATOR_HINT`.
///
/// # Errors
/// As there.
pub(crate) async fn notify(command: &[String], notice: &Notice, environment: &Environment) -> Result<(), Failure> {
    let told = vec![
        (INSIDE, "1".into()),
        ("DBX_ROTATOR_WORKSPACE", (&notice.workspace).into()),
        ("DBX_ROTATOR_HOST", (&notice.host).into()),
        ("DBX_ROTATOR_MESSAGE", (&notice.message).into()),
        ("DBX_ROTATOR_HINT", (&notice.hint).into()),
    ];
    let over = tokio::time::sleep(LIMIT);
    start("notify_command", "notify_command", command, told, environment, over).await
}

/// Runs the program of a setting; `what` is what it is called in a failure.
async fn start(
    setting: &str,
    what: &str,
    command: &[String],
    told: Vec<(&'static str, OsString)>,
    environment: &Environment,
    over: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    let (name, arguments) = command.split_first().ok_or_else(|| no_program(&format!("{setting} names no program")))?;
    let program = find(setting, name, environment)?;
    let inherited = child::inherited(environment, &[]).into_iter();
    let inherited = inherited.filter(|(name, _)| !DIVERTING.iter().any(|diverting| name == diverting));
    let mut child = Command::new(&program);
    child.args(arguments).env_clear().envs(inherited).envs(told);
    let said = |how: &dyn std::fmt::Display| format!("{what}: {} {how}", program.display());
    match child::run(child, over).await {
        Ok(Some(ran)) if ran.status.success() => Ok(()),
        Ok(Some(ran)) => {
            let message = said(&format_args!("ended with {}{}", words::of_end(ran.status), last_words(&ran)));
            Err(Failure::transient(Code::Unavailable, message).hint(
                "run it by hand with the same DBX_ROTATOR_ and PG variables; in a systemd unit it may do and write no more \
                 than the unit may (ReadWritePaths=, `systemctl --user edit`)",
            ))
        }
        Ok(None) => {
            let message = said(&format_args!("did not finish within {} s and was ended", LIMIT.as_secs()));
            Err(Failure::transient(Code::Unavailable, message).hint(
                "let it leave what takes long to something else, such as `systemctl --user start --no-block UNIT`",
            ))
        }
        Err(error) => Err(cannot_start(&error, said(&format_args!("cannot be started: {}", words::of_io(&error))))),
    }
}

/// The program's absolute path: as given, else the first executable with this name.
fn find(setting: &str, name: &str, environment: &Environment) -> Result<PathBuf, Failure> {
    let path = environment.expand(Path::new(name)).map_err(|why| no_program(&format!("{setting}: {why}")))?;
    if name.is_empty() {
        Err(no_program(&format!("{setting} names no program")))
    } else if path.is_absolute() {
        if is_executable(&path) { Ok(path) } else { Err(no_program(&format!("{setting}: {name} is not a program"))) }
    } else if name.contains('/') {
        Err(no_program(&format!("{setting}: {name} is neither an absolute path nor a bare name")))
    } else {
        let found = candidates(environment, &path).into_iter().find(|candidate| is_executable(candidate));
        found.ok_or_else(|| no_program(&format!("{setting}: there is no program {name} on PATH")))
    }
}

fn no_program(message: &str) -> Failure {
    Failure::permanent(Code::Configuration, message).hint(
        "give a list of the program's absolute path, with its execute bit set, and its arguments; there is no shell: what \
         needs one is [\"/bin/sh\", \"-c\", \"...\"]",
    )
}

/// Transient only if the machine lacks something, or the program is just being replaced.
fn cannot_start(error: &io::Error, message: String) -> Failure {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::OutOfMemory | ErrorKind::ExecutableFileBusy | ErrorKind::Interrupted => {
            Failure::transient(Code::Unavailable, message).hint("check this machine's memory, threads and open files")
        }
        _ => no_program(&message),
    }
}

fn variables(outputs: &Outputs, about: &Rotated<'_>) -> Vec<(&'static str, OsString)> {
    // The program runs in another directory than we do.
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
    let mut variables = vec![
        (INSIDE, "1".into()),
        ("DBX_ROTATOR_CONNECTION", about.connection.into()),
        ("DBX_ROTATOR_EXPIRES_AT", about.expires_at.to_string().into()),
        ("PGHOST", about.host.into()),
        ("PGPORT", about.port.to_string().into()),
        ("PGDATABASE", nameable(about.database).into()),
        ("PGUSER", about.user.into()),
        ("PGPASSFILE", absolute(about.password_file)),
    ];
    variables.extend(outputs.token_file.as_deref().map(|path| ("DBX_ROTATOR_TOKEN_FILE", absolute(path))));
    variables.extend(outputs.env_file.as_deref().map(|path| ("DBX_ROTATOR_ENV_FILE", absolute(path))));
    variables
}

/// The last line that it printed, to stderr if possible, with a colon before it.
fn last_words(ran: &Ran) -> String {
    let last = |output: &[u8]| {
        let text = String::from_utf8_lossy(output);
        text.lines().rev().map(quoted).find(|line| !line.is_empty())
    };
    last(&ran.stderr).or_else(|| last(&ran.stdout)).map_or_else(String::new, |line| format!(": {line}"))
}

#[cfg(test)]
mod tests;
