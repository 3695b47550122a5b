//! The state of the service as systemd sees it: of several units, the one that keeps the passwords alive.

use std::time::Duration;

use jiff::Timestamp;

use super::instance;
use super::systemctl::Properties;
use crate::service::{Scope, State, Way};

/// What is asked of each unit.
pub(super) const PROPERTIES: [&str; 15] = [
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "Result",
    "ExecMainStatus",
    "ExecMainStartTimestamp",
    "NextElapseUSecRealtime",
    "LastTriggerUSec",
    "StatusText",
    "WatchdogUSec",
    "NRestarts",
    "Environment",
    "EnvironmentFiles",
];

/// From the answers for the timer, its service and the daemon; none if neither way is set up.
pub(super) fn state(scope: Scope, units: &[Properties], lingering: Option<bool>) -> Option<State> {
    let [timer, service, daemon] = units else { return None };
    let of_daemon = one(scope, Way::Daemon, daemon, daemon, lingering);
    let of_timer = one(scope, Way::Timer, timer, service, lingering);
    let (daemon_is_up, timer_is_up) = (of_daemon.is_up(), of_timer.is_up());
    match (of_daemon, of_timer) {
        (daemon, _) if daemon_is_up => Some(daemon),
        (_, timer) if timer_is_up => Some(timer),
        (daemon, _) if daemon.enabled || daemon.active_state != "inactive" => Some(daemon),
        (_, timer) if timer.enabled || timer.active_state != "inactive" => Some(timer),
        _ => None,
    }
}

fn one(scope: Scope, kind: Way, unit: &Properties, runs: &Properties, lingering: Option<bool>) -> State {
    let get = |of: &Properties, name: &str| of.get(name).filter(|value| !value.is_empty()).cloned();
    let last_run_at = get(runs, "ExecMainStartTimestamp").as_deref().and_then(time);
    let name = get(unit, "Id").unwrap_or_default();
    State {
        manager: "systemd",
        scope,
        kind,
        user: instance::user_of(&name),
        unit: name,
        enabled: get(unit, "UnitFileState").is_some_and(|state| state.starts_with("enabled")),
        active_state: get(unit, "ActiveState").unwrap_or_else(|| "inactive".to_owned()),
        sub_state: get(unit, "SubState").unwrap_or_else(|| "dead".to_owned()),
        next_run_at: get(unit, "NextElapseUSecRealtime").as_deref().and_then(time),
        last_run_at,
        last_result: get(runs, "Result").filter(|_| last_run_at.is_some()),
        last_exit_code: get(runs, "ExecMainStatus")
            .and_then(|code| code.parse().ok())
            .filter(|_| last_run_at.is_some()),
        watchdog_seconds: get(runs, "WatchdogUSec").as_deref().and_then(span).map(|span| span.as_secs_f64()),
        restarts: get(runs, "NRestarts").and_then(|number| number.parse().ok()).unwrap_or_default(),
        status_text: get(runs, "StatusText"),
        has_environment: get(runs, "EnvironmentFiles").is_some()
            || get(runs, "Environment").is_some_and(|set| !is_of_our_unit(&set)),
        lacks_namespaces: false,
        lingering,
    }
}

/// What the packaged system units set.
fn is_of_our_unit(environment: &str) -> bool {
    environment.starts_with("DBX_ROTATOR_CONFIG=/etc/dbx-rotator/") && !environment.contains(' ')
}

/// `@SECONDS`, as `--timestamp=unix` gives times, or `Wed 2026-11-25 08:20:31 UTC`, as systemd 252 gives some all the same.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    if let Some(seconds) = text.strip_prefix('@') {
        let seconds: i64 = seconds.split('.').next()?.parse().ok()?;
        return Timestamp::from_second(seconds).ok().filter(|at| at.as_second() > 0);
    }
    let civil = jiff::civil::DateTime::strptime("%a %Y-%m-%d %H:%M:%S UTC", text).ok()?;
    jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()
}

/// A duration as `systemctl show` prints it: `2min`, `1min 30s`; none for `0` and `infinity`.
fn span(text: &str) -> Option<Duration> {
    let length: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(length).ok().filter(|length| !length.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_timer_tells_when_it_runs_next_and_its_service_how_it_went() {
        let timer = properties(&[
            ("Id", "dbx-rotator.timer"),
            ("UnitFileState", "enabled"),
            ("ActiveState", "active"),
            ("SubState", "waiting"),
            ("NextElapseUSecRealtime", "@1764057600"),
        ]);
        let service = properties(&[
            ("ActiveState", "inactive"),
            ("Result", "exit-code"),
            ("ExecMainStatus", "226"),
            ("ExecMainStartTimestamp", "@1764057000"),
        ]);
        let state = state(Scope::User, &[timer, service, properties(&[])], Some(true)).unwrap();
        assert_eq!((state.unit.as_str(), state.kind, state.enabled), ("dbx-rotator.timer", Way::Timer, true));
        assert_eq!(state.next_run_at.unwrap().as_second(), 1_764_057_600);
        assert!(!state.last_run_was_well() && state.lacks_sandbox() && state.is_up());
    }

    #[test]
    fn times_are_read_as_each_systemd_prints_them() {
        assert_eq!(time("@1764057631").unwrap(), time("Tue 2025-11-25 08:00:31 UTC").unwrap());
        for nothing in ["", "n/a", "0", "@0", "infinity"] {
            assert_eq!(time(nothing), None, "{nothing}");
        }
        assert_eq!((span("2min"), span("1min 30s").unwrap().as_secs(), span("0")), (span("120s"), 90, None));
    }

    #[test]
    fn a_daemon_that_runs_comes_before_a_timer_that_is_only_enabled() {
        let daemon = properties(&[
            ("Id", "dbx-rotator-daemon.service"),
            ("ActiveState", "active"),
            ("WatchdogUSec", "2min"),
            ("NRestarts", "3"),
        ]);
        let timer = properties(&[("UnitFileState", "enabled"), ("ActiveState", "inactive")]);
        let state = state(Scope::User, &[timer, properties(&[]), daemon], None).unwrap();
        assert_eq!((state.kind, state.watchdog_seconds, state.restarts), (Way::Daemon, Some(120.0), 3));
    }

    #[test]
    fn what_nobody_set_up_is_no_service() {
        let none = properties(&[("LoadState", "not-found"), ("ActiveState", "inactive")]);
        assert_eq!(state(Scope::User, &[none.clone(), none.clone(), none], None), None);
    }
}
