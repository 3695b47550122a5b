//! The local proxy's units: a socket that waits for clients, and the service that it starts for them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::systemctl::Properties;
use super::{Systemd, instance, sockets, units, view};
use crate::failure::Failure;
use crate::os::dirs::Environment;
use crate::service::{Account, ProxyAccess, ProxyManager, ProxyState, Scope, Started};

/// The name that clients of libpq look for in a directory.
const SOCKET: &str = ".s.PGSQL.5432";

/// How long the sessions may take to end, and a little: TimeoutStopSec= of the service.
const LONGEST_END: Duration = Duration::from_secs(110);

/// What is asked of both units.
const PROPERTIES: [&str; 10] = [
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "Result",
    "Listen",
    "ExecMainStatus",
    "ActiveEnterTimestamp",
    "StatusText",
];

impl Systemd {
    /// The state of this user's proxy: in the user's manager, else in the machine's; none if neither has it, or no manager can be
    /// asked.
    pub(crate) fn look_at_proxy(environment: &Environment) -> Option<ProxyState> {
        let account = Account::own(environment)?;
        let ask = |scope| {
            let manager = Systemd::new(scope, account.clone()).ok()?;
            // Each question takes a while, and most people have none.
            if !manager.leaves_traces_of_proxy(environment) {
                return None;
            }
            manager.proxy().inspect_err(|error| tracing::debug!("{error}")).ok()?
        };
        match ask(Scope::User) {
            Some(up) if up.is_up() => Some(up),
            other => ask(Scope::System).filter(|state| state.is_up() || other.is_none()).or(other),
        }
    }

    /// Whether there is a file of a proxy that is enabled, or the socket of one that is not.
    fn leaves_traces_of_proxy(&self, environment: &Environment) -> bool {
        let (wants, name) = (Path::new("sockets.target.wants").join(self.proxy_socket()), &self.account.name);
        let traces = match self.scope {
            Scope::User => [
                environment.units_dir().join(&wants),
                Path::new("/etc/systemd/user").join(&wants),
                PathBuf::from(format!("/run/user/{}/dbx-rotator", rustix::process::getuid().as_raw())).join(SOCKET),
            ],
            Scope::System => [
                Path::new("/etc/systemd/system").join(&wants),
                Path::new("/usr/lib/systemd/system").join(&wants),
                Path::new("/run/dbx-rotator").join(name).join(SOCKET),
            ],
        };
        traces.iter().any(|trace| trace.symlink_metadata().is_ok())
    }

    fn proxy_socket(&self) -> String {
        self.name("dbx-rotator-proxy", "socket")
    }

    fn proxy_service(&self) -> String {
        self.name("dbx-rotator-proxy", "service")
    }

    fn proxy_units(&self) -> Result<[Properties; 2], Failure> {
        let shown = self.systemctl.show(&[&self.proxy_socket(), &self.proxy_service()], &PROPERTIES)?;
        Ok(<[Properties; 2]>::try_from(shown).unwrap_or_default())
    }

    /// Whether the socket was opened before it was last told to be another: just now, or by an install that was cut off.
    fn is_outdated(&self, socket: &Properties) -> bool {
        let told = self.directory().sockets_set_at(&self.proxy_socket()).and_then(|at| Timestamp::try_from(at).ok());
        let opened = socket.get("ActiveEnterTimestamp").and_then(|at| view::time(at));
        // The manager tells the beginning of the second.
        let is_older = || opened.zip(told).is_some_and(|(opened, told)| told.duration_since(opened).as_secs() >= 1);
        is_active(socket) && (self.sockets_changed.get() || is_older())
    }

    /// Tries whether the service starts, since otherwise only the first client would find out; then it ends again.
    fn try_proxy(&self) -> Result<Started, Failure> {
        let service = self.proxy_service();
        let started = self.begin_unit("start", &service)?;
        if started == Started::Well {
            self.systemctl.call_for(&["stop", &service], LONGEST_END)?;
        }
        Ok(started)
    }
}

fn is_active(unit: &Properties) -> bool {
    unit.get("ActiveState").is_some_and(|state| state == "active")
}

impl ProxyManager for Systemd {
    fn proxy(&self) -> Result<Option<ProxyState>, Failure> {
        Ok(state(self.scope, &self.proxy_units()?))
    }

    fn proxy_logs(&self) -> String {
        self.logs_of(&self.proxy_service())
    }

    fn provide_proxy(
        &self,
        program: &Path,
        access: &ProxyAccess,
        relaxed: bool,
        writes: &[PathBuf],
    ) -> Result<Vec<PathBuf>, Failure> {
        let (directory, mut written) = (self.directory(), Vec::new());
        for unit in units::of_proxy(self.scope) {
            written.extend(directory.provide(*unit, program)?);
        }
        let service = self.proxy_service();
        // What the machine does not allow the others, it does not allow this one.
        let relaxed = relaxed || directory.has_drop_in(&self.one_run(), units::RELAXED);
        written.extend(self.provide_drop_ins(&directory, &[&service], relaxed, writes)?);
        written.extend(directory.set_drop_in(&service, units::proxy_allow(self.scope), access.lets_others_in)?);
        written.extend(directory.set_drop_in(&service, units::PROXY_PORTS, !access.tcp.is_empty())?);
        let sockets = directory.set_sockets(&self.proxy_socket(), sockets::drop_in(self.scope, access))?;
        self.sockets_changed.set(sockets.is_some());
        written.extend(sockets);
        self.systemctl.call(&["daemon-reload"])?;
        Ok(written)
    }

    fn enable_proxy(&self) -> Result<Started, Failure> {
        self.systemctl.call(&["enable", &self.proxy_socket()])?;
        let [socket, service] = self.proxy_units()?;
        if self.is_outdated(&socket) {
            self.stop_proxy()?;
        } else if is_active(&service) {
            // It reads its settings, and its sessions go on.
            // It may end at this moment, since nobody has needed it for a while.
            self.systemctl.call(&["try-reload-or-restart", &self.proxy_service()])?;
            return Ok(Started::Well);
        }
        self.start_proxy()?;
        self.try_proxy()
    }

    fn start_proxy(&self) -> Result<(), Failure> {
        let (socket, service) = (self.proxy_socket(), self.proxy_service());
        // Otherwise what made it fail would still count.
        let _ = self.systemctl.call(&["reset-failed", &socket, &service]);
        self.systemctl.call(&["start", &socket]).map(drop).map_err(|failure| {
            let logs = self.logs_of(&socket);
            failure.hint(format!("an address may be in use, or a port below 1024 be forbidden: {logs}"))
        })
    }

    fn restart_proxy(&self) -> Result<(), Failure> {
        self.stop_proxy()?;
        self.start_proxy()
    }

    fn stop_proxy(&self) -> Result<(), Failure> {
        // Together: the socket alone would start the service again for the next client.
        self.systemctl.call_for(&["stop", &self.proxy_socket(), &self.proxy_service()], LONGEST_END).map(drop)
    }

    fn remove_proxy(&self) -> Result<Vec<PathBuf>, Failure> {
        let names = [self.proxy_socket(), self.proxy_service()];
        let shown = self.proxy_units()?;
        if shown.iter().any(|unit| unit.get("LoadState").is_some_and(|state| state != "not-found")) {
            self.stop_proxy()?;
            self.systemctl.call(&["disable", &names[0]])?;
        }
        let directory = self.directory();
        let mut gone = directory.clear(&names.each_ref().map(String::as_str))?;
        if self.scope == Scope::System && !self.serves_others(&["dbx-rotator-proxy@*"])? {
            let templates: Vec<&str> = units::of_proxy(self.scope).iter().map(|unit| unit.name).collect();
            gone.extend(directory.clear(&templates)?);
        }
        self.systemctl.call(&["daemon-reload"])?;
        let _ = self.systemctl.call(&["reset-failed", &names[0], &names[1]]);
        Ok(gone)
    }

    fn proxy_advice(&self, access: &ProxyAccess) -> Vec<String> {
        let only_by_tcp = self.scope == Scope::User && access.lets_others_in && access.tcp.is_empty();
        let advice = "proxy_allow: other users do not get into your own directory, where the socket is: set proxy_port for a \
                      connection, or let `sudo dbx-rotator service install --system --proxy` do it";
        only_by_tcp.then(|| advice.to_owned()).into_iter().collect()
    }
}

/// From the answers for the socket and the service; none if the socket neither waits for clients nor should.
fn state(scope: Scope, [socket, service]: &[Properties; 2]) -> Option<ProxyState> {
    let get = |of: &Properties, name: &str| of.get(name).filter(|value| !value.is_empty()).cloned();
    let active_state = get(socket, "ActiveState").unwrap_or_else(|| "inactive".to_owned());
    let enabled = get(socket, "UnitFileState").is_some_and(|state| state.starts_with("enabled"));
    if !enabled && active_state == "inactive" {
        return None;
    }
    let failed = |of: &Properties| get(of, "Result").filter(|result| result != "success");
    let last_result = failed(service);
    let unit = get(socket, "Id").unwrap_or_default();
    let listens = get(socket, "Listen").filter(|_| active_state == "active").unwrap_or_default();
    Some(ProxyState {
        manager: "systemd",
        scope,
        user: instance::user_of(&unit),
        unit,
        service: get(service, "Id").unwrap_or_default(),
        enabled,
        sub_state: get(socket, "SubState").unwrap_or_else(|| "dead".to_owned()),
        result: failed(socket).filter(|_| active_state != "active"),
        active_state,
        listens: listens.lines().map(|line| line.trim_end_matches(" (Stream)").to_owned()).collect(),
        last_exit_code: get(service, "ExecMainStatus")
            .and_then(|code| code.parse().ok())
            .filter(|code| *code != 0 && matches!(last_result.as_deref(), Some("exit-code" | "start-limit-hit"))),
        last_result,
        status_text: get(service, "StatusText").filter(|_| is_active(service)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn socket(more: &[(&str, &str)]) -> Properties {
        let usual = [("Id", "dbx-rotator-proxy.socket"), ("UnitFileState", "enabled"), ("Result", "success")];
        properties(&[&usual, more].concat())
    }

    #[test]
    fn one_that_waits_for_clients_says_where() {
        let listen = "/run/user/1000/dbx-rotator/.s.PGSQL.5432 (Stream)\n127.0.0.1:6432 (Stream)";
        let socket = socket(&[("ActiveState", "active"), ("SubState", "listening"), ("Listen", listen)]);
        let state = state(Scope::User, &[socket, properties(&[("ActiveState", "inactive"), ("Result", "success")])]);
        let state = state.unwrap();
        assert_eq!(state.listens, ["/run/user/1000/dbx-rotator/.s.PGSQL.5432", "127.0.0.1:6432"]);
        assert!(state.is_well() && state.enabled && state.result.is_none());
    }

    #[test]
    fn one_whose_last_run_failed_still_waits_and_is_not_well() {
        let socket = socket(&[("ActiveState", "active"), ("SubState", "listening")]);
        let service = [("ActiveState", "failed"), ("Result", "exit-code"), ("ExecMainStatus", "78")];
        let seen = state(Scope::User, &[socket.clone(), properties(&service)]).unwrap();
        assert!(seen.is_up() && !seen.is_well());
        assert_eq!((seen.last_result.as_deref(), seen.last_exit_code), (Some("exit-code"), Some(78)));
        let gave_up = [("ActiveState", "failed"), ("Result", "start-limit-hit"), ("ExecMainStatus", "78")];
        let seen = state(Scope::User, &[socket.clone(), properties(&gave_up)]).unwrap();
        assert_eq!(seen.last_failure().as_deref(), Some("start-limit-hit, exit code 78"));
        let killed = [("ActiveState", "failed"), ("Result", "watchdog"), ("ExecMainStatus", "6")];
        assert_eq!(state(Scope::User, &[socket, properties(&killed)]).unwrap().last_exit_code, None);
    }

    #[test]
    fn one_that_gave_up_says_why() {
        let socket = properties(&[
            ("Id", "dbx-rotator-proxy@ada.socket"),
            ("ActiveState", "failed"),
            ("Result", "service-start-limit-hit"),
            ("Listen", "/run/dbx-rotator/ada/.s.PGSQL.5432 (Stream)"),
        ]);
        let state = state(Scope::System, &[socket, properties(&[])]).unwrap();
        assert_eq!((state.user.as_deref(), state.result.as_deref()), (Some("ada"), Some("service-start-limit-hit")));
        assert!(!state.is_up() && state.listens.is_empty());
    }

    #[test]
    fn what_is_only_packaged_is_not_set_up() {
        let there = properties(&[("ActiveState", "inactive"), ("UnitFileState", "disabled"), ("LoadState", "loaded")]);
        assert_eq!(state(Scope::User, &[there, properties(&[])]), None);
        assert_eq!(state(Scope::User, &[properties(&[("LoadState", "not-found")]), properties(&[])]), None);
    }
}
