//! Root does nothing in somebody else's home: it becomes that user first.

use std::path::PathBuf;

use super::arguments::Command;
use crate::config::{Config, Overrides};
use crate::failure::{Code, Failure};
use crate::os::dirs::Environment;
use crate::os::identity;
use crate::words;

/// Gives up root's privileges for good if the home directory or the given configuration file belongs to another user, also
/// because the configuration can name programs to run. Returns a sentence about it if anything changed.
///
/// # Errors
/// Root may not become that user here.
pub(super) fn leave_root(command: &Command, overrides: &Overrides) -> Result<Option<String>, Failure> {
    if !identity::is_root() || !works_in_a_home(command) {
        return Ok(None);
    }
    let home = Environment::of_this_process().home();
    let paths: Vec<PathBuf> = home.into_iter().chain(Config::files_to_come(overrides)).collect();
    match identity::leave_root(paths.iter().map(PathBuf::as_path)) {
        Ok(None) => Ok(None),
        Ok(Some(uid)) => Ok(Some(format!(
            "Running as uid {uid} instead of root: the home directory or the configuration is that user's"
        ))),
        Err(error) => {
            let message = format!("root cannot work in this home directory: {}", words::of_io(&error));
            Err(Failure::permanent(Code::Configuration, message)
                .hint("run it as that user, or set HOME to root's own home directory"))
        }
    }
}

/// Only those who set up or ask for the machine's own units must stay root.
fn works_in_a_home(command: &Command) -> bool {
    match command {
        Command::Completions { .. } => false,
        Command::Service { command } => !command.which().system,
        Command::Status(options) => options.user.is_none(),
        _ => true,
    }
}
