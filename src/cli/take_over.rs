//! Taking over from the Python original: its settings below those that are given here, its log, and where everything is now.

use std::path::{Path, PathBuf};

use super::print;
use crate::config::{Config, Overrides};
use crate::failure::Failure;
use crate::model::{SecretSource, Workspace};
use crate::os::dirs::Environment;
use crate::service::{Filled, OLD_INTERVAL, OLD_LOG, OldSettings, Original};

/// What is to be set up, and what was there before.
pub(super) struct TakeOver {
    original: Option<Original>,
    pub(super) filled: Filled,
    home: PathBuf,
    old_log: PathBuf,
    old_password_file: PathBuf,
}

/// What is known of the one who takes over.
pub(super) struct Here<'a> {
    pub(super) overrides: &'a Overrides,
    pub(super) environment: &'a Environment,
    /// The configuration as it is now.
    pub(super) config: &'a Path,
    pub(super) home: &'a Path,
    /// Called by the name of the original's command.
    pub(super) as_original: bool,
}

impl TakeOver {
    /// A service of the original that is no longer in use counts only as long as there is no configuration of ours.
    pub(super) fn of(original: Option<Original>, here: &Here<'_>) -> Self {
        let text = std::fs::read_to_string(here.config).ok();
        let original = original.filter(|original| original.in_service || text.is_none());
        let mut old = original.as_ref().map(|original| OldSettings::of(&original.told)).unwrap_or_default();
        let usual = |path: Option<&PathBuf>, name: &str| {
            path.and_then(|path| here.environment.expand(path).ok()).unwrap_or_else(|| here.home.join(name))
        };
        let old_log = usual(old.given.log_file.as_ref(), OLD_LOG);
        let old_password_file = usual(old.given.pgpass_file.first(), ".pgpass");
        if original.is_some() || here.as_original {
            old.given.log_file = Some(old_log.clone());
        }
        if here.as_original && text.is_none() {
            old.given.interval = old.given.interval.or(Some(OLD_INTERVAL));
        }
        let filled = old.below(here.overrides, here.environment, text.as_deref());
        TakeOver { original, filled, home: here.home.to_owned(), old_log, old_password_file }
    }

    /// Warns about what is not taken, before anything is done.
    pub(super) fn say_what_is_left(&self) {
        let Some(original) = &self.original else { return };
        for left in &self.filled.left {
            print::warning(&format!("not taken over from {}: {left}", self.short(&original.file)));
        }
    }

    /// The service to be put out of use.
    pub(super) fn to_retire(&self) -> Option<&'static str> {
        self.original.as_ref().filter(|original| original.in_service).map(|original| original.name)
    }

    /// Where everything was, and where it is now.
    pub(super) fn tell(&self, unit: &str, logs: &str, file: &Path, config: &Config) -> Result<(), Failure> {
        let Some(original) = &self.original else { return Ok(()) };
        let old = self.short(&original.file);
        let secret = original.told.secret_in.as_ref().map(|file| self.short(file));
        let log = config.log_file().map(|log| format!("{}; also ", self.now(log, &self.old_log)));
        let password_files: Vec<String> =
            config.password_files().iter().map(|file| self.now(file, &self.old_password_file)).collect();
        let rows = [
            ["", "old place", "new place"].map(str::to_owned),
            ["service".to_owned(), old.clone(), unit.to_owned()],
            ["settings".to_owned(), old, self.short(file)],
            ["secret".to_owned(), secret.clone().unwrap_or_else(|| "none".to_owned()), self.secret(config)],
            ["log".to_owned(), self.short(&self.old_log), format!("{}{logs}", log.unwrap_or_default())],
            ["password file".to_owned(), self.short(&self.old_password_file), password_files.join(", ")],
        ];
        let table = print::table(&rows.map(Vec::from));
        print::news(&format!("Taken over from the Python tool:\n{table}"))?;
        if let Some(file) = secret {
            print::warning(&format!(
                "the client secret still stands in {file}, which others may be able to read: remove it there once you do not \
                 want to go back"
            ));
        }
        Ok(())
    }

    /// A path as people write it.
    fn short(&self, path: &Path) -> String {
        match path.strip_prefix(&self.home) {
            Ok(below) => format!("~/{}", below.display()),
            Err(_) => path.display().to_string(),
        }
    }

    /// Where a file is now that was in this place.
    fn now(&self, new: &Path, old: &Path) -> String {
        if new == old { "the same".to_owned() } else { self.short(new) }
    }

    /// Where the secrets are that the service signs in with.
    fn secret(&self, config: &Config) -> String {
        let place = |workspace: &Workspace| match workspace.client.as_ref().map(|client| &client.secret) {
            None => "none: the login of the Databricks CLI".to_owned(),
            Some(SecretSource::File(path)) => self.short(path),
            Some(SecretSource::Keychain(item)) => format!("keychain, {item}"),
            Some(SecretSource::Given(_) | SecretSource::InProfile(..)) => "a profile of ~/.databrickscfg".to_owned(),
        };
        config.workspaces().iter().map(place).collect::<Vec<_>>().join(", ")
    }
}
