//! The agent's state as launchd sees it, read from `launchctl print`. That output is made for people, but what is read here has
//! not changed since macOS 10.11.

use crate::os::launchd::LABEL;
use crate::service::{Scope, State, Way};

/// From the answer for a job that is loaded.
pub(super) fn state(answer: &str, enabled: bool) -> State {
    let word = of(answer, "state").unwrap_or("unknown");
    let exit = of(answer, "last exit code").and_then(exit_code);
    let signal = of(answer, "last terminating signal");
    let ended_well = exit.is_none_or(|code| code == 0) && signal.is_none();
    let active = match word {
        "running" => "active",
        "spawn scheduled" | "spawning" | "xpcproxy" => "activating",
        _ if ended_well => "inactive",
        _ => "failed",
    };
    let runs: u64 = of(answer, "runs").and_then(|runs| runs.parse().ok()).unwrap_or_default();
    let result = match (exit, signal) {
        (_, Some(_)) => Some("signal"),
        (Some(0), _) => Some("success"),
        (Some(_), _) => Some("exit-code"),
        (None, None) => None,
    };
    State {
        active_state: active.to_owned(),
        sub_state: word.to_owned(),
        // After a restart, the end of the previous run no longer matters.
        last_result: result.filter(|_| active != "active").map(str::to_owned),
        last_exit_code: exit.filter(|_| active != "active"),
        restarts: runs.saturating_sub(1),
        ..unloaded(enabled)
    }
}

/// The state of an agent that is set up but not loaded.
pub(super) fn unloaded(enabled: bool) -> State {
    State {
        manager: "launchd",
        scope: Scope::User,
        kind: Way::Daemon,
        unit: LABEL.to_owned(),
        user: None,
        enabled,
        active_state: "inactive".to_owned(),
        sub_state: "not loaded".to_owned(),
        next_run_at: None,
        last_run_at: None,
        last_result: None,
        last_exit_code: None,
        // launchd has none, and does not know the program's own.
        watchdog_seconds: None,
        restarts: 0,
        status_text: None,
        has_environment: false,
        lacks_namespaces: false,
        lingering: None,
    }
}

/// A value of the job itself, which is indented by one step. The dictionaries inside it have the same keys.
fn of<'a>(answer: &'a str, key: &str) -> Option<&'a str> {
    let values = answer.lines().filter_map(|line| line.strip_prefix('\t')?.split_once(" = "));
    let mut values = values.filter(|(name, _)| !name.starts_with('\t'));
    values.find(|(name, _)| *name == key).map(|(_, value)| value.trim())
}

/// `78: EX_CONFIG`, `0`; none for `(never exited)`.
fn exit_code(said: &str) -> Option<i32> {
    said.split(':').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(state: &str, rest: &str) -> String {
        format!(
            "gui/501/{LABEL} = {{\n\tactive count = 1\n\tstate = {state}\n\n\tenvironment = {{\n\t\truns = 99\n\t\tlast exit code = 9\n\t}}\n\n{rest}}}\n"
        )
    }

    #[test]
    fn one_that_runs_is_active_whatever_it_ended_with_before() {
        let state = state(&answer("running", "\truns = 3\n\tpid = 7\n\tlast exit code = 78: EX_CONFIG\n"), true);
        assert_eq!((state.active_state.as_str(), state.sub_state.as_str(), state.restarts), ("active", "running", 2));
        assert!(state.is_up() && state.last_run_was_well() && state.enabled);
        assert_eq!((state.manager, state.last_exit_code), ("launchd", None));
    }

    #[test]
    fn one_that_has_ended_says_how() {
        let failed = state(&answer("not running", "\truns = 1\n\tlast exit code = 78: EX_CONFIG\n"), true);
        assert_eq!((failed.active_state.as_str(), failed.last_exit_code), ("failed", Some(78)));
        assert!(!failed.last_run_was_well() && !failed.lacks_sandbox());
        let killed = state(&answer("not running", "\tlast terminating signal = Abort trap: 6\n"), true);
        assert_eq!(killed.last_result.as_deref(), Some("signal"));
        let fresh = state(&answer("spawn scheduled", "\truns = 0\n\tlast exit code = (never exited)\n"), false);
        assert!(fresh.is_up() && fresh.last_result.is_none() && !fresh.enabled);
    }
}
