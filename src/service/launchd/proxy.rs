//! The agent of the local proxy. It listens itself, so that it is there from the login on, with clients or without.

use std::path::{Path, PathBuf};

use super::agent::Job;
use super::{Launchd, view};
use crate::failure::{Code, Failure};
use crate::os::dirs::Environment;
use crate::os::launchd::{PROXY_LABEL, SUBSYSTEM};
use crate::service::{Account, ProxyAccess, ProxyManager, ProxyState, Scope, Started, State};

impl Launchd {
    /// The state of this user's proxy; none if there is no agent for it.
    #[cfg_attr(not(target_os = "macos"), allow(dead_code, reason = "tests take a stand-in for launchctl"))]
    pub(crate) fn look_at_proxy(environment: &Environment) -> Option<ProxyState> {
        let manager = Self::new(Scope::User, &Account::own(environment)?).ok()?;
        manager.proxy().inspect_err(|error| tracing::debug!("{error}")).ok()?
    }
}

impl ProxyManager for Launchd {
    fn proxy(&self) -> Result<Option<ProxyState>, Failure> {
        let enabled = self.is_enabled(PROXY_LABEL)?;
        Ok(match self.find(PROXY_LABEL)? {
            Some((_, answer)) => Some(state(view::state(&answer, enabled))),
            None => self.file(PROXY_LABEL).exists().then(|| state(view::unloaded(enabled))),
        })
    }

    fn proxy_logs(&self) -> String {
        format!("log show --last 10m --predicate 'subsystem == \"{SUBSYSTEM}\"'")
    }

    fn provide_proxy(
        &self,
        program: &Path,
        _: &ProxyAccess,
        relaxed: bool,
        _: &[PathBuf],
    ) -> Result<Vec<PathBuf>, Failure> {
        if relaxed {
            return Err(Failure::permanent(Code::Configuration, "an agent of launchd has no sandbox to be relaxed")
                .hint("leave out --relaxed"));
        }
        self.write(Job::Proxy, program, "dbx-rotator-proxy.log")
    }

    fn enable_proxy(&self) -> Result<Started, Failure> {
        // The loaded agent may have another program or path, and listen elsewhere.
        self.unload(PROXY_LABEL)?;
        self.load(PROXY_LABEL)
    }

    fn start_proxy(&self) -> Result<(), Failure> {
        match self.find(PROXY_LABEL)? {
            Some((domain, _)) => self.kick(domain, PROXY_LABEL, false),
            None => self.load(PROXY_LABEL),
        }
        .map(drop)
    }

    fn restart_proxy(&self) -> Result<(), Failure> {
        // Not by `kickstart -k`, which kills what has sessions.
        self.unload(PROXY_LABEL)?;
        self.load(PROXY_LABEL).map(drop)
    }

    fn stop_proxy(&self) -> Result<(), Failure> {
        self.unload(PROXY_LABEL)
    }

    fn remove_proxy(&self) -> Result<Vec<PathBuf>, Failure> {
        self.withdraw(PROXY_LABEL)
    }

    fn proxy_advice(&self, _: &ProxyAccess) -> Vec<String> {
        Vec::new()
    }
}

/// What is told of any agent, of this one.
fn state(agent: State) -> ProxyState {
    ProxyState {
        manager: agent.manager,
        scope: agent.scope,
        unit: PROXY_LABEL.to_owned(),
        service: PROXY_LABEL.to_owned(),
        user: None,
        enabled: agent.enabled,
        last_result: agent.last_result.clone().filter(|result| result != "success"),
        active_state: agent.active_state,
        sub_state: agent.sub_state,
        result: agent.last_result,
        listens: Vec::new(),
        last_exit_code: agent.last_exit_code,
        status_text: None,
    }
}
