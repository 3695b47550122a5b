//! What `service` does about the local proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use rustix::process::getuid;
use serde::Serialize;

use super::{Fault, Service, say};
use crate::cli::print;
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::foreign;
use crate::model::Connection;
use crate::service::{ProxyAccess, ProxyState, Scope, Started, State, as_service};
use crate::typed::{conninfo_setting, shell_word};

/// So many connections are shown with what reaches them.
const MOST: usize = 5;

/// All that is set up, as JSON: the service, with the proxy beside its own fields.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Whole<'a> {
    Nothing,
    Something {
        #[serde(flatten)]
        service: Option<&'a State>,
        proxy: Option<&'a ProxyState>,
    },
}

impl<'a> Whole<'a> {
    pub(super) fn of(service: Option<&'a State>, proxy: Option<&'a ProxyState>) -> Self {
        if service.is_none() && proxy.is_none() { Whole::Nothing } else { Whole::Something { service, proxy } }
    }
}

impl Service {
    /// Sets up the proxy as the settings want it that the service reads; returns what tells how to reach it.
    pub(super) fn set_up_proxy(&self, program: &Path, relaxed: bool, writes: &[PathBuf]) -> Result<Config, Fault> {
        let config = as_service(&self.inputs)?;
        let access = access(&config);
        for file in self.manager.provide_proxy(program, &access, relaxed, writes)? {
            say(&format!("Wrote {}", file.display()))?;
        }
        let started = self.manager.enable_proxy()?;
        let unit = self.manager.proxy()?.map_or_else(|| "the proxy".to_owned(), |proxy| proxy.unit);
        say(&format!("Enabled {unit}"))?;
        if let Started::Failed(exit) = started {
            let code = exit.and_then(Code::of_exit_code).unwrap_or(Code::Unavailable);
            let exit = exit.map_or_else(String::new, |exit| format!(" (exit code {exit})"));
            let message = format!("the proxy does not start{exit}");
            return Err(Failure::permanent(code, message).hint(self.manager.proxy_logs()).into());
        }
        for advice in self.manager.proxy_advice(&access) {
            print::warning(&advice);
        }
        Ok(config)
    }

    /// Says how each connection is reached through the proxy.
    pub(super) fn tell_of_proxy(&self, config: &Config) -> Result<u8, Fault> {
        let (directory, host) = (self.socket_directory()?, host(config.local_proxy.listen));
        let one = |connection: &Connection| {
            // psql takes a name with `=` or `://` for a connection string, and one with a dash before it for an option.
            let is_name = !["=", "://"].iter().any(|part| connection.name().contains(part));
            let is_name = is_name && !connection.name().starts_with('-');
            let name = if is_name { connection.name().into() } else { conninfo_setting("dbname", connection.name()) };
            let name = shell_word(&name);
            let here = directory.iter().map(|directory| format!("    psql -h {directory} {name}\n"));
            let port = connection.proxied.port.iter().map(|port| format!("    psql -h {host} -p {port} {name}\n"));
            here.chain(port).collect::<String>()
        };
        let lines: String = config.connections().iter().take(MOST).map(one).collect();
        say(&format!("By the proxy, without a password:\n{lines}Messages: {}", self.manager.proxy_logs()))
    }

    /// The directory of the proxy's own socket, as a word for a shell; none where nobody knows it.
    fn socket_directory(&self) -> Result<Option<String>, Failure> {
        let listens = self.manager.proxy()?.map(|proxy| proxy.listens).unwrap_or_default();
        let socket = listens.iter().map(Path::new).find(|address| address.is_absolute());
        let directory = match (self.scope, socket.and_then(Path::parent)) {
            (_, Some(directory)) => directory.to_owned(),
            // It opens its sockets itself.
            (Scope::User, None) => self.inputs.environment.runtime_dir(getuid().as_raw()),
            (Scope::System, None) => return Ok(None),
        };
        Ok(Some(shell_word(&directory.display().to_string())))
    }

    pub(super) fn no_proxy(&self) -> Failure {
        let system = if self.scope == Scope::System { " --system" } else { "" };
        Failure::permanent(Code::Configuration, "no proxy is set up here")
            .hint(format!("dbx-rotator service install{system} --proxy"))
    }

    pub(super) fn start_proxy(&self) -> Result<u8, Fault> {
        self.manager.start_proxy()?;
        self.say_that_it_listens("Started")
    }

    pub(super) fn restart_proxy(&self) -> Result<u8, Fault> {
        self.manager.restart_proxy()?;
        self.say_that_it_listens("Restarted")
    }

    fn say_that_it_listens(&self, done: &str) -> Result<u8, Fault> {
        let Some(proxy) = self.manager.proxy()? else { return Ok(0) };
        let listens = on(&proxy).map_or_else(String::new, |addresses| format!(", which listens on {addresses}"));
        say(&foreign::line(&format!("{done} {}{listens}", proxy.unit)))
    }

    /// Removes the proxy; what renews the passwords stays.
    pub(super) fn uninstall_proxy(&self) -> Result<u8, Fault> {
        let was_there = self.manager.proxy()?.is_some();
        let removed = self.manager.remove_proxy()?;
        for file in &removed {
            say(&format!("Removed {}", file.display()))?;
        }
        let done = if was_there || !removed.is_empty() {
            "The proxy is stopped and disabled"
        } else {
            "No proxy was set up here"
        };
        say(done)
    }
}

/// Where a client of this machine finds a port at this address.
fn host(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

/// Who reaches the proxy by these settings.
fn access(config: &Config) -> ProxyAccess {
    let listen = config.local_proxy.listen;
    let ports = config.connections().iter().filter_map(|connection| connection.proxied.port);
    ProxyAccess {
        tcp: ports.map(|port| SocketAddr::new(listen, port)).collect(),
        lets_others_in: !config.local_proxy.allow.is_empty(),
    }
}

/// How the service manager sees the proxy, for people.
pub(in crate::cli) fn proxy_lines(proxy: &ProxyState, logs: &str) -> String {
    let manager = match proxy.scope {
        Scope::User => format!("{}, yours", proxy.manager),
        Scope::System => format!("{}, the machine's", proxy.manager),
    };
    let manager = proxy.user.iter().fold(manager, |manager, user| format!("{manager}, for {user}"));
    let mut parts = vec![format!("{} ({})", proxy.active_state, proxy.sub_state)];
    parts.extend((!proxy.enabled).then(|| "not enabled".to_owned()));
    parts.extend(on(proxy).map(|addresses| format!("on {addresses}")));
    parts.extend(proxy.result.as_ref().map(|result| format!("ended: {result}")));
    let mut text = print::line(&format!("proxy: {} ({manager}): {}", proxy.unit, parts.join(", ")));
    if let Some(said) = &proxy.status_text {
        text.push_str(&print::line(&format!("proxy says: {said}")));
    }
    if let Some(how) = proxy.last_failure() {
        text.push_str(&print::line(&format!("{} failed ({how}): {logs}", proxy.service)));
    }
    if !proxy.is_up() {
        let system = if proxy.scope == Scope::System { "sudo " } else { "" };
        let options = match &proxy.user {
            Some(user) => format!(" --system --for {}", shell_word(user)),
            None => String::new(),
        };
        text.push_str(&print::line(&format!(
            "no program can connect through it: {system}dbx-rotator service start --proxy{options}"
        )));
    }
    text
}

/// The addresses where it listens; none where the manager does not know.
fn on(proxy: &ProxyState) -> Option<String> {
    (!proxy.listens.is_empty()).then(|| proxy.listens.join(" and "))
}
