//! Whether anything renews the passwords that a person looks at: what the service manager says of the service, and whether the
//! service can use its own configuration, which is not the one of this shell.

use std::path::Path;

use jiff::Timestamp;

use super::finding::{Finding, Id, Level};
use super::{local_proxy, print, service_inputs};
use crate::config::{Config, ConfigError};
use crate::failure::Code;
use crate::model::Connection;
use crate::rotation::Rotation;
use crate::service::{Scope, State};
use crate::typed::shell_word;

/// Whose configuration a command works with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// What this shell's variables and the options say: the service's own may be another.
    Shell,
    /// What the service reads.
    Service,
    /// What the machine's service of this user reads.
    User(String),
}

/// What is ahead of the connections, in the order of the configuration.
pub(super) struct Outlook {
    is_renewed: Vec<bool>,
    pub(super) findings: Vec<Finding>,
}

impl Outlook {
    /// Asks the service manager for nothing that `state` does not tell, except for a local proxy that this user has set up, and reads
    /// the service's own configuration.
    pub(super) fn of(rotation: &Rotation, state: Option<&State>, whose: &Whose) -> Self {
        let config = rotation.config();
        let own = match whose {
            Whose::Shell => state.and_then(|state| service_inputs::own_config(state, &config.environment)),
            Whose::Service | Whose::User(_) => None,
        };
        let mut outlook = Self::judge(config, state, own, rotation.is_kept_by_a_daemon(), Timestamp::now());
        outlook.findings.extend(match whose {
            Whose::Shell => local_proxy::findings(&config.environment),
            Whose::User(user) => local_proxy::findings_of_user(user),
            Whose::Service => Vec::new(),
        });
        outlook
    }

    fn judge(
        config: &Config,
        state: Option<&State>,
        own: Option<Result<Config, ConfigError>>,
        has_daemon: bool,
        now: Timestamp,
    ) -> Self {
        let mut findings = Vec::new();
        let all = |renewed: bool| vec![renewed; config.connections.len()];
        let Some(state) = state else {
            if !has_daemon {
                let message = "nothing renews these passwords: no service of dbx-rotator is set up for this user";
                findings.push(Finding::warning(Id::ServiceMissing, message).hint("run `dbx-rotator service install`"));
            }
            return Outlook { is_renewed: all(has_daemon), findings };
        };
        let mut is_renewed = all(true);
        if let Some(Err(error)) = &own {
            is_renewed = all(false);
            findings.push(cannot_start(state, error));
        } else {
            if let Some(Ok(own)) = &own {
                for (renewed, connection) in is_renewed.iter_mut().zip(&config.connections) {
                    *renewed = keeps(own, config, connection);
                    findings.extend((!*renewed).then(|| not_its_own(state, own.file(), connection)));
                }
            }
            findings.extend(last_run(state, now));
        }
        if !state.is_up() {
            is_renewed = all(false);
            findings.push(stopped(state));
        } else {
            findings.extend((!state.enabled).then(|| not_enabled(state)));
            findings.extend(ends_at_logout(state));
        }
        if has_daemon {
            is_renewed = all(true);
        }
        Outlook { is_renewed, findings }
    }

    /// Whether something will renew this connection, by its place in the configuration.
    pub(super) fn renews(&self, index: usize) -> bool {
        self.is_renewed.get(index).copied().unwrap_or(false)
    }

    /// Whether what is set up does not work.
    pub(super) fn has_failed(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == Level::Failed)
    }

    /// What is wrong or, where that is wanted, may be; for people.
    /// That programs wait for nothing but a session at the local proxy, if so.
    pub(super) fn waiting_proxy(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.id == Id::LocalProxy && finding.level == Level::Ok)
    }

    pub(super) fn text(&self) -> String {
        let least = if print::is_quiet() { Level::Failed } else { Level::Warning };
        self.findings.iter().filter(|finding| finding.level >= least).map(Finding::line).collect()
    }
}

/// Whether the service, with its own configuration, renews this connection.
fn keeps(own: &Config, config: &Config, connection: &Connection) -> bool {
    let workspace = config.workspace_of(connection);
    own.connections.iter().any(|other| {
        let same_place = match (connection.key(), other.key()) {
            (Some(one), Some(other)) => one == other,
            _ => connection.database_ref == other.database_ref && connection.read_only == other.read_only,
        };
        same_place && own.workspace_of(other).host().origin() == workspace.host().origin()
    }) && config.password_files().iter().all(|file| own.password_files().contains(file))
}

fn cannot_start(state: &State, error: &ConfigError) -> Finding {
    let why = error.sentence();
    let message = format!("nothing renews these passwords: {} cannot use its configuration: {why}", state.unit);
    Finding::failed(Id::ServiceConfiguration, message).hint(
        "a service does not see the variables of this shell: write the settings into its configuration with \
         `dbx-rotator service install`",
    )
}

fn not_its_own(state: &State, file: Option<&Path>, connection: &Connection) -> Finding {
    let whose = file.map_or_else(String::new, |file| format!(" ({})", file.display()));
    let (name, unit) = (connection.name(), &state.unit);
    let message = format!("{name}: nothing renews it: it is not in the configuration of {unit}{whose}");
    Finding::failed(Id::ServiceConnection, message)
        .hint("add it there, or run `dbx-rotator service install` with the options that you use here")
}

fn last_run(state: &State, now: Timestamp) -> Option<Finding> {
    if state.last_run_was_well() {
        return None;
    }
    let when = state.last_run_at.map(|at| format!(" {}", print::relative(at, now))).unwrap_or_default();
    let unit = state.worker();
    let message = match (state.last_exit_code, &state.last_result) {
        (Some(code), Some(result)) if result == "exit-code" => {
            let meaning = Code::of_exit_code(code).map(|code| format!(", {}", code.word().replace('-', " ")));
            format!("{unit} failed{when} (exit code {code}{})", meaning.unwrap_or_default())
        }
        (_, Some(result)) => format!("{unit} failed{when} ({result})"),
        _ => format!("{unit} failed{when}"),
    };
    // What may pass by itself is tried again by a service that is up.
    let code = state.last_exit_code.and_then(Code::of_exit_code);
    let passes = code.is_some_and(|code| matches!(code, Code::Unavailable | Code::TryAgain));
    let level = if passes && state.is_up() { Level::Warning } else { Level::Failed };
    Some(Finding::new(Id::ServiceLastRun, level, message).hint(format!("see why with `{}`", journal(state))))
}

fn stopped(state: &State) -> Finding {
    let (unit, verb) = (&state.unit, if state.enabled { "start" } else { "enable --now" });
    let command = match state.manager {
        "launchd" => "dbx-rotator service start".to_owned(),
        _ => format!("{} {verb} {unit}", systemctl(state)),
    };
    let message = format!("nothing renews these passwords: {unit} is {}", state.active_state);
    Finding::failed(Id::ServiceStopped, message).hint(format!("run `{command}`"))
}

fn not_enabled(state: &State) -> Finding {
    let ends = if state.scope == Scope::User { "when you log out" } else { "at the next boot" };
    let command = match state.manager {
        "launchd" => "dbx-rotator service install".to_owned(),
        _ => format!("{} enable {}", systemctl(state), state.unit),
    };
    let message = format!("{} is not enabled: it ends {ends} and does not come back", state.unit);
    Finding::warning(Id::ServiceDisabled, message).hint(format!("run `{command}`"))
}

fn ends_at_logout(state: &State) -> Option<Finding> {
    (state.lingering == Some(false)).then(|| {
        let message = format!("{} ends when you log out, and starts again when you log in", state.unit);
        Finding::ok(Id::ServiceLogout, message)
            .hint("to keep the passwords alive meanwhile, run `loginctl enable-linger`")
    })
}

fn systemctl(state: &State) -> &'static str {
    match state.scope {
        Scope::User => "systemctl --user",
        Scope::System => "sudo systemctl",
    }
}

fn journal(state: &State) -> String {
    if state.manager == "launchd" {
        return "log show --last 1h --predicate 'process == \"dbx-rotator\"'".to_owned();
    }
    let user = if state.scope == Scope::User { " --user" } else { "" };
    format!("journalctl{user} -u {} -n 20", shell_word(state.worker().trim_end_matches(".service")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Way;

    fn state() -> State {
        State {
            manager: "systemd",
            scope: Scope::User,
            kind: Way::Timer,
            unit: "dbx-rotator.timer".to_owned(),
            user: None,
            enabled: true,
            active_state: "active".to_owned(),
            sub_state: "waiting".to_owned(),
            next_run_at: None,
            last_run_at: Some(Timestamp::UNIX_EPOCH),
            last_result: Some("success".to_owned()),
            last_exit_code: Some(0),
            watchdog_seconds: None,
            restarts: 0,
            status_text: None,
            has_environment: false,
            lacks_namespaces: false,
            lingering: Some(true),
        }
    }

    /// The configuration of connections to these hosts.
    fn config(hosts: &[&str]) -> Config {
        let mut text = "[[workspace]]\nhost = 'w.example'\nauth = 'databricks-cli'\n".to_owned();
        for host in hosts {
            text += &format!("[[connection]]\nname = '{host}'\nhost = '{host}.example'\nuser = 'ada@example.com'\n");
        }
        Config::of_text(&text)
    }

    /// How it looks at the time 60 for two connections, of which the service knows those.
    fn outlook(
        state: Option<&State>,
        own: Option<Result<Config, ConfigError>>,
        has_daemon: bool,
    ) -> (Vec<bool>, String) {
        let mut config = config(&["a", "b"]);
        if let Some(Ok(own)) = &own {
            config.password_files.clone_from(&own.password_files);
        }
        let now = Timestamp::from_second(60).unwrap();
        let outlook = Outlook::judge(&config, state, own, has_daemon, now);
        (outlook.is_renewed.clone(), outlook.findings.iter().map(Finding::line).collect())
    }

    #[test]
    fn what_is_renewed_is_told_from_what_is_not_and_why() {
        let none = || None;
        let both = || Some(Ok(config(&["a", "b"])));
        let well = state();
        let with = |change: fn(&mut State)| {
            let mut state = state();
            change(&mut state);
            state
        };
        let failed = with(|state| {
            (state.last_result, state.last_exit_code) = (Some("exit-code".to_owned()), Some(78));
        });
        let offline = with(|state| {
            (state.last_result, state.last_exit_code) = (Some("exit-code".to_owned()), Some(69));
        });
        let dead = with(|state| (state.active_state, state.enabled) = ("inactive".to_owned(), false));
        let system = with(|state| {
            (state.scope, state.unit, state.lingering) = (Scope::System, "dbx-rotator@ada.timer".to_owned(), None);
            state.active_state = "failed".to_owned();
        });
        let for_now = with(|state| (state.enabled, state.lingering) = (false, Some(false)));
        let lacking = || Some(Err(ConfigError::new("the workspace's host is not set")));
        let all = [true, true];
        let nothing = [false, false];
        for (service, own, has_daemon, renewed, said) in [
            (Some(&well), both(), false, all, vec![]),
            (Some(&well), none(), false, all, vec![]),
            (None, none(), true, all, vec![]),
            (None, none(), false, nothing, vec!["nothing renews these passwords", "service install"]),
            (
                Some(&well),
                lacking(),
                false,
                nothing,
                vec!["cannot use its configuration: the workspace's host is not set"],
            ),
            (Some(&well), Some(Ok(config(&["a"]))), false, [true, false], vec!["b: nothing renews it"]),
            (
                Some(&failed),
                both(),
                false,
                all,
                vec!["dbx-rotator.service failed 60 s ago (exit code 78, configuration)"],
            ),
            (Some(&offline), both(), false, all, vec!["exit code 69", "journalctl --user -u dbx-rotator -n 20"]),
            (
                Some(&dead),
                both(),
                false,
                nothing,
                vec!["is inactive", "systemctl --user enable --now dbx-rotator.timer"],
            ),
            (Some(&dead), both(), true, all, vec!["is inactive"]),
            (Some(&system), both(), false, nothing, vec!["is failed", "sudo systemctl start dbx-rotator@ada.timer"]),
            (Some(&for_now), both(), false, all, vec!["is not enabled", "ends when you log out", "enable-linger"]),
        ] {
            let (is_renewed, text) = outlook(service, own, has_daemon);
            assert_eq!(is_renewed, renewed, "{text}");
            assert!(
                said.iter().all(|said| text.contains(said)) && said.is_empty() == text.is_empty(),
                "{said:?}\n{text}"
            );
        }
    }

    #[test]
    fn only_what_is_set_up_and_does_not_work_is_a_fault() {
        let worst = |state: Option<&State>| {
            let outlook = Outlook::judge(&config(&["a"]), state, None, false, Timestamp::UNIX_EPOCH);
            outlook.findings.iter().map(|finding| finding.level).max()
        };
        let mut one = state();
        assert_eq!((worst(None), worst(Some(&one))), (Some(Level::Warning), None));
        one.lingering = Some(false);
        assert_eq!(worst(Some(&one)), Some(Level::Ok));
        one.enabled = false;
        assert_eq!(worst(Some(&one)), Some(Level::Warning));
        (one.last_result, one.last_exit_code) = (Some("exit-code".to_owned()), Some(75));
        assert_eq!(worst(Some(&one)), Some(Level::Warning));
        one.last_exit_code = Some(77);
        assert_eq!(worst(Some(&one)), Some(Level::Failed));
    }
}
