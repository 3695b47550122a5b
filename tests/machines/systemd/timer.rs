//! `systemctl --user enable --now dbx-rotator.timer`, as people type it.

use std::time::Duration;

use super::{Release, SOON, Stage, Workspace};

const TIMER: &str = "dbx-rotator.timer";
const SERVICE: &str = "dbx-rotator.service";
const DONE: &str = "Token rotation completed successfully";

fn the_timer_rotates_when_it_is_enabled_and_plans_the_next_run(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.systemctl(&["enable", "--now", TIMER]).exits(0);
    stage.says(SERVICE, DONE);
    stage.log_in();
    // What people type, word for word.
    let journal = stage.machine.as_user("alice", &["journalctl", "--user", "-u", "dbx-rotator"]);
    journal.exits(0).stdout_has("Starting OAuth token rotation cycle").stdout_has(DONE).stdout_has("dbx-rotator[");
    // At the next multiple of ten minutes on the wall clock, or up to two minutes later.
    let status = stage.machine.as_user("alice", &["dbx-rotator", "status", "--json"]);
    let service = &status.exits(0).json()["service"];
    for (key, value) in [("unit", TIMER), ("kind", "timer"), ("active_state", "active"), ("last_result", "success")] {
        assert_eq!(service[key], value, "{status}");
    }
    let next: jiff::Timestamp = service["next_run_at"].as_str().expect("a time").parse().unwrap();
    let left = next.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((-1..=722).contains(&left), "the next run is in {left} s");
    assert_eq!(stage.workspace.tokens_issued(), 1);
}

fn it_rotates_again_at_its_time_and_only_what_is_due(test: &str, release: Release) {
    let workspace = Workspace::builder().token_life(Duration::from_secs(20)).start();
    let Some(stage) = Stage::set(test, release, workspace) else { return };
    let often = "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/1\nRandomizedDelaySec=0\nAccuracySec=10ms\n";
    stage.adjust(TIMER, often);
    stage.systemctl(&["enable", "--now", TIMER]).exits(0);
    // Half of a life of 20 s, in which the timer has run ten times.
    assert!(stage.workspace.wait_for_tokens_issued(3, SOON * 2));
    assert_eq!(stage.workspace.token_requests(), stage.workspace.tokens_issued());
    stage.log_in();
    assert_eq!(stage.property(SERVICE, "Result"), "success");
}

fn a_user_without_a_configuration_is_left_in_peace(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    stage.systemctl(&["enable", "--now", TIMER]).exits(0);
    stage.systemctl(&["start", SERVICE]).exits(0);
    assert_eq!(stage.property(SERVICE, "ConditionResult"), "no");
    stage.systemctl(&["enable", "--now", "dbx-rotator-daemon.service"]).exits(0);
    assert_eq!(stage.property("dbx-rotator-daemon.service", "ActiveState"), "inactive");
    stage.systemctl(&["--failed", "--plain", "--no-legend"]).prints_nothing();
    assert_eq!((stage.pgpass().as_str(), stage.workspace.connections()), ("", 0));
}

fn it_needs_no_login_and_comes_back_after_a_reboot(test: &str, release: Release) {
    let Some(mut stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.systemctl(&["enable", TIMER]).exits(0);
    assert_eq!(stage.pgpass(), "", "enabled, and not yet started");
    stage.machine.reboot();
    stage.machine.run(&["loginctl", "list-sessions", "--no-legend"]).exits(0).stdout_lacks("seat");
    assert!(stage.workspace.wait_for_tokens_issued(1, SOON));
    stage.says(SERVICE, DONE);
    stage.log_in();
}

fn the_unit_fails_only_when_a_person_is_needed_or_the_password_is_about_to_die(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    let run = "[Service]\nExecStart=\nExecStart=/usr/bin/dbx-rotator rotate --if-due --retry-for 1s\n";
    stage.adjust(SERVICE, run);
    let token_with_left = |minutes: i64| {
        stage.workspace.set_clock_skew((minutes - 60) * 60);
        let token = stage.workspace.issue(stage.workspace.client_id(), Duration::from_secs(3600));
        stage.workspace.set_clock_skew(0);
        stage.write_pgpass(&token);
    };
    stage.workspace.outage_begins();
    // Due, but there is time for another run.
    token_with_left(15);
    stage.systemctl(&["start", SERVICE]).exits(0);
    stage.says(SERVICE, "the next run will try again");
    // Due, and the next run may be too late.
    token_with_left(10);
    stage.systemctl(&["start", SERVICE]).exits(1);
    assert_eq!(stage.property(SERVICE, "ExecMainStatus"), "69");
    stage.workspace.outage_ends();
    // A workspace that asks to wait makes no difference.
    stage.workspace.faults_on(crate::support::Endpoint::Token).always(crate::support::Fault::Status(429));
    stage.systemctl(&["start", SERVICE]).exits(1);
    assert_eq!(stage.property(SERVICE, "ExecMainStatus"), "69");
    stage.workspace.heal();
    // A person is needed, however long the password lives.
    token_with_left(15);
    stage.write_secret("not-the-secret-of-anybody");
    stage.systemctl(&["start", SERVICE]).exits(1);
    assert_eq!(stage.property(SERVICE, "ExecMainStatus"), "77");
    stage.says(SERVICE, "check the client id");
    // The person has acted.
    stage.write_secret(stage.workspace.client_secret());
    stage.systemctl(&["start", SERVICE]).exits(0);
    stage.log_in();
}

crate::support::on_each_release!(
    the_timer_rotates_when_it_is_enabled_and_plans_the_next_run,
    it_rotates_again_at_its_time_and_only_what_is_due,
    a_user_without_a_configuration_is_left_in_peace,
    it_needs_no_login_and_comes_back_after_a_reboot,
    the_unit_fails_only_when_a_person_is_needed_or_the_password_is_about_to_die,
);
