//! A person who has the Python tool and its service comes over: with the commands of docs/from-python.md, as they stand there.

use super::stage::{self, MOST_COMMANDS};
use super::{Release, Stage, Workspace};

const OLD: &str = "com.databricks.oauth.rotator.service";
const TIMER: &str = "dbx-rotator.timer";
const OLD_UNIT: &str = "/home/alice/.config/systemd/user/com.databricks.oauth.rotator.service";
const OLD_LOG: &str = "/home/alice/.databricks_oauth_rotator.log";
const OLD_LINE: &str = "2025-01-22 14:30:00 - INFO - Token rotation completed successfully\n";

/// The commands of the page's section with this title.
fn commands_of(section: &str) -> Vec<String> {
    let page = include_str!("../../../docs/from-python.md");
    let (_, rest) = page.split_once(&format!("## {section}\n")).expect("a section");
    let block = rest.split("```sh\n").nth(1).and_then(|block| block.split("```").next()).expect("a block of commands");
    block.lines().map(|line| line.split(" #").next().unwrap().trim().to_owned()).collect()
}

impl Stage {
    /// What `databricks-oauth-install` of the Python tool has left here, with what its user has added to the unit.
    fn has_the_python_tool(&self) {
        let alice = |inside: &str, text: &str, mode| self.machine.write(inside, text, mode, Some("alice"));
        alice("/home/alice/.local/bin/databricks-oauth-rotator", "#!/bin/sh\nexec sleep infinity\n", 0o755);
        let unit = format!(
            "[Unit]\nDescription=Databricks OAuth Token Rotator\nAfter=network.target\n\n[Service]\nType=simple\n\
             ExecStart=%h/.local/bin/databricks-oauth-rotator --workspace-url {} --pg-host 127.0.0.1 \\\n  --pg-port {} \
             --pg-username ${{DATABRICKS_PG_USERNAME}} --interval 45\n\
             Environment=DATABRICKS_CLIENT_ID={id} DATABRICKS_PG_USERNAME={id}\n\
             Environment=\"DATABRICKS_CLIENT_SECRET={}\"\nEnvironment=REQUESTS_CA_BUNDLE=/etc/ssl/workspace-ca.pem\n\
             Environment=PYTHONUNBUFFERED=1\nEnvironment=TEAM_KEY=not-to-be-shown-anywhere\nExecStartPre=/bin/true\n\
             Restart=always\nRestartSec=10\nStandardOutput=append:%h/.databricks_oauth_rotator_stdout.log\n\
             StandardError=append:%h/.databricks_oauth_rotator_stderr.log\n\n[Install]\nWantedBy=default.target\n",
            self.workspace.url(),
            self.server.port(),
            self.workspace.client_secret(),
            id = self.workspace.client_id(),
        );
        alice(OLD_UNIT, &unit, 0o644);
        alice(OLD_LOG, OLD_LINE, 0o644);
        self.systemctl(&["daemon-reload"]).exits(0);
        self.systemctl(&["enable", "--now", OLD]).exits(0);
        let (port, user) = (self.server.port(), self.workspace.client_id());
        let entries = format!("# mine\nelsewhere:5432:*:bob:kept\n127.0.0.1:{port}:databricks_postgres:{user}:dead\n");
        alice("/home/alice/.pgpass", &entries, 0o600);
        let link = "for name in rotator install status restart uninstall; do ln -s dbx-rotator /usr/bin/databricks-oauth-$name; done";
        self.machine.run(&["sh", "-c", link]).exits(0);
        self.machine.keep_secret("not-to-be-shown-anywhere");
    }
}

fn a_person_with_the_python_tool_comes_over_with_few_commands_and_may_go_back(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    stage.has_the_python_tool();
    let commands = commands_of("Take over");
    assert!((2..=MOST_COMMANDS).contains(&commands.len()), "{commands:?}");
    let mut login = String::new();
    for line in &commands {
        if line.starts_with("psql") {
            // The line that was printed, with a question.
            stage
                .types(&format!("{login} -w -A -t -c 'select current_user'"))
                .exits(0)
                .stdout_has(stage.workspace.client_id());
            continue;
        }
        let done = stage.types(line);
        done.exits(0).stdout_has("live");
        if let Some(printed) = done.stdout.lines().find(|line| line.trim_start().starts_with("psql ")) {
            printed.trim().clone_into(&mut login);
            tells_where_everything_is(&done);
        }
    }
    everything_is_where_it_was_told(&stage);
    for line in commands_of("Go back") {
        stage.types(&line).exits(0);
    }
    assert_eq!(
        (stage.property(OLD, "ActiveState"), stage.property(OLD, "UnitFileState")),
        ("active".into(), "enabled".into())
    );
    assert_eq!(stage.property(TIMER, "ActiveState"), "inactive");
    stage.types("dbx-rotator status").exits(0).stdout_has("no service of dbx-rotator is set up");
    setup_takes_it_over_too(&stage);
}

#[track_caller]
fn setup_takes_it_over_too(stage: &Stage) {
    stage.types("rm -r ~/.config/dbx-rotator").exits(0);
    let done = stage.types("dbx-rotator setup --yes");
    done.stdout_has(&format!("The Python tool's service renews a password here: {OLD}"));
    done.stdout_has(&format!("Stopped and disabled {OLD}")).stdout_has("live");
    assert_eq!(stage.property(OLD, "ActiveState"), "inactive");
    assert!(stage.machine.read(&format!("{}/config.toml", stage::SETTINGS)).contains("interval = \"45m\""));
}

#[track_caller]
fn tells_where_everything_is(done: &crate::support::Outcome) {
    for what in ["service", "settings", "secret", "log", "password file"] {
        let row = done.stdout.lines().find(|line| line.starts_with(what) && line.contains("~/."));
        assert!(row.is_some(), "no row for {what}\n{done}");
    }
    done.stdout_has("old place").stdout_has("new place").stdout_has(TIMER).stdout_has("dbx-rotator/client-secret");
    done.stdout_has(&format!("Stopped and disabled {OLD}")).stdout_has("the same; also journalctl");
    done.stderr_has("the variable TEAM_KEY").stderr_has("ExecStartPre=").stderr_lacks("PYTHONUNBUFFERED");
    done.stderr_has("the client secret still stands in ~/.config/systemd/user/com.databricks");
}

#[track_caller]
fn everything_is_where_it_was_told(stage: &Stage) {
    let config = stage.machine.read(&format!("{}/config.toml", stage::SETTINGS));
    for line in ["interval = \"45m\"", "ca_file = \"/etc/ssl/workspace-ca.pem\"", "host = \"127.0.0.1\"", OLD_LOG] {
        assert!(config.contains(line), "{line}\n{config}");
    }
    let secret = stage.workspace.client_secret();
    assert!(!config.contains(secret));
    let files = stage.types("cd && find .config -type f | sort").exits(0).stdout.clone();
    let holders = files.lines().filter(|file| stage.machine.read(&format!("/home/alice/{file}")).contains(secret));
    let old = OLD_UNIT.trim_start_matches("/home/alice/");
    let expected = [".config/dbx-rotator/client-secret", old];
    assert_eq!(holders.collect::<Vec<_>>(), expected, "and the new service's units do not have it");
    stage.types("stat -c %a ~/.config/dbx-rotator/client-secret").exits(0).stdout_has("600");
    assert!(stage.pgpass().starts_with("# mine\nelsewhere:5432:*:bob:kept\n127.0.0.1:"));
    assert!(!stage.pgpass().contains(":dead"));
    assert_eq!(
        (stage.property(OLD, "ActiveState"), stage.property(OLD, "UnitFileState")),
        ("inactive".into(), "disabled".into())
    );
    // The service itself has written the old log.
    let log = stage.machine.read(OLD_LOG);
    assert!(
        log.starts_with(OLD_LINE) && log[OLD_LINE.len()..].contains("INFO - Successfully updated /home/alice/.pgpass"),
        "{log}"
    );
    // The old commands speak of the new service.
    stage.types("databricks-oauth-status").exits(0).stdout_has("live").stdout_has(TIMER);
    stage.types("databricks-oauth-restart").exits(0).stdout_has("live");
    // It is not taken over again.
    stage.types("databricks-oauth-install").exits(0).stdout_lacks("old place").stderr_lacks("TEAM_KEY");
}

fn an_old_unit_that_cannot_be_read_is_said_and_options_take_its_place(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    stage.machine.write(OLD_UNIT, "[Service]\nExecStart=/bin/true --pg-host x\n", 0o000, Some("alice"));
    stage.systemctl(&["daemon-reload"]).exits(0);
    let said = stage.types("dbx-rotator service install");
    said.exits(78)
        .stderr_has("~/.config/systemd/user/com.databricks")
        .stderr_has("cannot be read")
        .stderr_has("--workspace-url URL");
    let list = stage.types("ls -A ~/.config").exits(0).stdout.clone();
    assert_eq!(list, "systemd\n", "nothing was written");
}

fn a_service_of_the_machine_says_that_the_old_one_of_its_user_goes_on(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    stage.has_the_python_tool();
    let config = stage.workspace_table() + &stage.connection_table();
    stage.machine.write("/etc/dbx-rotator/alice.toml", config, 0o644, None);
    stage.machine.write("/etc/dbx-rotator/alice.client-secret", stage.workspace.client_secret(), 0o600, None);
    let done = stage.machine.run(&["dbx-rotator", "service", "install", "--system", "--for", "alice"]);
    done.exits(0).stdout_has("live").stdout_lacks("old place");
    done.stderr_has(OLD_UNIT).stderr_has(&format!("as alice: systemctl --user disable --now {OLD}"));
    assert_eq!(stage.property(OLD, "ActiveState"), "active");
}

crate::support::on_each_release!(
    a_service_of_the_machine_says_that_the_old_one_of_its_user_goes_on,
    a_person_with_the_python_tool_comes_over_with_few_commands_and_may_go_back,
    an_old_unit_that_cannot_be_read_is_said_and_options_take_its_place,
);
