//! Servers, where nobody logs in: the machine's own manager runs the service as a user, from the templates.

use super::stage::SETTINGS;
use super::{Release, SOON, Stage, Workspace};
use crate::support::Outcome;

const TIMER: &str = "dbx-rotator@alice.timer";
const SERVICE: &str = "dbx-rotator@alice.service";
const DAEMON: &str = "dbx-rotator-daemon@alice.service";
const SECRET: &str = "/etc/dbx-rotator/alice.client-secret";

impl Stage {
    /// Writes an administrator's files: settings that all may read, and a secret that only root can.
    fn configure_server(&self) {
        let config = self.workspace_table() + &self.connection_table();
        self.machine.write("/etc/dbx-rotator/alice.toml", config, 0o644, None);
        self.machine.write(SECRET, self.workspace.client_secret(), 0o600, None);
    }

    #[track_caller]
    fn as_root(&self, arguments: &[&str]) -> Outcome {
        self.machine.run(arguments)
    }

    #[track_caller]
    fn of_system(&self, unit: &str, name: &str) -> String {
        self.as_root(&["systemctl", "show", "--value", "-p", name, unit]).exits(0).stdout.trim().to_owned()
    }
}

fn the_timer_of_a_user_rotates_with_a_credential(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    stage.configure_server();
    stage.as_root(&["systemctl", "enable", "--now", TIMER]).exits(0);
    stage.machine.journal_says("root", SERVICE, "Token rotation completed successfully", SOON);
    stage.log_in();
    let owner = stage.as_root(&["stat", "-c", "%U %G %a", "/home/alice/.pgpass"]);
    owner.exits(0).stdout_has("alice alice 600");
    stage
        .as_root(&["journalctl", "-u", "dbx-rotator@alice"])
        .exits(0)
        .stdout_has("Successfully updated /home/alice/.pgpass");
    // The user sees the status without settings of her own and without the secret.
    let seen = stage.machine.as_user("alice", &["dbx-rotator", "status"]);
    seen.exits(0).stdout_has("live").stdout_has(TIMER).stdout_has("the machine's");
    // So does root, who is told for whom there is a service.
    let root = stage.as_root(&["dbx-rotator", "status"]);
    root.exits(78).stderr_has("keep passwords for alice").stderr_has("dbx-rotator status --for alice");
    stage.as_root(&["dbx-rotator", "status", "--for", "alice"]).exits(0).stdout_has("live").stdout_has(TIMER);
    stage.as_root(&["dbx-rotator", "status", "--for", "bob"]).exits(78).stderr_has("no service of this machine");
    let other = stage.machine.as_user("alice", &["dbx-rotator", "status", "--for", "bob"]);
    other.exits(64).stderr_has("sudo dbx-rotator status --for bob");
    // And root is not bob's keeper.
    stage.as_root(&["systemctl", "start", "dbx-rotator@bob.service"]).exits(0);
    assert_eq!(stage.of_system("dbx-rotator@bob.service", "ConditionResult"), "no");
}

fn the_daemon_of_a_user_takes_an_encrypted_secret(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    stage.configure_server();
    let encrypt =
        format!("systemd-creds encrypt --with-key=host --name=client-secret {SECRET} {SECRET}.cred && rm {SECRET}");
    stage.as_root(&["sh", "-c", &encrypt]).exits(0);
    let drop_in = include_str!("../../../dist/systemd/examples/encrypted-secret.conf");
    stage.machine.write("/etc/systemd/system/dbx-rotator-daemon@.service.d/secret.conf", drop_in, 0o644, None);
    stage.as_root(&["systemctl", "daemon-reload"]).exits(0);
    stage.as_root(&["systemctl", "enable", "--now", DAEMON]).exits(0);
    stage.log_in();
    let said = stage.of_system(DAEMON, "StatusText");
    assert!(said.contains("orders: valid until "), "{said}");
    stage.machine.as_user("alice", &["dbx-rotator", "status"]).exits(0).stdout_has("live").stdout_has(DAEMON);
    stage.as_root(&["dbx-rotator", "service", "restart", "--system", "--for", "alice"]).exits(0).stdout_has("live");
    stage.as_root(&["systemctl", "reload", DAEMON]).exits(0);
    stage.as_root(&["systemctl", "stop", DAEMON]).exits(0);
    assert_eq!(stage.of_system(DAEMON, "Result"), "success");
}

fn without_a_secret_it_says_which_is_missing_and_a_new_one_needs_a_restart(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    stage.configure_server();
    stage.as_root(&["rm", SECRET]).exits(0);
    stage.as_root(&["systemctl", "start", SERVICE]).exits(1);
    stage.machine.journal_says("root", SERVICE, "the client secret is not set", SOON);
    // An empty secret counts as none.
    stage.machine.write(SECRET, "", 0o600, None);
    stage.as_root(&["systemctl", "start", SERVICE]).exits(1);
    stage.machine.journal_says_times(2, "root", SERVICE, "the client secret is not set", SOON);
    stage.machine.write(SECRET, "not-the-secret-of-anybody", 0o600, None);
    stage.as_root(&["systemctl", "start", DAEMON]).exits(0);
    let said = stage.of_system(DAEMON, "StatusText");
    assert!(said.contains("needs a person") && said.contains("then restart the unit"), "{said}");
    stage.machine.write(SECRET, stage.workspace.client_secret(), 0o600, None);
    stage.as_root(&["systemctl", "restart", DAEMON]).exits(0);
    stage.log_in();
}

fn it_is_set_up_by_one_command_for_a_home_anywhere(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    stage.as_root(&["sh", "-c", "useradd --create-home --home-dir /srv/app --shell /bin/bash app"]).exits(0);
    let ca = "SSL_CERT_FILE=/etc/ssl/workspace-ca.pem";
    let (url, port) = (stage.workspace.url(), stage.server.port().to_string());
    let secret = format!("DATABRICKS_CLIENT_SECRET={}", stage.workspace.client_secret());
    // As on a hardened server: the files that it makes can be read anyway.
    let install = [
        "sh",
        "-c",
        "umask 077; exec env \"$@\"",
        "sh",
        ca,
        &secret,
        "dbx-rotator",
        "service",
        "install",
        "--system",
        "--for",
        "app",
    ];
    let settings = ["--workspace-url", &url, "--client-id", stage.workspace.client_id()];
    let connection = ["--pg-host", "127.0.0.1", "--pg-port", &port];
    // A service does not see the variables of the installing shell: it cannot trust this workspace, which is reported.
    let first = stage.as_root(&[&install[..], &settings, &connection].concat());
    first.exits(78).stdout_has("Wrote /etc/dbx-rotator/app.toml").stderr_has("SSL_CERT_FILE: set in this shell");
    stage
        .as_root(&[
            "sh",
            "-c",
            "sed -i '/^host = \"https/a ca_file = \"/etc/ssl/workspace-ca.pem\"' /etc/dbx-rotator/app.toml",
        ])
        .exits(0);
    let again = stage.as_root(&["dbx-rotator", "service", "restart", "--system", "--for", "app"]);
    again.exits(0).stdout_has("dbx-rotator@app.timer").stdout_has("live");
    stage.log_in_as("app");
    let modes =
        stage.as_root(&["stat", "-c", "%n %U %a", "/etc/dbx-rotator/app.toml", "/etc/dbx-rotator/app.client-secret"]);
    modes.stdout_has("app.toml root 644").stdout_has("app.client-secret root 600");
    let gone = stage.as_root(&["dbx-rotator", "service", "uninstall", "--system", "--for", "app", "--purge"]);
    gone.exits(0).stdout_has("Removed /etc/dbx-rotator/app.toml").stdout_has("dbx-rotator@app.service.d/home.conf");
    stage.as_root(&["sh", "-c", "ls /etc/dbx-rotator /etc/systemd/system | grep app"]).exits(1);
    stage.as_root(&["systemctl", "--failed", "--plain", "--no-legend"]).prints_nothing();
    stage.log_in_as("app");
}

/// Names as directory services give them, each with the instance that `systemd-escape` makes of it.
const NAMES: [(&str, &str); 5] = [
    ("ada@corp.example.com", r"ada\x40corp.example.com"),
    (r"CORP\ada", r"CORP\x5cada"),
    ("Ada Lovelace", r"Ada\x20Lovelace"),
    ("host$", r"host\x24"),
    ("ada-b", r"ada\x2db"),
];

fn users_have_the_names_that_a_directory_gives_them(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    let user_add = r#"echo "$1:x:$2:$2::/home/$1:/bin/bash" >> /etc/passwd; echo "$1:x:$2:" >> /etc/group
        mkdir -m 700 "/home/$1" && chown "$2:$2" "/home/$1""#;
    // A read of the shell's echo would take the backslash away.
    let user_add = user_add.replace("echo ", "printf '%s\\n' ");
    let config = stage.workspace_table() + &stage.connection_table();
    for (number, (name, instance)) in (2001..).zip(NAMES) {
        stage.as_root(&["sh", "-c", &user_add, "sh", name, &number.to_string()]).exits(0);
        let escaped = stage.as_root(&["systemd-escape", "--template=dbx-rotator@.timer", name]);
        let timer = format!("dbx-rotator@{instance}.timer");
        assert_eq!(escaped.exits(0).stdout.trim(), timer, "{name}");
        stage.machine.write(&format!("/etc/dbx-rotator/{name}.toml"), &config, 0o644, None);
        let secret = format!("/etc/dbx-rotator/{name}.client-secret");
        stage.machine.write(&secret, stage.workspace.client_secret(), 0o600, None);
        let service = |verb: &str, more: &[&str]| {
            stage.as_root(&[&["dbx-rotator", "service", verb, "--system", "--for", name], more].concat())
        };
        for more in [&[][..], &["--daemon"]] {
            let installed = service("install", more);
            installed.exits(0).stdout_has("live").stdout_has(&format!("for {name})")).stdout_has(instance);
            stage.log_in_as(name);
            assert_eq!(service("status", &["--json"]).exits(0).json()["user"], name);
            // The user sees how it stands.
            let seen = stage.machine.as_user(name, &["dbx-rotator", "status"]);
            seen.exits(0).stdout_has("live").stdout_has(&format!("for {name})"));
        }
        let owner = stage.as_root(&["stat", "-c", "%u %a", &format!("/home/{name}/.pgpass")]);
        owner.exits(0).stdout_has(&format!("{number} 600"));
        let gone = service("uninstall", &["--purge"]);
        gone.exits(0).stdout_has(&format!("Removed /etc/dbx-rotator/{name}.toml")).stdout_has(&secret);
    }
    stage.as_root(&["systemctl", "--failed", "--plain", "--no-legend"]).prints_nothing();
    stage.as_root(&["sh", "-c", "ls /etc/dbx-rotator; find /etc/systemd/system -name 'dbx-rotator*'"]).prints_nothing();
}

/// Packages, roles and teams add connections for the machine's instances, in its directory alone.
fn a_fragment_of_the_machine_is_for_its_instances_and_one_of_a_user_for_her_own(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    let fragment = |name: &str| stage.connection_table().replace("orders", name) + &format!("database = \"{name}\"\n");
    stage.machine.write("/etc/dbx-rotator/alice.toml", stage.workspace_table(), 0o644, None);
    stage.machine.write(SECRET, stage.workspace.client_secret(), 0o600, None);
    stage.machine.write("/etc/dbx-rotator/conf.d/team.toml", stage.connection_table(), 0o644, None);
    stage.machine.write(&format!("{SETTINGS}/conf.d/own.toml"), "not = of = the machine", 0o600, Some("alice"));
    stage.as_root(&["systemctl", "enable", "--now", DAEMON]).exits(0);
    stage.log_in();
    stage.as_root(&["dbx-rotator", "status", "--for", "alice"]).exits(0).stdout_has("orders").stdout_has("live");
    stage.machine.write("/etc/dbx-rotator/conf.d/app.toml", fragment("app"), 0o644, None);
    stage.as_root(&["systemctl", "reload", DAEMON]).exits(0);
    stage.machine.journal_says("root", DAEMON, "Keeping 2 connections alive", SOON);
    // What everybody may write is not read, in the sandbox neither, where nobody can.
    let before = stage.pgpass();
    stage.as_root(&["chmod", "777", "/etc/dbx-rotator/conf.d"]).exits(0);
    stage.as_root(&["systemctl", "reload", DAEMON]).exits(0);
    stage.machine.journal_says("root", DAEMON, "/etc/dbx-rotator/conf.d has mode 0777", SOON);
    assert!(stage.pgpass().contains(before.trim_end()));
    stage.as_root(&["systemctl", "disable", "--now", DAEMON]).exits(0);
    // Her own service has her own directory, and needs no more than a fragment there.
    stage.configure(&stage.config());
    let own = stage.machine.read(&format!("{SETTINGS}/config.toml"));
    stage.machine.write(&format!("{SETTINGS}/conf.d/own.toml"), own, 0o600, Some("alice"));
    stage.as_root(&["rm", &format!("{SETTINGS}/config.toml")]).exits(0);
    stage.as_root(&["rm", "/home/alice/.pgpass"]).exits(0);
    stage.machine.as_user("alice", &["systemctl", "--user", "start", "dbx-rotator.service"]).exits(0);
    stage.log_in();
}

crate::support::on_each_release!(
    a_fragment_of_the_machine_is_for_its_instances_and_one_of_a_user_for_her_own,
    users_have_the_names_that_a_directory_gives_them,
    the_timer_of_a_user_rotates_with_a_credential,
    the_daemon_of_a_user_takes_an_encrypted_secret,
    without_a_secret_it_says_which_is_missing_and_a_new_one_needs_a_restart,
    it_is_set_up_by_one_command_for_a_home_anywhere,
);
