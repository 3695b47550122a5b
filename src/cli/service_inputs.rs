//! What a service reads, and the configuration that this comes to.

use std::io;
use std::path::PathBuf;

use crate::config::{Config, ConfigError, Overrides};
use crate::os::dirs::{Environment, SYSTEM_DIRECTORY};
use crate::service::{Account, Scope, ServiceInputs, ServiceManager, State, as_service, manager};

/// The files of the service of this account.
pub(super) fn inputs(scope: Scope, account: &Account, manager: &dyn ServiceManager) -> ServiceInputs {
    let environment = manager.environment().clone();
    let directory = PathBuf::from(SYSTEM_DIRECTORY);
    let (config, credential) = match scope {
        Scope::User => (environment.own_config_file(), None),
        Scope::System => (
            directory.join(format!("{}.toml", account.name)),
            Some(directory.join(format!("{}.client-secret", account.name))),
        ),
    };
    ServiceInputs { config, credential, environment, keychain: false }
}

/// The configuration as the service that is set up reads it; none where only its manager knows, or this user may not read it.
pub(super) fn own_config(state: &State, environment: &Environment) -> Option<Result<Config, ConfigError>> {
    if state.has_environment {
        return None;
    }
    let account = Account::own(environment)?;
    let manager = manager(state.scope, &account).ok()?;
    let inputs = inputs(state.scope, &account, &*manager);
    match std::fs::File::open(&inputs.config) {
        Ok(_) => Some(as_service(&inputs)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let environment = inputs.environment.clone().handing_over(inputs.handed_over());
            Some(Config::load_in(environment, &Overrides::default()))
        }
        Err(_) => None,
    }
}
