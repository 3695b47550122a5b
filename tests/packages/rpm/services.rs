//! The .rpm's scriptlets under a real systemd: what its helper does when they call it.
//!
//! The machine has no rpm, which other tests cover: here the package's files are unpacked into it, and its scriptlets run
//! with the argument that rpm gives them. Only Fedora has systemd's helper; the one here calls systemctl as that does.

use std::path::PathBuf;

use super::{package, query};
use crate::same::unpack_rpm;
use crate::support::{Machine, Release, on_each_release, skip};

const HELPER: &str = r#"#!/bin/bash
what=$1
shift
managers() {
  systemctl list-units 'user@*' --legend=no --plain | sed -n 's/^user@\([0-9]*\).*/--user --machine=\1@/p'
}
case "$what" in
  install-system-units) systemctl --no-reload preset "$@" ;;
  install-user-units) systemctl --no-reload --global preset "$@" ;;
  remove-user-units)
    systemctl --global disable "$@"
    managers | while read -r manager; do systemctl $manager disable --now "$@" </dev/null; done
    ;;
  mark-restart-system-units) for unit; do systemctl set-property "$unit" Markers=+needs-restart || :; done ;;
  mark-restart-user-units)
    managers | while read -r manager; do
      for unit; do systemctl $manager set-property "$unit" Markers=+needs-restart </dev/null || :; done
    done
    ;;
esac
"#;
/// What Fedora's systemd does when the files of any package change.
const TRIGGER: &str = "systemctl daemon-reload; systemctl reload-or-restart --marked";
/// A daemon that needs no configuration, and whose sandbox a container can make.
const DAEMON: &str = "[Unit]\nConditionPathExists=\n[Service]\nType=exec\nExecStart=\nExecStart=/usr/bin/sleep infinity\n\
                      WatchdogSec=0\nProtectKernelLogs=no\n";

/// The units that run here, and their users. A timer and a daemon of the same user would exclude each other.
const RUN: [(&str, &str); 3] = [
    ("alice", "dbx-rotator-daemon.service"),
    ("root", "dbx-rotator-daemon@alice.service"),
    ("root", "dbx-rotator@bob.timer"),
];

/// What waits for clients here, and is not started anew: its sessions go on.
const STAY: [(&str, &str); 2] = [("alice", "dbx-rotator-proxy.socket"), ("root", "dbx-rotator-proxy@alice.socket")];

struct Installed {
    machine: Machine,
    package: PathBuf,
}

impl Installed {
    fn new(test: &str, release: Release) -> Option<Self> {
        let package = package(test, None, &["rpm", "rpm2cpio", "cpio"])?;
        let machine = Machine::boot(release).map_err(|reason| skip(test, &reason)).ok()?;
        for (place, unit) in [("user", "dbx-rotator-daemon"), ("system", "dbx-rotator-daemon@")] {
            machine.write(&format!("/etc/systemd/{place}/{unit}.service.d/daemon.conf"), DAEMON, 0o644, None);
        }
        for (place, unit) in [("user", "dbx-rotator-proxy"), ("system", "dbx-rotator-proxy@")] {
            let drop_in = format!("/etc/systemd/{place}/{unit}.socket.d/socket.conf");
            machine.write(&drop_in, "[Unit]\nConditionPathExists=\n", 0o644, None);
        }
        machine.write("/usr/lib/systemd/systemd-update-helper", HELPER, 0o755, None);
        machine.linger("alice");
        machine.linger("bob");
        unpack_rpm(&package, &machine.path("/"));
        let installed = Self { machine, package };
        installed.scriptlet("POSTIN", "1");
        installed.trigger();
        Some(installed)
    }

    /// Runs a scriptlet with the number of versions that will be installed, as rpm does.
    #[track_caller]
    fn scriptlet(&self, tag: &str, versions: &str) {
        let text = query(&self.package, &format!("%{{{tag}}}"));
        let outcome = self.machine.command("root", &["sh", "-c", &text, tag, versions]).run();
        outcome.exits(0).prints_nothing();
        // systemctl reports the links that it removes.
        let complaints: Vec<&str> = outcome.stderr.lines().filter(|line| !line.starts_with("Removed ")).collect();
        assert!(complaints.is_empty(), "{tag} {versions}: {complaints:?}");
    }

    #[track_caller]
    fn trigger(&self) {
        self.machine.run(&["sh", "-c", TRIGGER]).exits(0);
        for user in ["alice", "bob"] {
            let line = TRIGGER.replace("systemctl", "systemctl --user");
            self.machine.as_user(user, &["sh", "-c", &line]).exits(0);
        }
    }

    fn systemctl(&self, user: &str, arguments: &[&str]) -> String {
        let mut line = vec!["systemctl"];
        line.extend((user != "root").then_some("--user"));
        line.extend(arguments);
        self.machine.as_user(user, &line).stdout.trim().to_owned()
    }

    /// Identifies the unit's current start; none if it does not run.
    fn start(&self, user: &str, unit: &str) -> Option<String> {
        let is_active = self.systemctl(user, &["is-active", unit]) == "active";
        is_active.then(|| self.systemctl(user, &["show", "--property=InvocationID", "--value", unit]))
    }

    fn starts(&self) -> Vec<Option<String>> {
        RUN.iter().map(|(user, unit)| self.start(user, unit)).collect()
    }

    #[track_caller]
    fn assert_nothing_runs_for_bob(&self) {
        for unit in ["dbx-rotator.timer", "dbx-rotator-daemon.service"] {
            assert_eq!(self.start("bob", unit), None, "bob's {unit}");
            assert_ne!(self.systemctl("bob", &["is-enabled", unit]), "enabled", "bob's {unit}");
        }
    }
}

on_each_release!(the_rpm_package_restarts_what_runs_and_leaves_nothing_running);

fn the_rpm_package_restarts_what_runs_and_leaves_nothing_running(test: &str, release: Release) {
    let Some(installed) = Installed::new(test, release) else { return };
    assert_eq!(installed.starts(), [const { None }; 3], "nothing is started by the installation");
    installed.assert_nothing_runs_for_bob();
    for (user, unit) in RUN {
        assert_eq!(installed.systemctl(user, &["is-enabled", unit]), "disabled", "{unit}");
        installed.systemctl(user, &["enable", "--now", unit]);
    }
    let before = installed.starts();
    assert!(before.iter().all(Option::is_some), "{before:?}");
    let sockets = || STAY.map(|(user, unit)| installed.start(user, unit));
    assert_eq!(sockets(), [const { None }; 2]);
    for (user, unit) in STAY {
        installed.systemctl(user, &["enable", "--now", unit]);
    }
    let listening = sockets();
    assert!(listening.iter().all(Option::is_some), "{listening:?}");

    installed.scriptlet("POSTIN", "2");
    installed.scriptlet("PREUN", "1");
    assert_eq!(installed.starts(), before);
    installed.scriptlet("POSTUN", "1");
    installed.trigger();
    for ((user, unit), before) in RUN.iter().zip(&before) {
        let after = installed.start(user, unit);
        assert!(after.is_some() && after != *before, "{user}'s {unit} should be a new one: {before:?}, {after:?}");
    }
    installed.assert_nothing_runs_for_bob();
    assert_eq!(sockets(), listening);

    installed.scriptlet("PREUN", "0");
    assert_eq!(sockets(), [const { None }; 2], "nobody would serve their clients");
    assert_eq!(installed.starts(), [const { None }; 3], "what was removed still runs");
    for (user, unit) in RUN.into_iter().chain(STAY) {
        assert_eq!(installed.systemctl(user, &["is-enabled", unit]), "disabled", "{user}'s {unit}");
    }
    let remove = "rm -rf /usr/lib/systemd/*/*dbx-rotator* /usr/bin/dbx-rotator";
    installed.machine.run(&["sh", "-c", remove]).exits(0);
    installed.scriptlet("POSTUN", "0");
    installed.trigger();
    for user in ["root", "alice", "bob"] {
        assert_eq!(installed.systemctl(user, &["--failed", "--plain", "--no-legend"]), "", "failed for {user}");
    }
}
