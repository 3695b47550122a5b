//! `dbx-rotator config`.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;

use super::arguments::ConfigCommand;
use super::{Fault, print};
use crate::config::{Config, Overrides};
use crate::foreign;

pub(super) fn run(command: &ConfigCommand, overrides: &Overrides) -> Result<u8, Fault> {
    match command {
        ConfigCommand::Path => print::out(&format!("{}\n", Config::path(overrides)?.display()))?,
        ConfigCommand::Show => print::out(&show(&Config::load(overrides)?))?,
        ConfigCommand::Check => {
            let config = Config::load(overrides)?;
            // Templates are read when they are used, so that a mistake in one costs no password.
            if let Some(fault) = config.connections().iter().find_map(|connection| connection.outputs.faults().next()) {
                return Err(fault.into());
            }
            print::news(&check(&config))?;
        }
    }
    Ok(0)
}

fn show(config: &Config) -> String {
    let mut text = String::new();
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut section = "";
    for setting in config.settings() {
        if setting.section != section {
            text.push_str(&print::table(&rows));
            rows.clear();
            section = &setting.section;
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\n{}", foreign::line(section));
        }
        rows.push([setting.key, &setting.value, &format!("({})", setting.origin)].map(str::to_owned).to_vec());
    }
    text.push_str(&print::table(&rows));
    with_warnings(text, config)
}

fn check(config: &Config) -> String {
    let fragments = config.fragments_directory.as_deref().filter(|_| !config.fragments().is_empty());
    let fragments = fragments.map(|directory| format!("{} of {}", config.fragments().len(), directory.display()));
    let file = config.file().map(|path| path.display().to_string());
    let files: Vec<String> = file.into_iter().chain(fragments).collect();
    let file = if files.is_empty() { "no configuration file".to_owned() } else { files.join(" and ") };
    let (workspaces, connections) = (config.workspaces().len(), config.connections().len());
    with_warnings(format!("{file}: no fault found; workspaces: {workspaces}, connections: {connections}\n"), config)
}

/// A file that may not be looked for may be there for whoever signs in.
fn is_missing(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn with_warnings(mut text: String, config: &Config) -> String {
    if print::is_quiet() {
        return text;
    }
    for warning in config.warnings() {
        let _ = writeln!(text, "warning: {}", foreign::line(warning));
    }
    for remark in config.loose_secrets() {
        let _ = writeln!(text, "warning: {}", foreign::line(&remark));
    }
    for (role, path) in config.files_of_others().filter(|(_, path)| is_missing(path)) {
        let _ = writeln!(text, "warning: {role}: there is no file {}", foreign::line(&path.display().to_string()));
    }
    for note in config.notes() {
        let _ = writeln!(text, "note: {}", foreign::line(note));
    }
    text
}
