//! Where a value came from.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The source of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A command line flag, or the builder's setter with that name.
    Flag(&'static str),
    /// An environment variable.
    Environment(&'static str),
    /// config.toml: the file, the line from 1, the bytes.
    File(Arc<Path>, usize, Range<usize>),
    /// A profile: its name, its file, the line from 1.
    Profile(String, Arc<Path>, usize),
    /// A systemd credential (systemd.exec(5), LoadCredential=).
    Credential,
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => f.write_str(flag),
            Origin::Environment(variable) => write!(f, "${variable}"),
            Origin::File(path, line, _) => write!(f, "{}:{line}", path.display()),
            Origin::Profile(name, path, line) => write!(f, "{}:{line} (profile {name})", path.display()),
            Origin::Credential => f.write_str("systemd credential"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Sourced<T> {
    pub(crate) value: T,
    pub(crate) origin: Origin,
}

impl<T> Sourced<T> {
    pub(crate) fn new(value: T, origin: Origin) -> Self {
        Sourced { value, origin }
    }

    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> Sourced<U> {
        Sourced { value: f(self.value), origin: self.origin }
    }
}

/// One line of `config show`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its table, such as `connection "orders"`; empty for global settings.
    pub section: String,
    /// Its name in config.toml.
    pub key: &'static str,
    /// Its value; `(set)` for a secret.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}
