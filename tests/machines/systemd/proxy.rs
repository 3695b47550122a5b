//! The local proxy as the system owns it: started by its first client, gone without any, and no session cut off in silence.

use std::time::{Duration, Instant};

use super::stage::SETTINGS;
use super::{Release, SOON, Stage, Workspace};
use crate::support::{Outcome, Running, free_port};

const SOCKET: &str = "dbx-rotator-proxy.socket";
const SERVICE: &str = "dbx-rotator-proxy.service";
/// Where alice's own proxy listens, and that of the machine for her.
const OWN: &str = "/run/user/1000/dbx-rotator";
const OF_MACHINE: &str = "/run/dbx-rotator/alice";

/// How the server's certificate is checked.
const TLS: &str = "sslrootcert = \"/etc/ssl/server-ca.pem\"\n";

/// The settings of a proxy that ends after a second without clients.
fn with_proxy(config: &str, head: &str, port: u16) -> String {
    format!("proxy_idle_timeout = \"1s\"\n{head}{config}{TLS}proxy_port = {port}\n")
}

impl Stage {
    /// psql asks the server who it is, through a proxy, as a user of the machine.
    fn by_proxy(&self, user: &str, whither: &str) -> Outcome {
        let line = format!("psql -X -w -A -t -c 'select current_user' {whither}");
        self.machine.as_user(user, &["sh", "-c", &line])
    }

    #[track_caller]
    fn logs_in(&self, user: &str, whither: &str) {
        self.by_proxy(user, whither).exits(0).stdout_has(self.workspace.client_id());
    }

    /// A session of psql by a proxy, to type into; it has logged in.
    #[track_caller]
    fn psql(&self, whither: &str) -> Running<'_> {
        let line = format!("exec psql -X -w -A -t {whither}");
        let session = self.machine.command("alice", &["sh", "-c", &line]).with_keyboard().patience(SOON * 2).spawn();
        session.types("select 'logged' || ' in';\n").prints("logged in", SOON);
        session
    }

    #[track_caller]
    fn own_service(&self, words: &[&str]) -> Outcome {
        self.machine.as_user("alice", &[&["dbx-rotator", "service"], words].concat())
    }

    #[track_caller]
    fn machines_service(&self, words: &[&str]) -> Outcome {
        self.machine.run(&[&["dbx-rotator", "service"], words, &["--system", "--for", "alice"]].concat())
    }
}

fn the_first_client_starts_it_and_it_ends_without_any(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    let (port, own) = (free_port(), format!("-h {OWN} orders"));
    stage.configure(&with_proxy(&stage.config(), "", port));
    let done = stage.own_service(&["install", "--proxy"]);
    done.exits(0).stdout_has(&format!("Enabled {SOCKET}")).stdout_has(&format!("psql -h {OWN} orders"));
    let shown = stage.own_service(&["status"]);
    shown.exits(0).stdout_has(SOCKET).stdout_has("listening").stdout_has(&format!("127.0.0.1:{port}"));
    assert_eq!(stage.property(SERVICE, "ActiveState"), "inactive", "nobody has come yet");
    let tcp = format!("-h 127.0.0.1 -p {port} orders");
    for whither in [&own, &tcp] {
        stage.logs_in("alice", whither);
        assert_eq!(stage.property(SERVICE, "Result"), "success");
        stage.waits_for("alice", SERVICE, "ActiveState", "inactive");
        assert_eq!(stage.property(SOCKET, "SubState"), "listening");
    }
    // Others, but for root, do not even get into the directory, and by TCP the kernel tells who they are.
    stage.logs_in("root", &own);
    stage.by_proxy("bob", &own).exits(2).stderr_has("Permission denied");
    stage.by_proxy("bob", &tcp).exits(2).stderr_has("FATAL");
    stage.waits_for("alice", SERVICE, "ActiveState", "inactive");

    its_socket_can_be_restarted(&stage, &tcp);
    other_ports_are_taken_over(&stage, port);
    what_cannot_start_is_tried_again_and_said(&stage);
    let gone = stage.own_service(&["uninstall"]);
    gone.exits(0).stdout_has(&format!("{SOCKET}.d/sockets.conf"));
    assert_eq!(stage.property(SOCKET, "UnitFileState"), "disabled");
    stage.by_proxy("alice", &own).exits(2);
    let left = "find /home/alice/.config/systemd -path '*proxy*' ! -type d ! -name test.conf";
    stage.machine.run(&["sh", "-c", left]).exits(0).prints_nothing();
    stage.systemctl(&["--failed", "--plain", "--no-legend"]).prints_nothing();
}

/// While it serves: systemd closes its sockets and opens them again at once.
fn its_socket_can_be_restarted(stage: &Stage, tcp: &str) {
    stage.configure(&stage.machine.read(&format!("{SETTINGS}/config.toml")).replace("\"1s\"", "\"1m\""));
    for _ in 0..8 {
        stage.logs_in("alice", tcp);
        // So often is not meant to be.
        stage.systemctl(&["reset-failed", SOCKET, SERVICE]);
        stage.systemctl(&["restart", SOCKET]).exits(0);
        assert_eq!(stage.property(SOCKET, "ActiveState"), "active");
    }
    stage.logs_in("alice", tcp);
}

/// Installed again, it listens where the settings say now; where they say the same, no session notices.
fn other_ports_are_taken_over(stage: &Stage, before: u16) {
    let port = free_port();
    stage.configure(&with_proxy(&stage.config(), "", port));
    stage.own_service(&["install", "--proxy"]).exits(0);
    stage.logs_in("alice", &format!("-h 127.0.0.1 -p {port} orders"));
    stage.by_proxy("alice", &format!("-h 127.0.0.1 -p {before} orders")).exits(2).stderr_has("refused");
    let session = stage.psql(&format!("-h {OWN} orders"));
    let pid = stage.property(SERVICE, "MainPID");
    stage.own_service(&["install", "--proxy"]).exits(0);
    session.types("select 'still' || ' here';\n").prints("still here", SOON);
    assert_eq!(stage.property(SERVICE, "MainPID"), pid);
    session.types("\\q\n");
    session.ends().exits(0);
}

/// One client that waits would have it tried more often than the manager allows: the socket must outlive that.
fn what_cannot_start_is_tried_again_and_said(stage: &Stage) {
    stage.waits_for("alice", SERVICE, "ActiveState", "inactive");
    let own = format!("-h {OWN} orders");
    // Not even the program: 203/EXEC.
    stage.adjust(SERVICE, "[Service]\nExecStart=\nExecStart=/usr/bin/no-such-program\n");
    let tries = format!("for i in 1 2 3; do timeout 1.5 psql -X -w -h {OWN} orders; done");
    stage.machine.command("alice", &["sh", "-c", &tries]).patience(SOON * 3).run();
    assert_eq!(stage.property(SOCKET, "ActiveState"), "active");
    // It is tried again for those who still wait, and seen as failed in between.
    let began = Instant::now();
    let shown = loop {
        let shown = stage.own_service(&["status"]);
        if shown.code != Some(0) || began.elapsed() > SOON {
            break shown;
        }
    };
    shown.exits(1).stdout_has(&format!("{SERVICE} failed")).stdout_has("exit code 203");
    stage.adjust(SERVICE, "");
    stage.logs_in("alice", &own);
    stage.waits_for("alice", SERVICE, "ActiveState", "inactive");
    // Without settings the program itself says what to do.
    let (settings, away) = (format!("{SETTINGS}/config.toml"), format!("{SETTINGS}/away"));
    stage.types(&format!("mv {settings} {away}"));
    for _ in 0..3 {
        let told = stage.by_proxy("alice", &own);
        told.exits(2).stderr_has("FATAL:  the proxy of dbx-rotator cannot start").stderr_has("HINT");
    }
    assert_eq!(stage.property(SOCKET, "ActiveState"), "active");
    // Whoever comes before it has ended is told what it has read.
    stage.waits_for("alice", SERVICE, "ActiveState", "failed");
    stage.types(&format!("mv {away} {settings}"));
    stage.logs_in("alice", &own);
    // The timer may have run while there were none, so that its own line is another matter.
    stage.own_service(&["status"]).stdout_has("proxy: dbx-rotator-proxy.socket (systemd, yours): active (running)");
}

fn its_sessions_end_with_a_word_and_their_queries_come_to_their_end(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    stage.configure(&(stage.config() + TLS));
    stage.systemctl(&["enable", "--now", SOCKET]).exits(0);
    let own = format!("-h {OWN} orders");
    let (idle, busy) = (stage.psql(&own), stage.psql(&own));
    // A reload keeps both.
    let pid = stage.property(SERVICE, "MainPID");
    stage.systemctl(&["reload", SERVICE]).exits(0);
    busy.types("select 'begun'; select pg_sleep(5), 'come to its end';\n").prints("begun", SOON);
    let sleeps = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    let began = Instant::now();
    while stage.server.ask(sleeps).trim() != "1" {
        assert!(began.elapsed() < SOON, "no query runs");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(stage.property(SERVICE, "MainPID"), pid);
    stage.systemctl(&["stop", SOCKET, SERVICE]).exits(0);
    busy.prints("come to its end", SOON);
    for session in [idle, busy] {
        session.types("select 1;\n").says("FATAL:  the proxy of dbx-rotator is stopping", SOON);
    }
    assert_eq!(stage.property(SERVICE, "Result"), "success");
    stage.by_proxy("alice", &own).exits(2).stderr_has("No such file");

    // One that hangs is killed, and the next client starts another.
    stage.adjust(SERVICE, "[Service]\nWatchdogSec=10s\nTimeoutAbortSec=1s\n");
    stage.own_service(&["start"]).exits(0).stdout_has(OWN);
    stage.logs_in("alice", &own);
    stage.systemctl(&["kill", "-s", "STOP", SERVICE]).exits(0);
    stage.says(SERVICE, "Watchdog timeout");
    stage.waits_for("alice", SERVICE, "Result", "watchdog");
    stage.own_service(&["status"]).exits(1).stdout_has(&format!("{SERVICE} failed (watchdog)"));
    stage.logs_in("alice", &own);
    // The timer may have run while there were none, so that its own line is another matter.
    stage.own_service(&["status"]).stdout_has("proxy: dbx-rotator-proxy.socket (systemd, yours): active (running)");
}

fn one_of_the_machine_lets_in_whom_it_is_told_to(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    let (port, machine) = (free_port(), format!("-h {OF_MACHINE} orders"));
    let config = stage.workspace_table() + &stage.connection_table();
    let configure = |head: &str| {
        stage.machine.write("/etc/dbx-rotator/alice.toml", with_proxy(&config, head, port), 0o644, None);
    };
    configure("");
    stage.machine.write("/etc/dbx-rotator/alice.client-secret", stage.workspace.client_secret(), 0o600, None);
    stage.machine.write("/etc/dbx-rotator/bob.toml", &config, 0o644, None);
    let done = stage.machines_service(&["install", "--proxy"]);
    done.exits(0)
        .stdout_has("Enabled dbx-rotator-proxy@alice.socket")
        .stdout_has("psql -h /run/dbx-rotator/alice orders");
    stage.machine.run(&["systemctl", "start", "dbx-rotator-proxy@bob.socket"]).exits(0);
    let owners = ["stat", "-c", "%n %U %a", "/run/dbx-rotator", OF_MACHINE, "/run/dbx-rotator/bob/.s.PGSQL.5432"];
    stage
        .machine
        .run(&owners)
        .exits(0)
        .stdout_has("/run/dbx-rotator root 755\n")
        .stdout_has(&format!("{OF_MACHINE} root 755\n"))
        .stdout_has("PGSQL.5432 bob 600\n");
    let told = stage.machine.run(&["dbx-rotator", "status", "--for", "alice"]);
    told.exits(0).stdout_has("proxy: dbx-rotator-proxy@alice.socket waits for programs at /run/dbx-rotator/alice/");
    let tcp = format!("-h 127.0.0.1 -p {port} orders");
    for whither in [&machine, &tcp] {
        stage.logs_in("alice", whither);
        stage.logs_in("root", whither);
        stage.by_proxy("bob", whither).exits(2);
    }
    // Bob is let in, and nobody else.
    configure("proxy_allow = [\"bob\"]\n");
    stage.machines_service(&["install", "--proxy"]).exits(0).stdout_has("proxy-allow.conf");
    stage.machine.run(&["useradd", "--create-home", "eve"]).exits(0);
    for whither in [&machine, &tcp] {
        stage.logs_in("bob", whither);
        stage.logs_in("alice", whither);
        stage.by_proxy("eve", whither).exits(2).stderr_has("FATAL");
    }
    stage.machines_service(&["status"]).exits(0).stdout_has("dbx-rotator-proxy@alice.socket");
    configure("");
    stage.machines_service(&["install", "--proxy"]).exits(0);
    stage.by_proxy("bob", &machine).exits(2).stderr_has("Permission denied");
    let gone = stage.machines_service(&["uninstall", "--proxy"]);
    gone.exits(0).stdout_has("The proxy is stopped and disabled");
    stage.by_proxy("alice", &machine).exits(2);
    stage.machines_service(&["status"]).exits(0).stdout_has("dbx-rotator@alice.timer").stdout_lacks("proxy");
    stage.machines_service(&["restart", "--proxy"]).exits(78).stderr_has("install --system --proxy");
    // In a user's own manager, others come by TCP only.
    a_users_own_lets_in_whom_it_is_told_to(&stage, port);
}

/// There the sandbox has to go for it.
fn a_users_own_lets_in_whom_it_is_told_to(stage: &Stage, port: u16) {
    let head = "proxy_allow = [\"bob\"]\n";
    stage.configure(&with_proxy(&stage.config(), head, port));
    stage
        .own_service(&["install", "--proxy"])
        .exits(0)
        .stdout_has("proxy-allow-user.conf")
        .stdout_has("proxy-ports.conf");
    assert!(stage.property(SERVICE, "RestrictAddressFamilies").contains("AF_NETLINK"));
    let tcp = format!("-h 127.0.0.1 -p {port} orders");
    stage.logs_in("bob", &tcp);
    // Nothing keeps it but a session.
    let session = stage.psql(&format!("-h {OWN} orders"));
    session.types("select 'he' || 're';\n").prints("here", SOON);
    let map = format!("cat /proc/{}/uid_map", stage.property(SERVICE, "MainPID"));
    stage.machine.run(&["sh", "-c", &map]).exits(0).stdout_has("4294967295");
    session.types("\\q\n");
    session.ends().exits(0);
    stage.by_proxy("eve", &tcp).exits(2).stderr_has("FATAL");
    let system_calls = stage.property(SERVICE, "SystemCallFilter");
    assert!(!system_calls.is_empty());
}

crate::support::on_each_release!(
    the_first_client_starts_it_and_it_ends_without_any,
    its_sessions_end_with_a_word_and_their_queries_come_to_their_end,
    one_of_the_machine_lets_in_whom_it_is_told_to,
);
