//! Reads the Python original's agent (launchd.plist(5)): its command line and its environment.

use std::io::Cursor;
use std::path::Path;

use plist::{Dictionary, Value};
use zeroize::Zeroizing;

use crate::os::files::read_bytes;
use crate::service::original::{OF_SECRET, Told};
use crate::words;

/// Keys that say nothing about what is kept alive, or that the new agent has its own of.
const OF_THE_SERVICE: [&str; 14] = [
    "Label",
    "ProgramArguments",
    "EnvironmentVariables",
    "RunAtLoad",
    "KeepAlive",
    "Disabled",
    "StandardOutPath",
    "StandardErrorPath",
    "StandardInPath",
    "WorkingDirectory",
    "ThrottleInterval",
    "ProcessType",
    "LimitLoadToSessionType",
    "Umask",
];

/// What an agent says.
pub(super) fn read(file: &Path) -> Told {
    let mut told = Told::default();
    match read_bytes(file).map(Zeroizing::new) {
        Err(error) => told.left.push(format!("{} cannot be read: {}", file.display(), words::of_io(&error))),
        Ok(bytes) => match Value::from_reader(Cursor::new(&bytes[..])).ok().and_then(Value::into_dictionary) {
            Some(agent) => {
                take(&agent, &mut told);
                let of_secret = |name: &str| OF_SECRET.iter().any(|own| name.starts_with(own));
                let has_secret = told.words.iter().any(|word| of_secret(word))
                    || told.variables.iter().any(|(name, _)| of_secret(name));
                told.secret_in = has_secret.then(|| file.to_owned());
            }
            None => told.left.push(format!("{} cannot be read: it is no property list", file.display())),
        },
    }
    told
}

fn take(agent: &Dictionary, told: &mut Told) {
    let text = |value: &Value| value.as_string().map(|text| Zeroizing::new(text.to_owned()));
    if let Some(words) = agent.get("ProgramArguments").and_then(Value::as_array) {
        told.words = words.iter().filter_map(text).collect();
    }
    if let Some(variables) = agent.get("EnvironmentVariables").and_then(Value::as_dictionary) {
        told.variables = variables.iter().filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect();
    }
    // Without the value, which may hold a secret.
    let left = agent.keys().filter(|key| !OF_THE_SERVICE.contains(&key.as_str()));
    told.left.extend(left.map(|key| format!("{key} of the agent")));
}
