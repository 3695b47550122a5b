//! `service` with what is set up already: start, stop, restart, status, uninstall.

use std::path::Path;

use jiff::Timestamp;

use super::proxy::{Whole, proxy_lines};
use super::{Fault, Service, say};
use crate::cli::{block_on, print, status};
use crate::config::{Config, credential_files};
use crate::failure::{Code, Failure};
use crate::os::keychain;
use crate::proxy;
use crate::rotation::LOCK_LIMIT;
use crate::service::{ProxyState, Scope, State, Way, as_service};
use crate::words;

/// What is set up of a service.
struct Ways {
    /// What renews the passwords.
    service: Option<Way>,
    proxy: bool,
}

impl Service {
    /// What a command is about: all that is set up, or only the proxy.
    fn set_up_ways(&self, only_proxy: bool) -> Result<Ways, Failure> {
        let service = if only_proxy { None } else { self.manager.state()?.map(|state| state.kind) };
        let proxy = self.manager.proxy()?.is_some();
        if service.is_none() && !proxy {
            return Err(if only_proxy { self.no_proxy() } else { self.not_installed() });
        }
        Ok(Ways { service, proxy })
    }

    pub(super) fn not_installed(&self) -> Failure {
        let system = if self.scope == Scope::System { " --system" } else { "" };
        Failure::permanent(Code::Configuration, "no service is set up here")
            .hint(format!("dbx-rotator service install{system}"))
    }

    pub(super) fn start(&self, only_proxy: bool) -> Result<u8, Fault> {
        let ways = self.set_up_ways(only_proxy)?;
        if ways.proxy {
            self.start_proxy()?;
        }
        let Some(way) = ways.service else { return Ok(0) };
        let asked = Timestamp::now();
        let started = self.manager.start(way)?;
        self.show(way, &started, asked)
    }

    pub(super) fn stop(&self, only_proxy: bool) -> Result<u8, Fault> {
        let ways = self.set_up_ways(only_proxy)?;
        if ways.proxy {
            self.manager.stop_proxy()?;
        }
        if ways.service.is_some() {
            self.manager.stop()?;
        }
        let option = if ways.service.is_some() { "" } else { " --proxy" };
        say(&format!("Stopped, until the next boot or login or `dbx-rotator service start{option}`"))
    }

    pub(super) fn restart(&self, only_proxy: bool) -> Result<u8, Fault> {
        let ways = self.set_up_ways(only_proxy)?;
        if ways.proxy {
            self.restart_proxy()?;
        }
        let Some(way) = ways.service else { return Ok(0) };
        let asked = Timestamp::now();
        let started = self.manager.restart(way)?;
        self.show(way, &started, asked)
    }

    pub(super) fn status(&self, json: bool) -> Result<u8, Fault> {
        let (state, proxy) = (self.manager.state()?, self.manager.proxy()?);
        if json {
            print::json(&Whole::of(state.as_ref(), proxy.as_ref()))?;
        }
        let well = match (&state, &proxy) {
            (None, None) => false,
            (state, proxy) => state.as_ref().is_none_or(is_well) && proxy.as_ref().is_none_or(ProxyState::is_well),
        };
        let now = Timestamp::now();
        let lines = [
            state.as_ref().map(|state| status::service_lines(state, now)),
            proxy.as_ref().map(|proxy| proxy_lines(proxy, &self.manager.proxy_logs())),
        ];
        let lines: String = lines.into_iter().flatten().collect();
        match (json, well) {
            (true, _) => {}
            (_, true) => print::news(&lines)?,
            _ if lines.is_empty() => {
                let Failure { message, hint, .. } = self.not_installed();
                print::error(&message, hint.as_deref());
            }
            _ => print::out(&lines)?,
        }
        Ok(u8::from(!well))
    }

    pub(super) fn uninstall(&self, purge: bool) -> Result<u8, Fault> {
        // While it can still be read.
        let config = as_service(&self.inputs).ok();
        let items = if purge { keychain_items(config.as_ref()) } else { Vec::new() };
        let was_there = self.manager.state()?.is_some() || self.manager.proxy()?.is_some();
        let removed = [self.manager.remove_proxy()?, self.manager.remove()?].concat();
        for file in &removed {
            say(&format!("Removed {}", file.display()))?;
        }
        if was_there || !removed.is_empty() {
            say("The service is stopped and disabled; what is published stays in the password file")?;
        } else {
            say("No service was set up here")?;
        }
        if let Some(remains) = self.manager.remains() {
            say(&remains)?;
        }
        for item in items.iter().filter(|item| keychain::remove(item).unwrap_or(false)) {
            say(&format!("Removed {item}"))?;
        }
        self.forget_proxy(config.as_ref(), purge)?;
        let own = self.inputs.credential.clone().unwrap_or_else(|| self.inputs.config.with_file_name("client-secret"));
        for file in [&[self.inputs.config.clone()][..], &credential_files(&own)].concat() {
            // A dangling link counts too.
            if file.symlink_metadata().is_err() {
                continue;
            }
            if purge {
                remove(&file)?;
                say(&format!("Removed {}", file.display()))?;
            } else {
                say(&format!("Kept {} (--purge removes it)", file.display()))?;
            }
        }
        Ok(0)
    }
}

impl Service {
    /// The proxy's own password, and what has it.
    fn forget_proxy(&self, config: Option<&Config>, purge: bool) -> Result<(), Fault> {
        let Some(config) = config else {
            if purge && self.inputs.config.exists() {
                let file = self.inputs.config.display();
                say(&format!(
                    "Kept the proxy's own password, if there is one: {file} cannot be used, which says where"
                ))?;
            }
            return Ok(());
        };
        if purge {
            for sentence in block_on(proxy::forget(config, LOCK_LIMIT))?? {
                say(&sentence)?;
            }
            return Ok(());
        }
        let file = proxy::password_path(&config.state_dir);
        if file.symlink_metadata().is_ok() {
            say(&format!("Kept {} (--purge removes it)", file.display()))?;
        }
        Ok(())
    }
}

/// The keychain items that `service install` has made.
fn keychain_items(config: Option<&Config>) -> Vec<keychain::Item> {
    let items = config.map(Config::keychain_items).unwrap_or_default();
    items.into_iter().filter(|item| item.service == keychain::SERVICE).collect()
}

fn is_well(state: &State) -> bool {
    state.is_up() && state.last_run_was_well()
}

fn remove(file: &Path) -> Result<(), Failure> {
    std::fs::remove_file(file).map_err(|error| {
        let message = format!("cannot remove {}: {}", file.display(), words::of_io(&error));
        Failure::permanent(Code::CannotWrite, message)
    })
}
