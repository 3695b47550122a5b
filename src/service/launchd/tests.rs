//! The agent's manager with a stand-in for `launchctl` (tests/support/launchctl).

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::service::{ProxyAccess, ProxyManager};

const UID: u32 = 501;

/// A home with a stand-in launchctl.
struct Mac {
    scratch: tempfile::TempDir,
    manager: Launchd,
}

impl Mac {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let program = scratch.path().join("launchctl");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/launchctl");
        // Copied by another process: a file that is open for writing here cannot be run.
        let copied = std::process::Command::new("cp").args([script, &program.display().to_string()]).status();
        assert!(copied.unwrap().success());
        let account = Account { name: "ada".to_owned(), home: scratch.path().join("home") };
        let manager = Launchd::with(program, UID, &account);
        Mac { scratch, manager }
    }

    /// Tells the stand-in how to behave.
    fn tell(&self, what: &str, text: &str) {
        fs::write(self.scratch.path().join(what), text).unwrap();
    }

    fn has(&self, what: &str) -> bool {
        self.scratch.path().join(what).exists()
    }

    /// The verbs of all calls since the last time, except queries.
    fn calls(&self) -> Vec<String> {
        let file = self.scratch.path().join("calls");
        let calls = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(file);
        let told = calls.lines().filter(|call| !call.starts_with("print") && !call.starts_with("getenv"));
        told.map(|call| call.replace(&self.scratch.path().display().to_string(), "")).collect()
    }

    fn install(&self) -> Result<Started, Failure> {
        self.manager.provide(Path::new("/opt/homebrew/bin/dbx-rotator"), Way::Daemon, false, &[])?;
        self.manager.enable(Way::Daemon)
    }

    fn state(&self) -> State {
        self.manager.state().unwrap().unwrap()
    }
}

const BOOTSTRAP: &str = "bootstrap gui/501 /home/Library/LaunchAgents/app.dbx-rotator.agent.plist";
const AGENT: &str = "app.dbx-rotator.agent";

#[test]
fn it_is_installed_loaded_started_and_seen() {
    let mac = Mac::new();
    assert!(mac.manager.state().unwrap().is_none());
    assert_eq!(mac.install().unwrap(), Started::Untold);
    let enable = format!("enable gui/501/{AGENT}");
    let calls = mac.calls();
    assert_eq!(calls[2..], [enable, BOOTSTRAP.to_owned(), format!("kickstart gui/501/{AGENT}")]);
    assert!(!calls.iter().any(|call| call.starts_with("load") || call.starts_with("unload")), "{calls:?}");
    let state = mac.state();
    assert_eq!((state.unit.as_str(), state.manager, state.enabled), (AGENT, "launchd", true));
    assert!(state.is_up() && state.last_run_was_well());
    let file = mac.manager.file(LABEL);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("<string>/opt/homebrew/bin/dbx-rotator</string>") && text.contains(MARK), "{text}");
    assert!(text.contains("home/Library/Logs/dbx-rotator.log") && mac.manager.home.join("Library/Logs").is_dir());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn a_second_install_ends_the_first_and_waits_until_it_has_gone() {
    let mac = Mac::new();
    mac.install().unwrap();
    mac.calls();
    // bootout answers 36, and the job still exists for the next three queries.
    mac.tell("lingers", "3");
    mac.install().unwrap();
    assert_eq!(mac.calls()[0], format!("bootout gui/501/{AGENT}"));
    assert!(!mac.has("lingers") && mac.state().is_up());
}

#[test]
fn a_job_that_does_not_end_is_said_with_what_ends_it() {
    let mut mac = Mac::new();
    mac.manager.longest_end = Duration::from_secs(2);
    mac.install().unwrap();
    mac.tell("lingers", "1000000");
    let failure = mac.manager.stop().unwrap_err();
    assert_eq!((failure.code, failure.is_transient()), (Code::TryAgain, true));
    assert_eq!(failure.hint.unwrap(), format!("launchctl kill KILL gui/501/{AGENT}"));
}

#[test]
fn error_5_and_37_of_bootstrap_are_tried_again_while_an_old_job_is_on_its_way_out() {
    let mac = Mac::new();
    mac.tell("refuse", "bootstrap 5\nbootstrap 37\nbootstrap 5\n");
    mac.install().unwrap();
    assert_eq!(mac.calls().iter().filter(|call| *call == BOOTSTRAP).count(), 4);
    assert!(mac.state().is_up());
}

#[test]
fn error_5_of_a_job_that_somebody_else_has_loaded_meanwhile_is_none() {
    let mac = Mac::new();
    mac.manager.provide(Path::new("/x"), Way::Daemon, false, &[]).unwrap();
    for domain in ["gui", "user"] {
        mac.tell(domain, "");
        mac.tell("runs", "1");
        assert_eq!(mac.manager.load(LABEL).unwrap(), Started::Untold);
        assert_eq!(mac.calls().last().unwrap(), &format!("kickstart {domain}/501/{AGENT}"));
        fs::remove_file(mac.scratch.path().join(domain)).unwrap();
    }
}

#[test]
fn error_5_that_stays_says_what_to_look_at() {
    let mut mac = Mac::new();
    mac.manager.longest_end = Duration::from_secs(2);
    mac.tell("refuse", &"bootstrap 5\n".repeat(1_000));
    let failure = mac.install().unwrap_err();
    assert!(failure.message.contains("5: Input/output error"), "{failure}");
    assert!(failure.hint.unwrap().contains("plutil -lint"));
}

#[test]
fn without_anybody_at_the_screen_the_background_domain_will_do() {
    let mac = Mac::new();
    mac.tell("no-gui", "");
    mac.install().unwrap();
    let calls = mac.calls();
    assert!(calls.contains(&BOOTSTRAP.to_owned()) && calls.contains(&BOOTSTRAP.replace("gui/", "user/")), "{calls:?}");
    assert!(mac.has("user") && !mac.has("gui") && mac.state().is_up());
    mac.manager.stop().unwrap();
    assert!(!mac.has("user"));
}

#[test]
fn stopped_it_stays_set_up_and_started_it_runs_again() {
    let mac = Mac::new();
    mac.install().unwrap();
    mac.manager.stop().unwrap();
    let state = mac.state();
    assert_eq!((state.active_state.as_str(), state.sub_state.as_str()), ("inactive", "not loaded"));
    assert!(state.enabled && !state.is_up());
    mac.calls();
    mac.manager.start(Way::Daemon).unwrap();
    assert!(mac.state().is_up());
    // A running job stays: launchctl answers 37.
    mac.calls();
    mac.manager.start(Way::Daemon).unwrap();
    assert_eq!(mac.calls(), [format!("kickstart gui/501/{AGENT}")]);
    mac.manager.restart(Way::Daemon).unwrap();
    assert_eq!(mac.calls(), [format!("kickstart -k gui/501/{AGENT}")]);
}

#[test]
fn what_it_ended_with_is_seen() {
    let mac = Mac::new();
    mac.install().unwrap();
    mac.tell("exit", "78: EX_CONFIG");
    let state = mac.state();
    assert_eq!((state.active_state.as_str(), state.last_exit_code), ("failed", Some(78)));
    assert!(!state.is_up() && !state.last_run_was_well());
}

#[test]
fn one_that_was_disabled_by_hand_is_seen_and_can_be_started() {
    let mac = Mac::new();
    mac.install().unwrap();
    mac.manager.stop().unwrap();
    mac.tell("disabled", "");
    assert!(!mac.state().enabled);
    mac.manager.start(Way::Daemon).unwrap();
    assert!(mac.state().enabled && mac.state().is_up());
}

#[test]
fn removed_nothing_of_ours_is_left() {
    let mac = Mac::new();
    mac.install().unwrap();
    let file = mac.manager.file(LABEL);
    assert_eq!(mac.manager.remove().unwrap(), std::slice::from_ref(&file));
    assert!(!file.exists() && !mac.has("gui") && !mac.has("disabled"));
    assert!(mac.manager.state().unwrap().is_none() && mac.manager.remains().is_none());
    // Removing it again is no error.
    assert!(mac.manager.remove().unwrap().is_empty());
}

#[test]
fn what_homebrew_has_put_there_is_used_and_stays() {
    let mac = Mac::new();
    let file = mac.manager.file(LABEL);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/launchd/app.dbx-rotator.agent.plist");
    fs::copy(dist, &file).unwrap();
    mac.install().unwrap();
    assert_eq!(fs::read(&file).unwrap(), fs::read(dist).unwrap());
    assert!(mac.manager.remove().unwrap().is_empty());
    // Otherwise it would be back at the next login.
    assert!(file.exists() && mac.has("disabled") && !mac.has("gui"));
    assert!(mac.manager.remains().unwrap().contains("brew services stop"));
}

#[test]
fn the_python_originals_agent_is_read_and_put_out_of_service() {
    let mac = Mac::new();
    assert!(mac.manager.original().unwrap().is_none());
    let file = mac.manager.file(ORIGINAL);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let agent = "<?xml version=\"1.0\"?><plist version=\"1.0\"><dict><key>Label</key><string>x</string>\
        <key>ProgramArguments</key><array><string>/usr/bin/python3</string><string>--pg-host</string><string>db</string></array>\
        <key>EnvironmentVariables</key><dict><key>DATABRICKS_CLIENT_ID</key><string>a &amp; b</string></dict>\
        <key>StartInterval</key><integer>9</integer></dict></plist>";
    fs::write(&file, agent).unwrap();
    mac.calls();
    let original = mac.manager.original().unwrap().unwrap();
    assert_eq!((original.name, original.in_service, &original.file), (ORIGINAL, true, &file));
    let told = &original.told;
    assert_eq!(
        told.words.iter().map(|word| word.as_str()).collect::<Vec<_>>(),
        ["/usr/bin/python3", "--pg-host", "db"]
    );
    assert_eq!((told.variables[0].0.as_str(), told.variables[0].1.as_str()), ("DATABRICKS_CLIENT_ID", "a & b"));
    assert_eq!(told.left, ["StartInterval of the agent"]);
    mac.manager.retire_original().unwrap();
    assert_eq!(mac.calls().last().unwrap(), &format!("disable gui/501/{ORIGINAL}"));
    fs::write(&file, "no list").unwrap();
    assert!(mac.manager.original().unwrap().unwrap().told.left[0].contains("it is no property list"));
}

#[test]
fn the_proxy_is_an_agent_of_its_own_that_is_installed_looked_at_and_removed_by_itself() {
    const PROXY: &str = "app.dbx-rotator.proxy";
    let mac = Mac::new();
    mac.install().unwrap();
    assert!(mac.manager.proxy().unwrap().is_none());
    mac.calls();
    let program = Path::new("/opt/homebrew/bin/dbx-rotator");
    let written = mac.manager.provide_proxy(program, &ProxyAccess::default(), false, &[]).unwrap();
    assert_eq!(written, [mac.manager.file(PROXY)]);
    let text = fs::read_to_string(&written[0]).unwrap();
    assert!(text.contains("<string>proxy</string>") && text.contains("Logs/dbx-rotator-proxy.log"), "{text}");
    mac.manager.enable_proxy().unwrap();
    let seen = mac.manager.proxy().unwrap().unwrap();
    assert_eq!((seen.unit.as_str(), seen.sub_state.as_str(), seen.enabled), (PROXY, "running", true));
    assert!(seen.is_well());
    // Its sessions have their time: it is booted out, and not kicked out.
    mac.calls();
    mac.manager.restart_proxy().unwrap();
    let calls = mac.calls();
    assert!(calls[0].starts_with("bootout") && !calls.iter().any(|call| call.contains(" -k ")), "{calls:?}");
    assert!(calls.iter().all(|call| call.contains(PROXY)), "{calls:?}");
    mac.tell("proxy/exit", "78: EX_CONFIG");
    let seen = mac.manager.proxy().unwrap().unwrap();
    assert_eq!((seen.is_up(), seen.last_result.as_deref(), seen.last_exit_code), (false, Some("exit-code"), Some(78)));
    assert!(mac.state().is_up(), "the other goes on");
    fs::remove_file(mac.scratch.path().join("proxy/exit")).unwrap();
    mac.manager.stop_proxy().unwrap();
    assert_eq!(mac.manager.proxy().unwrap().unwrap().sub_state, "not loaded");
    mac.manager.start_proxy().unwrap();
    assert_eq!(mac.manager.remove_proxy().unwrap(), written);
    assert!(mac.manager.proxy().unwrap().is_none() && mac.state().is_up());
    assert!(mac.manager.remove_proxy().unwrap().is_empty());
}

#[test]
fn what_launchd_cannot_do_is_refused_with_what_to_do_instead() {
    let mac = Mac::new();
    let lingering = mac.manager.enable_lingering().unwrap_err();
    let relaxed = mac.manager.provide(Path::new("/x"), Way::Daemon, true, &[]).unwrap_err();
    let account = Account { name: "ada".to_owned(), home: PathBuf::from("/Users/ada") };
    let Err(system) = Launchd::new(Scope::System, &account) else { panic!("there is none for the machine") };
    for (failure, option) in [(lingering, "--linger"), (relaxed, "--relaxed"), (system, "--system")] {
        assert_eq!(failure.code.exit_code(), 78);
        assert!(failure.hint.unwrap().contains(option));
    }
    assert_eq!(mac.manager.way(false), Way::Daemon);
}

#[test]
fn a_variable_of_this_shell_that_the_agent_does_not_see_is_said() {
    let mac = Mac::new();
    let here: Environment = [("SSL_CERT_FILE", "/etc/corp.pem")].into_iter().collect();
    let advice = mac.manager.advice(Way::Daemon, &["SSL_CERT_FILE", "SSL_CERT_DIR"], &here, false);
    assert!(advice.len() == 1 && advice[0].starts_with("SSL_CERT_FILE:") && !advice[0].contains("corp.pem"));
    assert!(mac.manager.logs(Way::Daemon).contains("subsystem == \"app.dbx-rotator\""));
    assert!(mac.manager.environment().get("PATH").unwrap().contains("/opt/homebrew/bin"));
}

#[test]
fn a_launchctl_that_is_not_there_is_said() {
    let account = Account { name: "ada".to_owned(), home: PathBuf::from("/nonexistent") };
    let manager = Launchd::with("/nonexistent/launchctl", UID, &account);
    let failure = manager.start(Way::Daemon).unwrap_err();
    assert!(failure.code == Code::Unavailable && failure.message.contains("launchctl print"), "{failure}");
}
