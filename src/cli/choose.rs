//! Which connection is meant on the command line. One that does not exist is an error of usage, with the names that do.

use crate::config::ConfigError;
use crate::model::Connection;
use crate::rotation::Rotation;

/// At most this many names fit into a message.
const MOST_NAMES: usize = 20;

/// The one of this name, or the only one that there is; by its place in the configuration.
///
/// # Errors
/// There is none of that name, or there are several and none was named.
pub(super) fn one(rotation: &Rotation, name: Option<&str>) -> Result<usize, ConfigError> {
    let all = rotation.config().connections();
    match (name, all) {
        (Some(name), _) => by_name(rotation, name),
        (None, [_]) => Ok(0),
        (None, _) => {
            let error = ConfigError::usage(format!("which of the {} connections?", all.len()));
            Err(error.hint(format!("name one: {}", names(all))))
        }
    }
}

/// The one of this name.
///
/// # Errors
/// There is none.
pub(super) fn by_name(rotation: &Rotation, name: &str) -> Result<usize, ConfigError> {
    let all = rotation.config().connections();
    all.iter().position(|connection| connection.name() == name).ok_or_else(|| {
        let error = ConfigError::usage(format!("there is no connection named {name}"));
        error.hint(format!("the connections there are: {}", names(all)))
    })
}

fn names(all: &[Connection]) -> String {
    let names: Vec<&str> = all.iter().map(Connection::name).take(MOST_NAMES).collect();
    names.join(", ")
}
