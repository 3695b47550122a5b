//! The command names of the Python original, as names of this program. Each takes its original options.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::os::dirs::Environment;
use crate::service::{OLD_INTERVAL, OLD_LOG};

/// The name that the program was called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Own,
    Rotator,
    Status,
    Install,
    Restart,
    Uninstall,
}

impl Name {
    pub(super) fn of(program: Option<OsString>) -> Self {
        let program = program.unwrap_or_default();
        match Path::new(&program).file_name().and_then(|name| name.to_str()) {
            Some("databricks-oauth-rotator") => Name::Rotator,
            Some("databricks-oauth-status") => Name::Status,
            Some("databricks-oauth-install") => Name::Install,
            Some("databricks-oauth-restart") => Name::Restart,
            Some("databricks-oauth-uninstall") => Name::Uninstall,
            _ => Name::Own,
        }
    }

    /// The name itself.
    pub(super) fn word(self) -> &'static str {
        match self {
            Name::Own => "dbx-rotator",
            Name::Rotator => "databricks-oauth-rotator",
            Name::Status => "databricks-oauth-status",
            Name::Install => "databricks-oauth-install",
            Name::Restart => "databricks-oauth-restart",
            Name::Uninstall => "databricks-oauth-uninstall",
        }
    }

    /// The command line with this program's own words in place of the original name.
    pub(super) fn words(self, words: impl Iterator<Item = OsString>) -> Vec<OsString> {
        let command: &[&str] = match self {
            Name::Own | Name::Rotator => &[],
            Name::Status => &["status"],
            Name::Install => &["service", "install"],
            Name::Restart => &["service", "restart"],
            Name::Uninstall => &["service", "uninstall"],
        };
        [self.word()].iter().chain(command).map(OsString::from).chain(words).collect()
    }

    /// The original logged to this file unless told otherwise.
    pub(super) fn log_file(self) -> Option<PathBuf> {
        let home = (self == Name::Rotator).then(|| Environment::of_this_process().home()).flatten();
        home.map(|home| home.join(OLD_LOG))
    }

    /// The original rotated so often unless told otherwise.
    pub(super) fn interval(self) -> Option<Duration> {
        (self == Name::Rotator).then_some(OLD_INTERVAL)
    }

    /// The original used only 0, 1 for every failure, and 2 for usage.
    pub(super) fn exit_code(self, code: u8) -> u8 {
        match (self, code) {
            (Name::Own, code) | (_, code @ 0) => code,
            (_, super::USAGE) => 2,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_keeps_its_exit_codes() {
        let name = |path: &str| Name::of(Some(path.into()));
        assert_eq!(name("/usr/bin/databricks-oauth-rotator").exit_code(77), 1);
        assert_eq!(name("databricks-oauth-rotator").exit_code(64), 2);
        assert_eq!(name("/usr/bin/dbx-rotator").exit_code(77), 77);
        assert_eq!(name("databricks-oauth-status").exit_code(0), 0);
    }
}
