//! What the journal contains: every line of every run, in the journal's own terms, with an explanation.

use serde_json::Value;

use super::{Release, Stage, Workspace};

const SERVICE: &str = "dbx-rotator.service";

impl Stage {
    /// The entries of `journalctl --user` for alice with these matches, as objects.
    #[track_caller]
    fn entries(&self, matches: &[&str]) -> Vec<Value> {
        self.machine.run(&["journalctl", "--sync"]).exits(0);
        let line = [&["journalctl", "--user", "--quiet", "--no-pager", "-o", "json"], matches].concat();
        let said = self.machine.as_user("alice", &line);
        said.exits(0).stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// journald finds a message's unit by its sender's cgroup, which a process that has ended is no longer in.
fn every_line_of_200_short_runs_is_found_under_its_unit(test: &str, release: Release) {
    const RUNS: usize = 200;
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    // The timer's own run, except that it always has something to log.
    stage.adjust(SERVICE, "[Service]\nExecStart=\nExecStart=/usr/bin/dbx-rotator rotate\n");
    let again = format!("for i in $(seq {RUNS}); do systemctl --user start {SERVICE} || exit; done");
    stage.machine.command("alice", &["sh", "-c", &again]).patience(std::time::Duration::from_secs(600)).run().exits(0);
    let found = stage.entries(&["-u", "dbx-rotator", "SYSLOG_IDENTIFIER=dbx-rotator"]);
    let count = |text: &str| {
        found.iter().filter(|entry| entry["MESSAGE"].as_str().is_some_and(|message| message.starts_with(text))).count()
    };
    for line in [
        "Starting OAuth token rotation cycle",
        "Successfully obtained token via OAuth M2M",
        "New token details:",
        "  - Subject: ",
        "  - Expires at: ",
        "  - Valid for: ",
        "Successfully updated /home/alice/.pgpass",
        "orders is valid until ",
        "Token rotation completed successfully",
    ] {
        assert_eq!(count(line), RUNS, "{line}");
    }
    assert_eq!(found.len(), RUNS * 9);
}

/// One line of words shows both: the timer's runs and the daemon.
fn the_daemon_is_found_by_the_same_words_as_the_timers_runs(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.systemctl(&["start", SERVICE]).exits(0);
    stage.systemctl(&["start", "dbx-rotator-daemon.service"]).exits(0);
    let count = |entries: &[Value], unit: &str| {
        entries
            .iter()
            .filter(|entry| entry["_SYSTEMD_USER_UNIT"] == unit && entry["SYSLOG_IDENTIFIER"] == "dbx-rotator")
            .count()
    };
    let found = stage.entries(&["-u", "dbx-rotator"]);
    assert!(count(&found, SERVICE) >= 9, "{found:?}");
    assert!(count(&found, "dbx-rotator-daemon.service") >= 1, "{found:?}");
    // Asked for alone, it is found alone.
    let found = stage.entries(&["-u", "dbx-rotator-daemon"]);
    assert_eq!(count(&found, SERVICE), 0, "{found:?}");
    assert!(count(&found, "dbx-rotator-daemon.service") >= 1, "{found:?}");
}

/// journald is held up while a run begins, speaks and would end. It says little, since a full queue would hold up the run as well.
fn no_line_is_lost_to_a_slow_journal(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.adjust(SERVICE, "[Service]\nExecStart=\nExecStart=/usr/bin/dbx-rotator -q rotate\n");
    stage.write_secret("not-the-secret-of-anybody");
    let journald = stage.machine.run(&["pidof", "systemd-journald"]).exits(0).stdout.trim().to_owned();
    let journald = |signal: &str| stage.machine.run(&["sh", "-c", &format!("kill {signal} {journald}")]);
    journald("-STOP").exits(0);
    stage.systemctl(&["start", "--no-block", SERVICE]).exits(0);
    assert!(stage.workspace.wait_for_token_requests(1, super::SOON));
    // Nothing reports an end that does not happen: this is enough time for one that would.
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(stage.property(SERVICE, "ActiveState"), "activating", "it waits until it has been heard");
    journald("-CONT").exits(0);
    stage.says(SERVICE, "check the client id");
    assert_eq!(stage.entries(&["-u", "dbx-rotator", "SYSLOG_IDENTIFIER=dbx-rotator"]).len(), 1);
}

fn the_events_that_matter_have_fields_priorities_and_an_explanation(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.systemctl(&["start", SERVICE]).exits(0);
    let [rotated] = &stage.entries(&["DBX_OUTCOME=rotated"])[..] else { panic!("one entry, for one rotation") };
    for (field, value) in [
        ("MESSAGE_ID", "ce79da91aa1b4021862743484309ecf3"),
        ("DBX_CONNECTION", "orders"),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "dbx-rotator"),
        ("_SYSTEMD_USER_UNIT", SERVICE),
    ] {
        assert_eq!(rotated[field], value, "{field}: {rotated:#}");
    }
    assert!(rotated["DBX_EXPIRES_AT"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{rotated:#}");

    stage.write_secret("not-the-secret-of-anybody");
    stage.machine.as_user("alice", &["rm", ".pgpass"]).exits(0);
    stage.systemctl(&["start", SERVICE]).exits(1);
    let [refused] = &stage.entries(&["MESSAGE_ID=1c414086903a4e71a162c5d125523a12"])[..] else { panic!("said once") };
    for (field, value) in [("DBX_ERROR_CODE", "sign-in-refused"), ("DBX_CONNECTION", "orders"), ("PRIORITY", "3")] {
        assert_eq!(refused[field], value, "{field}: {refused:#}");
    }
    // What people type when a unit has failed.
    let explained = stage.machine.as_user("alice", &["journalctl", "--user", "-xu", "dbx-rotator"]);
    explained
        .exits(0)
        .stdout_has("Subject: Renewing a PostgreSQL password needs you")
        .stdout_has("Trying again will not help here (sign-in-refused)")
        .stdout_has("Subject: The PostgreSQL password of orders was renewed");
}

fn what_passes_is_a_warning_and_what_died_is_told_once(test: &str, release: Release) {
    let workspace = Workspace::builder().token_life(std::time::Duration::from_secs(16)).start();
    let Some(stage) = Stage::set(test, release, workspace) else { return };
    stage.systemctl(&["start", "dbx-rotator-daemon.service"]).exits(0);
    stage.workspace.outage_begins();
    stage.says("dbx-rotator-daemon.service", "orders expired at ");
    let [expired] = &stage.entries(&["MESSAGE_ID=fb4837c583004d7a97433282fda35dac"])[..] else { panic!("told once") };
    assert_eq!((&expired["DBX_OUTCOME"], &expired["PRIORITY"]), (&"expired".into(), &"3".into()), "{expired:#}");
    let tries = stage.entries(&["MESSAGE_ID=8b56375e0b7d46d391b8819f45eda73e"]);
    assert_eq!(tries[0]["PRIORITY"], "4");
    assert_eq!(tries[0]["DBX_ERROR_KIND"], "transient");
    assert!(tries[0]["DBX_NEXT_TRY_AT"].is_string());
}

crate::support::on_each_release!(
    every_line_of_200_short_runs_is_found_under_its_unit,
    the_daemon_is_found_by_the_same_words_as_the_timers_runs,
    no_line_is_lost_to_a_slow_journal,
    the_events_that_matter_have_fields_priorities_and_an_explanation,
    what_passes_is_a_warning_and_what_died_is_told_once,
);
