//! `dbx-rotator service`: set up, shown and removed again with one command each.

use super::{Release, SOON, Stage, Workspace, stage};
use crate::support::Outcome;

const TIMER: &str = "dbx-rotator.timer";
const DAEMON: &str = "dbx-rotator-daemon.service";

impl Stage {
    /// The workspace setting that no option can give: its authority.
    fn trust_the_workspace(&self) {
        let table =
            format!("[[workspace]]\nca_file = \"/etc/ssl/workspace-ca.pem\"\nhost = \"{}\"\n", self.workspace.url());
        self.machine.write(&format!("{}/config.toml", stage::SETTINGS), table, 0o600, Some("alice"));
    }

    /// `dbx-rotator service ...` as alice.
    #[track_caller]
    fn service(&self, arguments: &[&str]) -> Outcome {
        self.machine.as_user("alice", &[&["dbx-rotator", "service"], arguments].concat())
    }

    /// The same with the options that users of the original give, and the secret in the environment.
    #[track_caller]
    fn install(&self, program: &[&str], more: &[&str]) -> Outcome {
        let secret = format!("DATABRICKS_CLIENT_SECRET={}", self.workspace.client_secret());
        let id = format!("DATABRICKS_CLIENT_ID={}", self.workspace.client_id());
        let (url, port) = (self.workspace.url(), self.server.port().to_string());
        let settings = ["--workspace-url", &url, "--pg-host", "127.0.0.1", "--pg-username", self.workspace.client_id()];
        let line = [&["env", &secret, &id], program, &settings, &["--pg-port", &port], more].concat();
        self.machine.command("alice", &line).shown_as(format!("{} ... {}", program.join(" "), more.join(" "))).run()
    }

    /// Every file of alice's settings and units.
    fn files(&self) -> String {
        let list = "cd && find .config -type f -o -type l | sort";
        self.machine.as_user("alice", &["sh", "-c", list]).exits(0).stdout.clone()
    }
}

fn one_command_sets_up_the_timer_and_one_takes_it_away(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    stage.trust_the_workspace();
    let install = ["dbx-rotator", "service", "install"];
    // A configuration exists already, and nobody can be asked.
    let refused = stage.install(&install, &["--interval", "30"]);
    refused.exits(64).stderr_has("would change:").stderr_has("interval = \"30m\"").stderr_has("--yes");
    assert_eq!(stage.files(), ".config/dbx-rotator/config.toml\n", "nothing was changed");
    let done = stage.install(&install, &["--interval", "30", "--yes"]);
    done.exits(0).stdout_has("Enabled dbx-rotator.timer").stdout_has("live").stdout_has("next run in");
    stage.log_in();
    let config = stage.machine.read(&format!("{}/config.toml", stage::SETTINGS));
    assert!(config.starts_with("interval = \"30m\"\n\n[[workspace]]\nca_file = "), "{config}");
    assert!(
        config.contains("client_secret_file = \"client-secret\"") && !config.contains(stage.workspace.client_secret())
    );
    let modes = stage.machine.as_user("alice", &["stat", "-c", "%n %a", ".config/dbx-rotator/client-secret"]);
    modes.exits(0).stdout_has("client-secret 600");
    // The packaged units are used.
    assert!(!stage.files().contains(".config/systemd/user/dbx-rotator.service"), "{}", stage.files());
    stage.service(&["status"]).exits(0).stdout_has("dbx-rotator.timer (systemd, yours): active (waiting)");

    stage.service(&["stop"]).exits(0);
    stage.service(&["status"]).exits(1).stdout_has("inactive");
    stage.service(&["start"]).exits(0);
    stage.service(&["restart"]).exits(0);
    let gone = stage.service(&["uninstall"]);
    gone.exits(0).stdout_has("Kept /home/alice/.config/dbx-rotator/config.toml");
    assert_eq!(stage.files(), ".config/dbx-rotator/client-secret\n.config/dbx-rotator/config.toml\n");
    stage.service(&["status"]).exits(1).stderr_has("no service is set up here");
    stage.service(&["uninstall", "--purge"]).exits(0);
    assert_eq!(stage.files(), "");
    stage.log_in();
}

/// Only on one release: it has script(1).
#[test]
fn a_person_is_asked_before_a_file_is_changed() {
    let test = "a_person_is_asked_before_a_file_is_changed";
    let Some(stage) = Stage::set(test, Release::Bookworm, Workspace::start()) else { return };
    let before = stage.machine.read(&format!("{}/config.toml", stage::SETTINGS));
    // Standard input is a terminal.
    let line = ["script", "-qec", "dbx-rotator service install --interval 30", "/dev/null"];
    let answer = |answer: &str| stage.machine.command("alice", &line).stdin(answer).run();
    answer("\n")
        .exits(64)
        .stdout_has("interval = \"30m\"")
        .stdout_has("Change it? [y/N]")
        .stdout_has("nothing was changed");
    assert_eq!(stage.machine.read(&format!("{}/config.toml", stage::SETTINGS)), before);
    answer("y\n").exits(0).stdout_has("live");
    let after = stage.machine.read(&format!("{}/config.toml", stage::SETTINGS));
    assert_eq!(after, format!("interval = \"30m\"\n\n{before}"));
}

fn where_no_units_are_installed_they_are_written_and_removed(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    let move_away =
        "mkdir -p '/opt/my tools' && mv /usr/bin/dbx-rotator '/opt/my tools/' && rm /usr/lib/systemd/user/dbx-rotator*";
    stage.machine.run(&["sh", "-c", move_away]).exits(0);
    stage.systemctl(&["daemon-reload"]).exits(0);
    let program = "/opt/my tools/dbx-rotator";
    let done = stage.machine.as_user("alice", &[program, "service", "install", "--daemon"]);
    done.exits(0).stdout_has("Wrote /home/alice/.config/systemd/user/dbx-rotator-daemon.service");
    stage.log_in();
    let run = stage.property(DAEMON, "ExecStart");
    assert!(run.contains("/opt/my tools/dbx-rotator") && run.contains("run"), "{run}");
    assert_eq!(stage.property(DAEMON, "ProtectSystem"), "strict");
    let waits = release != Release::Bookworm;
    assert_eq!(stage.property(DAEMON, "Type"), if waits { "notify-reload" } else { "notify" });
    assert_eq!(stage.property(DAEMON, "RestartSteps"), if waits { "6" } else { "" });
    let gone = stage.machine.as_user("alice", &[program, "service", "uninstall"]);
    gone.exits(0).stdout_has("Removed /home/alice/.config/systemd/user/dbx-rotator-daemon.service");
    assert_eq!(stage.files(), ".config/dbx-rotator/client-secret\n.config/dbx-rotator/config.toml\n");
    stage.systemctl(&["--failed", "--plain", "--no-legend"]).prints_nothing();
    from_a_wheel_the_unit_names_its_environment(&stage, program);
}

/// As an installer of Python's lays it out, in a place that stays and in one that does not.
#[track_caller]
fn from_a_wheel_the_unit_names_its_environment(stage: &Stage, program: &str) {
    let environment = |root: &str| {
        let script = format!(
            "mkdir -p {root}/bin && touch {root}/pyvenv.cfg && cp '{program}' {root}/bin/ && chown -R alice: /home/alice"
        );
        stage.machine.run(&["sh", "-c", &script]).exits(0);
        format!("{root}/bin/dbx-rotator")
    };
    let passing = environment("/home/alice/.cache/uv/archive-v0/x");
    let refused = stage.machine.as_user("alice", &[&passing, "service", "install"]);
    refused.exits(78).stderr_has("it is in a cache, /home/alice/.cache").stderr_has("pipx install dbx-rotator");
    let units = stage.machine.as_user("alice", &["ls", "/home/alice/.config/systemd/user"]);
    assert_eq!(units.stdout, "", "nothing was written");
    let lasting = environment("/home/alice/app/.venv");
    let done = stage.machine.as_user("alice", &[&lasting, "service", "install", "--yes"]);
    done.exits(0).stdout_has(&format!("The service starts {lasting} of the environment /home/alice/app/.venv"));
    let run = stage.property("dbx-rotator.service", "ExecStart");
    assert!(run.contains(&lasting), "{run}");
    stage.machine.as_user("alice", &[&lasting, "service", "uninstall"]).exits(0);
}

/// The environment that a user's manager gives its services counts, not the shell's.
fn the_managers_own_environment_decides(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.machine.as_user("alice", &["sh", "-c", "mkdir -p elsewhere"]).exits(0);
    let install = ["env", "XDG_CONFIG_HOME=/home/alice/elsewhere", "dbx-rotator", "service", "install"];
    stage.machine.as_user("alice", &install).exits(0).stdout_has("live");
    stage.log_in();
    let profile = format!(
        "[PROD]\nhost = {}\nclient_id = {}\nclient_secret = {}\n",
        stage.workspace.url(),
        stage.workspace.client_id(),
        stage.workspace.client_secret()
    );
    stage.machine.write("/home/alice/profiles", profile, 0o600, Some("alice"));
    let named = "DATABRICKS_CONFIG_FILE=/home/alice/profiles";
    stage.systemctl(&["set-environment", named]).exits(0);
    let table = "[[workspace]]\nca_file = \"/etc/ssl/workspace-ca.pem\"\nprofile = \"PROD\"\n".to_owned()
        + &stage.connection_table();
    stage.configure(&table);
    stage.machine.as_user("alice", &["rm", ".pgpass"]).exits(0);
    stage.service(&["restart"]).exits(0).stdout_has("live");
    stage.log_in();
}

fn the_originals_commands_do_the_same_and_take_over_from_it(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    stage.trust_the_workspace();
    let original = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=default.target\n";
    let unit = "com.databricks.oauth.rotator.service";
    stage.machine.write(&format!("/home/alice/.config/systemd/user/{unit}"), original, 0o644, Some("alice"));
    stage.systemctl(&["enable", "--now", unit]).exits(0);
    let link =
        "for name in install status restart uninstall; do ln -s dbx-rotator /usr/bin/databricks-oauth-$name; done";
    stage.machine.run(&["sh", "-c", link]).exits(0);
    let done = stage.install(&["databricks-oauth-install"], &["--interval", "50", "--yes"]);
    done.exits(0).stdout_has("Stopped and disabled com.databricks.oauth.rotator.service");
    assert_eq!(
        (stage.property(unit, "ActiveState"), stage.property(unit, "UnitFileState")),
        ("inactive".into(), "disabled".into())
    );
    let as_alice = |name: &str| stage.machine.as_user("alice", &[name]);
    as_alice("databricks-oauth-status").exits(0).stdout_has("live").stdout_has(TIMER);
    as_alice("databricks-oauth-restart").exits(0).stdout_has("live");
    as_alice("databricks-oauth-uninstall").exits(0);
    assert_eq!(stage.property(TIMER, "ActiveState"), "inactive");
    stage.log_in();
}

fn a_first_rotation_that_fails_says_why_and_what_to_do(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.write_secret("not-the-secret-of-anybody");
    let refused = stage.service(&["install"]);
    refused
        .exits(77)
        .stderr_has("refused the sign-in")
        .stderr_has("check the client id")
        .stderr_has("nothing was changed");
    assert_eq!(stage.property(TIMER, "UnitFileState"), "disabled");
    stage.write_secret(stage.workspace.client_secret());
    let done = stage.service(&["install"]);
    done.exits(0)
        .stdout_has("This works now:")
        .stdout_has("psql 'host=127.0.0.1 port=")
        .stdout_has("journalctl --user");
    // What goes wrong later is said by the service, with where to read more.
    stage.write_secret("not-the-secret-of-anybody");
    stage.machine.run(&["rm", "/home/alice/.pgpass"]).exits(0);
    let failed = stage.service(&["restart"]);
    failed.exits(77).stdout_has("refused the sign-in").stdout_has("check the client id");
    failed.stderr_has("the first rotation failed (exit code 77)").stderr_has("journalctl --user -xu dbx-rotator");
    stage.service(&["status"]).exits(1).stdout_has("last run").stdout_has("exit-code");
    stage.write_secret(stage.workspace.client_secret());
    stage.service(&["restart"]).exits(0);
    // A file that the service does not read is not written.
    let elsewhere = ["env", "DBX_ROTATOR_CONFIG=/home/alice/other.toml", "dbx-rotator", "service", "install"];
    stage
        .machine
        .as_user("alice", &elsewhere)
        .exits(64)
        .stderr_has("a service reads /home/alice/.config/dbx-rotator/config.toml");
    // If there is nothing to set up with, that is reported before anything is written.
    stage
        .machine
        .as_user("bob", &["dbx-rotator", "service", "install"])
        .exits(69)
        .stderr_has("no systemd manager of yours");
    stage.machine.linger("bob");
    stage.machine.as_user("bob", &["dbx-rotator", "service", "install"]).exits(78).stderr_has("--workspace-url URL");
    stage.machine.as_user("bob", &["sh", "-c", "ls -A ~/.config"]).exits(2);
}

fn lingering_is_missed_on_a_server_and_enabled_when_asked(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.machine.run(&["systemctl", "set-default", "multi-user.target"]).exits(0);
    stage.service(&["install"]).exits(0).stderr_lacks("--linger");
    // `loginctl disable-linger` would end her manager, since nothing else keeps it here.
    stage.machine.run(&["rm", "/var/lib/systemd/linger/alice"]).exits(0);
    let told = stage.service(&["install"]);
    told.exits(0).stderr_has("your service manager ends when you log out").stderr_has("--linger");
    stage.service(&["install", "--linger"]).exits(0);
    assert!(stage.machine.path("/var/lib/systemd/linger/alice").exists());
}

fn setup_asks_nothing_that_an_option_answers_and_lets_the_timer_renew(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    let secret = format!("DATABRICKS_CLIENT_SECRET={}", stage.workspace.client_secret());
    let id = format!("DATABRICKS_CLIENT_ID={}", stage.workspace.client_id());
    let host = format!("DATABRICKS_HOST={}", stage.workspace.url());
    let port = stage.server.port().to_string();
    stage.machine.write(
        "/home/alice/.config/environment.d/ca.conf",
        "SSL_CERT_FILE=/etc/ssl/workspace-ca.pem\n",
        0o644,
        Some("alice"),
    );
    stage.systemctl(&["daemon-reload"]).exits(0);
    let setup = ["dbx-rotator", "setup", "--yes", "--pg-host", "127.0.0.1", "--pg-port", &port];
    let line = [&["env", "SSL_CERT_FILE=/etc/ssl/workspace-ca.pem", &host, &id, &secret], &setup[..]].concat();
    let done = stage.machine.command("alice", &line).shown_as(setup.join(" ")).run();
    done.stdout_has("Wrote /home/alice/.config/dbx-rotator/config.toml").stdout_has("Enabled dbx-rotator.timer");
    done.stdout_has("psql 'host=127.0.0.1 port=")
        .stdout_has("journalctl --user")
        .stdout_has("password-live: default: live");
    assert_eq!(stage.property(TIMER, "UnitFileState"), "enabled");
    stage.log_in();
}

fn status_and_check_see_what_the_service_sees(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    let own = |words: &[&str]| stage.machine.as_user("alice", &[&["dbx-rotator"], words].concat());
    // As somebody sets up who tries it in a shell first: the workspace is a variable, and only the connection stands in the file.
    let variables = [
        format!("DATABRICKS_HOST={}", stage.workspace.url()),
        format!("DATABRICKS_CLIENT_ID={}", stage.workspace.client_id()),
        format!("DATABRICKS_CLIENT_SECRET={}", stage.workspace.client_secret()),
        "SSL_CERT_FILE=/etc/ssl/workspace-ca.pem".to_owned(),
    ];
    let in_shell = |words: &[&str]| {
        let env: Vec<&str> = ["env"].into_iter().chain(variables.iter().map(String::as_str)).collect();
        let line = [&env[..], &["dbx-rotator"], words].concat();
        stage.machine.command("alice", &line).shown_as(format!("dbx-rotator {}", words.join(" "))).run()
    };
    let whole = stage.config();
    stage.configure(&stage.connection_table());
    in_shell(&["rotate"]).exits(0);
    in_shell(&["status"]).exits(0).stdout_has("live").stdout_has("no service of dbx-rotator is set up");
    stage.systemctl(&["enable", "--now", TIMER]).exits(0);
    stage.systemctl(&["start", "dbx-rotator.service"]);
    let status = in_shell(&["status"]);
    status.exits(1).stdout_has("live").stdout_has("cannot use its configuration").stdout_has("DATABRICKS_HOST");
    in_shell(&["check"]).exits(1).stdout_has("cannot use its configuration");
    let shown = in_shell(&["status", "--json"]);
    assert_eq!(shown.exits(1).json()["connections"][0]["next_rotation_at"], serde_json::Value::Null, "{shown}");
    // Whole, it works and says so; stopped, it does not.
    stage.configure(&whole);
    stage.systemctl(&["start", "dbx-rotator.service"]).exits(0);
    own(&["status"]).exits(0).stdout_lacks("nothing renews").stdout_lacks("failed");
    own(&["check"]).exits(0);
    stage.systemctl(&["stop", TIMER]).exits(0);
    own(&["status"]).exits(1).stdout_has("nothing renews").stdout_has("systemctl --user start dbx-rotator.timer");
    own(&["check"]).exits(1).stdout_has("systemctl --user start dbx-rotator.timer");
}

fn status_shows_the_same_to_people_to_scripts_and_to_prometheus(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    let status = |more: &[&str]| stage.machine.as_user("alice", &[&["dbx-rotator", "status"], more].concat());
    status(&[]).exits(1).stdout_lacks("service: ");
    status(&["--json"]).exits(1).stdout_has("\"service\":null");
    stage.systemctl(&["enable", "--now", DAEMON]).exits(0);
    status(&[]).exits(0).stdout_has("dbx-rotator-daemon.service (systemd, yours): active (running), watchdog 120 s");
    let shown = status(&["--json"]);
    let service = &shown.exits(0).json()["service"];
    assert_eq!(
        (service["kind"].as_str(), service["watchdog_seconds"].as_f64()),
        (Some("daemon"), Some(120.0)),
        "{shown}"
    );
    assert!(service["status_text"].as_str().is_some_and(|text| text.contains("valid until")), "{shown}");
    assert_eq!(service["lingering"], true);
    let metrics = status(&["--prometheus"]);
    for line in [
        "dbx_rotator_credential_live{connection=\"orders\"} 1",
        "dbx_rotator_failures_total{connection=\"orders\",kind=\"transient\"} 0",
        "dbx_rotator_service_active{unit=\"dbx-rotator-daemon.service\"} 1",
        "dbx_rotator_credential_expiry_timestamp_seconds{connection=\"orders\"} 1",
    ] {
        metrics.exits(0).stdout_has(line);
    }
    // Restarts of it are counted and shown.
    stage.adjust(DAEMON, "[Service]\nRestartSec=100ms\n");
    stage.systemctl(&["kill", "-s", "KILL", DAEMON]).exits(0);
    let began = std::time::Instant::now();
    while !status(&[]).stdout.contains("restarted 1 times") {
        assert!(began.elapsed() < SOON);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

crate::support::on_each_release!(
    one_command_sets_up_the_timer_and_one_takes_it_away,
    where_no_units_are_installed_they_are_written_and_removed,
    the_managers_own_environment_decides,
    the_originals_commands_do_the_same_and_take_over_from_it,
    a_first_rotation_that_fails_says_why_and_what_to_do,
    lingering_is_missed_on_a_server_and_enabled_when_asked,
    status_shows_the_same_to_people_to_scripts_and_to_prometheus,
    setup_asks_nothing_that_an_option_answers_and_lets_the_timer_renew,
    status_and_check_see_what_the_service_sees,
);
