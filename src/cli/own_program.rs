//! The program as a unit names it.

use std::path::PathBuf;

use super::Fault;
use crate::failure::{Code, Failure};
use crate::os::dirs::Environment;
use crate::service::{check_program, would_vanish};
use crate::words;

/// Checks, before anybody is asked anything, that a service could start this program.
///
/// # Errors
/// It would be gone one day.
pub(super) fn check() -> Result<(), Fault> {
    find(&Environment::of_this_process()).map(drop)
}

/// The path of this program: the name that people call it by, which stays valid when a package manager replaces the file behind it.
///
/// # Errors
/// It would be gone one day, or the system does not say where it is.
pub(super) fn find(environment: &Environment) -> Result<PathBuf, Fault> {
    let program = std::env::current_exe().map_err(|error| {
        let message = format!("the system does not say where this program is: {}", words::of_io(&error));
        Failure::permanent(Code::Unavailable, message)
    })?;
    let path = environment.get_os("PATH").cloned().unwrap_or_default();
    let same = |candidate: &PathBuf| {
        let is_this = candidate.is_absolute() && candidate.canonicalize().is_ok_and(|to| to == program);
        is_this && !would_vanish(candidate, environment)
    };
    let mut names = std::env::split_paths(&path).map(|directory| directory.join(env!("CARGO_PKG_NAME")));
    let program = names.find(same).unwrap_or(program);
    check_program(&program, environment)?;
    Ok(program)
}
