//! The daemon under systemd: `systemctl --user enable --now dbx-rotator-daemon.service`.

use std::time::{Duration, Instant};

use super::{Release, SOON, Stage, Workspace};
use crate::support::{Fault, Outcome};

const DAEMON: &str = "dbx-rotator-daemon.service";

impl Stage {
    #[track_caller]
    fn status_text(&self) -> String {
        self.property(DAEMON, "StatusText")
    }

    /// Waits until a property of the daemon's unit has this value.
    #[track_caller]
    fn comes_to(&self, property: &str, wanted: &str) {
        let began = Instant::now();
        loop {
            let seen = self.property(DAEMON, property);
            if seen.contains(wanted) {
                return;
            }
            assert!(began.elapsed() < SOON, "{property} is {seen:?}, not {wanted:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn start_daemon(&self) -> Outcome {
        self.systemctl(&["start", DAEMON])
    }
}

fn its_start_ends_when_you_can_log_in_and_its_status_says_until_when(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.systemctl(&["enable", "--now", DAEMON]).exits(0);
    stage.log_in();
    assert_eq!(stage.property(DAEMON, "ActiveState"), "active");
    let said = stage.status_text();
    assert!(said.contains("orders: valid until ") && said.contains("(60 min), next rotation "), "{said}");
    // It has pinged the watchdog at the latest when it started.
    assert_eq!(stage.property(DAEMON, "WatchdogUSec"), "2min");
    // It ends when it is told to: after this time systemd would kill it.
    stage.adjust(DAEMON, "[Service]\nTimeoutStopSec=20s\n");
    stage.systemctl(&["stop", DAEMON]).exits(0);
    assert_eq!(
        (stage.property(DAEMON, "Result"), stage.property(DAEMON, "ActiveState")),
        ("success".into(), "inactive".into())
    );
    stage.says(DAEMON, "Stopped");
    // With a live entry it is ready without a request.
    let asked = stage.workspace.connections();
    stage.start_daemon().exits(0);
    assert_eq!(stage.workspace.connections(), asked);
}

fn its_start_waits_for_the_workspace_and_asks_for_more_time(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.adjust(DAEMON, "[Service]\nTimeoutStartSec=10s\n");
    stage.workspace.outage_begins();
    let began = Instant::now();
    stage.systemctl(&["start", "--no-block", DAEMON]).exits(0);
    stage.comes_to("StatusText", "no live credential, next try ");
    // Past the time limit, which only the daemon's own reports can extend.
    std::thread::sleep(Duration::from_secs(14).saturating_sub(began.elapsed()));
    assert_eq!(stage.property(DAEMON, "ActiveState"), "activating");
    stage.workspace.outage_ends();
    stage.comes_to("ActiveState", "active");
    stage.log_in();
    assert_eq!(stage.property(DAEMON, "NRestarts"), "0");
}

fn a_reload_takes_the_new_settings_and_a_broken_file_keeps_the_old(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.start_daemon().exits(0);
    let (before, pid) = (stage.pgpass(), stage.property(DAEMON, "MainPID"));
    let more = format!("{}{}database = \"app\"\n", stage.config(), stage.connection_table().replace("orders", "app"));
    stage.configure(&more);
    stage.systemctl(&["reload", DAEMON]).exits(0);
    stage.comes_to("StatusText", "app: valid until ");
    assert!(stage.pgpass().contains(before.trim_end()), "what is not changed keeps its credential");
    assert_eq!(stage.pgpass().lines().count(), 2);
    let (issued, after) = (stage.workspace.tokens_issued(), stage.pgpass());
    stage.configure("[[workspace]]\nhots = 1\n");
    stage.systemctl(&["reload", DAEMON]).exits(0);
    stage.comes_to("StatusText", "the new configuration is not in use: unknown setting");
    stage.says(DAEMON, "the old configuration stays in use");
    assert_eq!(stage.pgpass(), after);
    // Once repaired, the file is used without another reload.
    stage.configure(&more);
    stage.comes_to("StatusText", "orders: valid until ");
    assert_eq!(stage.workspace.tokens_issued(), issued);
    assert_eq!(stage.property(DAEMON, "MainPID"), pid);
}

/// With `Type=notify-reload` the reload command returns only when the reload is complete.
fn a_reload_can_wait_for_its_end(test: &str, release: Release) {
    if release == Release::Bookworm {
        return;
    }
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    let drop_in = include_str!("../../../dist/systemd/examples/notify-reload.conf");
    stage.adjust(DAEMON, drop_in);
    stage.start_daemon().exits(0);
    for round in 0..3 {
        let name = format!("app{round}");
        let more = stage.connection_table().replace("orders", &name);
        stage.configure(&format!("{}{more}database = \"{name}\"\n", stage.config()));
        stage.systemctl(&["reload", DAEMON]).exits(0);
        assert!(stage.pgpass().contains(&format!(":{name}:")), "after the reload it is there");
        assert!(stage.status_text().contains(&name));
    }
    stage.log_in();
}

/// A stopped process stands in for a loop that hangs: neither pings.
fn a_loop_that_hangs_is_started_again(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.adjust(DAEMON, "[Service]\nWatchdogSec=10s\nTimeoutAbortSec=1s\nRestartSec=100ms\n");
    stage.start_daemon().exits(0);
    stage.machine.as_user("alice", &["rm", ".pgpass"]).exits(0);
    // Nothing in a home can make the loop hang.
    stage.systemctl(&["kill", "-s", "STOP", DAEMON]).exits(0);
    stage.says(DAEMON, "Watchdog timeout");
    stage.comes_to("ActiveState", "active");
    assert_ne!(stage.property(DAEMON, "NRestarts"), "0");
    stage.log_in();
}

fn a_killed_one_comes_back(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.adjust(DAEMON, "[Service]\nRestartSec=100ms\n");
    stage.start_daemon().exits(0);
    stage.machine.as_user("alice", &["rm", ".pgpass"]).exits(0);
    stage.systemctl(&["kill", "-s", "KILL", DAEMON]).exits(0);
    stage.comes_to("NRestarts", "1");
    stage.comes_to("ActiveState", "active");
    stage.log_in();
}

fn what_needs_a_person_is_a_state_and_is_left_when_a_file_changes(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.write_secret("not-the-secret-of-anybody");
    stage.start_daemon().exits(0);
    let said = stage.status_text();
    assert!(said.contains("needs a person") && said.contains("check the client id"), "{said}");
    assert_eq!(stage.workspace.token_requests(), 1);
    stage.write_secret(stage.workspace.client_secret());
    stage.comes_to("StatusText", "orders: valid until ");
    stage.log_in();
    assert_eq!((stage.property(DAEMON, "NRestarts"), stage.workspace.token_requests()), ("0".into(), 2));
    // It was reported once.
    let said = stage.machine.journal("alice", DAEMON);
    assert_eq!(said.matches("refused the sign-in").count(), 1, "{said}");
}

fn a_faulty_configuration_ends_it_and_it_is_not_started_again(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.configure("[[workspace]]\nhots = 1\n");
    stage.start_daemon().exits(1);
    assert_eq!(stage.property(DAEMON, "ExecMainStatus"), "78");
    assert_eq!(
        (stage.property(DAEMON, "ActiveState"), stage.property(DAEMON, "NRestarts")),
        ("failed".into(), "0".into())
    );
    stage.says(DAEMON, "unknown setting");
}

fn the_daemon_and_the_timer_take_turns(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.systemctl(&["start", "dbx-rotator.timer"]).exits(0);
    stage.start_daemon().exits(0);
    assert_eq!(stage.property("dbx-rotator.timer", "ActiveState"), "inactive");
    stage.systemctl(&["start", "dbx-rotator.timer"]).exits(0);
    // The timer does not wait for the daemon's end.
    stage.waits_for("alice", DAEMON, "ActiveState", "inactive");
}

fn a_workspace_that_is_gone_costs_no_login_while_the_password_lives(test: &str, release: Release) {
    let workspace = Workspace::builder().token_life(Duration::from_secs(40)).start();
    let Some(stage) = Stage::set(test, release, workspace) else { return };
    stage.start_daemon().exits(0);
    // Due after half of its life: from then on requests fail.
    stage.workspace.faults_on(crate::support::Endpoint::Token).always(Fault::Status(503));
    assert!(stage.workspace.wait_for_token_requests(4, SOON));
    stage.log_in();
    stage.comes_to("StatusText", "next try ");
    stage.workspace.heal();
    assert!(stage.workspace.wait_for_tokens_issued(2, SOON));
    stage.comes_to("StatusText", "next rotation ");
    stage.log_in();
}

crate::support::on_each_release!(
    its_start_ends_when_you_can_log_in_and_its_status_says_until_when,
    its_start_waits_for_the_workspace_and_asks_for_more_time,
    a_reload_takes_the_new_settings_and_a_broken_file_keeps_the_old,
    a_reload_can_wait_for_its_end,
    a_loop_that_hangs_is_started_again,
    a_killed_one_comes_back,
    what_needs_a_person_is_a_state_and_is_left_when_a_file_changes,
    a_faulty_configuration_ends_it_and_it_is_not_started_again,
    the_daemon_and_the_timer_take_turns,
    a_workspace_that_is_gone_costs_no_login_while_the_password_lives,
);
