//! Whether programs can connect through the local proxy, as far as its service manager knows.

use super::finding::{Finding, Id, Level};
use crate::failure::Code;
use crate::os::dirs::Environment;
use crate::service::{ProxyState, Scope, look_at_proxy, look_at_proxy_of};
use crate::typed::shell_word;

/// What there is to say about this user's proxy; nothing where none is set up.
pub(super) fn findings(environment: &Environment) -> Vec<Finding> {
    look_at_proxy(environment).map(|proxy| of(&proxy)).unwrap_or_default()
}

/// The same of the machine's proxy for this user.
pub(super) fn findings_of_user(user: &str) -> Vec<Finding> {
    look_at_proxy_of(user).map(|proxy| of(&proxy)).unwrap_or_default()
}

fn of(proxy: &ProxyState) -> Vec<Finding> {
    let (unit, service) = (&proxy.unit, &proxy.service);
    if !proxy.is_up() {
        let why = proxy.result.as_ref().map_or_else(String::new, |result| format!(" ({result})"));
        let message = format!("no program can connect through the local proxy: {unit} is {}{why}", proxy.active_state);
        return vec![Finding::failed(Id::LocalProxy, message).hint(format!("run `{}`", start(proxy)))];
    }
    let mut findings = Vec::new();
    if let Some(how) = proxy.last_failure() {
        // The next program starts it again, which helps against most of what may have been.
        let passes = match proxy.last_exit_code {
            Some(code) => matches!(Code::of_exit_code(code), Some(Code::Unavailable | Code::TryAgain)),
            None => true,
        };
        let level = if passes { Level::Warning } else { Level::Failed };
        let message = format!("{service} failed ({how})");
        findings.push(Finding::new(Id::LocalProxy, level, message).hint(format!("see why with `{}`", journal(proxy))));
    }
    if !proxy.enabled {
        let ends = if proxy.scope == Scope::User { "when you log out" } else { "at the next boot" };
        let message = format!("{unit} is not enabled: it ends {ends} and does not come back");
        let hint = format!("run `{} enable {unit}`", systemctl(proxy));
        findings.push(Finding::warning(Id::LocalProxy, message).hint(hint));
    }
    if findings.is_empty() {
        let place = match proxy.listens.as_slice() {
            [] => String::new(),
            addresses => format!(" at {}", addresses.join(" and ")),
        };
        findings.push(Finding::ok(Id::LocalProxy, format!("{unit} waits for programs{place}")));
    }
    findings
}

/// The command that lets it wait for programs again.
fn start(proxy: &ProxyState) -> String {
    match &proxy.user {
        Some(user) => format!("sudo dbx-rotator service start --proxy --system --for {}", shell_word(user)),
        None => "dbx-rotator service start --proxy".to_owned(),
    }
}

fn systemctl(proxy: &ProxyState) -> &'static str {
    if proxy.scope == Scope::User { "systemctl --user" } else { "sudo systemctl" }
}

fn journal(proxy: &ProxyState) -> String {
    if proxy.manager == "launchd" {
        return "log show --last 1h --predicate 'process == \"dbx-rotator\"'".to_owned();
    }
    let user = if proxy.scope == Scope::User { " --user" } else { "" };
    format!("journalctl{user} -u {} -n 20", shell_word(proxy.service.trim_end_matches(".service")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy() -> ProxyState {
        ProxyState {
            manager: "systemd",
            scope: Scope::User,
            unit: "dbx-rotator-proxy.socket".to_owned(),
            service: "dbx-rotator-proxy.service".to_owned(),
            user: None,
            enabled: true,
            active_state: "active".to_owned(),
            sub_state: "listening".to_owned(),
            result: None,
            listens: vec!["/run/s".to_owned(), "127.0.0.1:6432".to_owned()],
            last_result: None,
            last_exit_code: None,
            status_text: None,
        }
    }

    #[test]
    fn what_is_set_up_and_does_not_work_is_said_with_what_mends_it() {
        let gave_up = ProxyState {
            active_state: "failed".to_owned(),
            result: Some("service-start-limit-hit".to_owned()),
            ..proxy()
        };
        let failed =
            |result: &str, code| ProxyState { last_result: Some(result.to_owned()), last_exit_code: code, ..proxy() };
        let of_machine = ProxyState {
            scope: Scope::System,
            unit: "dbx-rotator-proxy@ada.socket".to_owned(),
            user: Some("ada".to_owned()),
            ..gave_up.clone()
        };
        for (proxy, level, words) in [
            (proxy(), Level::Ok, "waits for programs at /run/s and 127.0.0.1:6432"),
            (gave_up, Level::Failed, "is failed (service-start-limit-hit)"),
            (of_machine, Level::Failed, "sudo dbx-rotator service start --proxy --system --for ada"),
            (failed("exit-code", Some(78)), Level::Failed, "failed (exit code 78)"),
            (failed("exit-code", Some(69)), Level::Warning, "journalctl --user -u dbx-rotator-proxy -n 20"),
            (failed("watchdog", None), Level::Warning, "failed (watchdog)"),
            (
                ProxyState { enabled: false, ..proxy() },
                Level::Warning,
                "systemctl --user enable dbx-rotator-proxy.socket",
            ),
        ] {
            let findings = of(&proxy);
            assert_eq!(findings.len(), 1);
            assert_eq!(findings[0].level, level, "{words}");
            assert!(findings[0].line().contains(words), "{words}\n{}", findings[0].line());
        }
    }
}
