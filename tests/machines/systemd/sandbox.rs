//! What the units may do: no more than they need. A probe runs in the program's place and checks whether each directive
//! really forbids what it claims to forbid; also what remains without user namespaces.

use std::collections::BTreeMap;

use super::{Release, Stage, Workspace, stage};
use crate::support::{Machine, skip};

const SERVICE: &str = "dbx-rotator.service";
const PROBE: &str = "/usr/local/share/probe.pl";

/// What people may otherwise do, but our units may not.
const FORBIDDEN: [&str; 18] = [
    "ProtectSystem",
    "ProtectHome",
    "InaccessiblePaths",
    "ReadOnlyPaths",
    "ReadOnlyPaths-config",
    "PrivateTmp",
    "PrivateDevices",
    "ProtectKernelModules",
    "ProtectControlGroups",
    "LockPersonality",
    "MemoryDenyWriteExecute",
    "RestrictAddressFamilies",
    "RestrictSUIDSGID",
    "SystemCallFilter-resources",
    "SystemCallFilter-others",
    "RestrictNamespaces",
    "SystemCallArchitectures",
    "ReadWritePaths",
];

/// Forbidden in a container whatever the unit says, or to all but root anywhere: for these the test only shows that the directive
/// is valid, not that it is needed.
const FORBIDDEN_ANYWAY: [&str; 3] = ["ProtectClock", "ProtectHostname", "RestrictRealtime"];

/// The probe's results: `allowed`, `forbidden`, or the value of a fact.
type Findings = BTreeMap<String, String>;

fn findings(said: &str) -> Findings {
    let pair = |line: &str| {
        let (name, value) = line.split_once(" = ").or_else(|| line.split_once(' '))?;
        Some((name.to_owned(), value.to_owned()))
    };
    said.lines().filter_map(pair).collect()
}

/// Prepares what the probe will try to reach.
fn lay_out(machine: &Machine) {
    machine.write(PROBE, include_str!("probe.pl"), 0o644, None);
    let script = "mkdir -p /usr/local/open /home/bob/open /usr/lib/modules && chmod 777 /usr/local/open /home/bob/open && \
                  chmod 711 /home/bob && touch /tmp/of-others /dev/of-others /usr/lib/modules/of-others && \
                  chmod 644 /usr/lib/modules/of-others";
    machine.run(&["sh", "-c", script]).exits(0);
    machine.write("/home/alice/.ssh/key", "", 0o600, Some("alice"));
    machine.write("/home/alice/.bashrc", "", 0o600, Some("alice"));
}

fn everything_that_a_users_unit_claims_to_forbid_is_forbidden(test: &str, release: Release) {
    if !cfg!(target_arch = "x86_64") {
        return skip(test, "the probe makes system calls by their numbers on x86-64");
    }
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    lay_out(&stage.machine);
    let probe = format!("[Service]\nExecStart=\nExecStart=/usr/bin/perl {PROBE}\nSyslogIdentifier=probe\n");
    stage.adjust(SERVICE, &probe);
    stage.systemctl(&["start", SERVICE]).exits(0);
    let inside = findings(&stage.machine.journal("alice", SERVICE));
    let free = ["systemd-run", "--user", "--quiet", "--wait", "--pipe", "/usr/bin/perl", PROBE];
    let outside = findings(&stage.machine.as_user("alice", &free).exits(0).stdout);
    for name in FORBIDDEN {
        assert_eq!(outside[name], "allowed", "{name}: a test that cannot fail\n{outside:#?}");
        let wanted = if name == "ReadWritePaths" { "allowed" } else { "forbidden" };
        assert_eq!(inside[name], wanted, "{name}\n{inside:#?}");
    }
    is_apart(&inside, &outside);
}

/// It has its own namespaces, no privileges and cannot gain any, and leaves nothing that others can read.
#[track_caller]
fn is_apart(inside: &Findings, outside: &Findings) {
    for name in FORBIDDEN_ANYWAY {
        assert_eq!(inside[name], "forbidden", "{name}\n{inside:#?}");
    }
    for name in ["mnt", "ipc", "uts", "user", "kernel-files"] {
        assert_ne!(inside[name], outside[name], "{name}\n{inside:#?}");
    }
    for (name, value) in [
        ("NoNewPrivs", "1"),
        ("CapBnd", "0000000000000000"),
        ("Seccomp", "2"),
        ("umask", "0077"),
        ("core", "Max core file size 0 0 bytes "),
    ] {
        assert_eq!(inside[name].trim_end(), value.trim_end(), "{name}\n{inside:#?}");
    }
}

fn everything_that_a_systems_unit_claims_to_forbid_is_forbidden(test: &str, release: Release) {
    if !cfg!(target_arch = "x86_64") {
        return skip(test, "the probe makes system calls by their numbers on x86-64");
    }
    let Some(machine) = stage::machine(test, release) else { return };
    lay_out(&machine);
    machine.write("/home/alice/.config/dbx-rotator/config.toml", "", 0o600, Some("alice"));
    machine.write("/etc/dbx-rotator/alice.toml", "", 0o644, None);
    let probe = format!("[Service]\nExecStart=\nExecStart=/usr/bin/perl {PROBE}\nSyslogIdentifier=probe\n");
    machine.write("/etc/systemd/system/dbx-rotator@.service.d/test.conf", probe, 0o644, None);
    machine.run(&["systemctl", "daemon-reload"]).exits(0);
    machine.run(&["systemctl", "start", "dbx-rotator@alice.service"]).exits(0);
    let inside = findings(&machine.journal("root", "dbx-rotator@alice.service"));
    let free = ["systemd-run", "--uid=alice", "--quiet", "--wait", "--pipe", "/usr/bin/perl", PROBE];
    let outside = findings(&machine.run(&free).exits(0).stdout);
    for name in FORBIDDEN.into_iter().chain(["ProtectProc"]) {
        // Under the system's manager, no part of the cgroup tree belongs to a user.
        let otherwise = if name == "ProtectControlGroups" { "forbidden" } else { "allowed" };
        assert_eq!(outside[name], otherwise, "{name}: a test that cannot fail\n{outside:#?}");
        let wanted = if name == "ReadWritePaths" { "allowed" } else { "forbidden" };
        assert_eq!(inside[name], wanted, "{name}\n{inside:#?}");
    }
    is_apart(&inside, &outside);
}

fn every_unit_is_clean_and_exposes_little(test: &str, release: Release) {
    let Ok(machine) = Machine::boot(release).map_err(|reason| skip(test, &reason)) else { return };
    // As shipped, without the changes for a container.
    machine.install(std::path::Path::new(stage::PROGRAM));
    machine.linger("alice");
    let names = |directory: &str| -> Vec<String> {
        let found = std::fs::read_dir(machine.path(directory)).unwrap().flatten();
        let names = found.filter_map(|file| file.file_name().into_string().ok());
        let mut ours: Vec<String> = names.filter(|name| name.starts_with("dbx-rotator")).collect();
        ours.sort();
        ours.iter().map(|name| format!("{directory}/{name}")).collect()
    };
    for (directory, user, limit) in
        [("/usr/lib/systemd/user", "alice", "15"), ("/usr/lib/systemd/system", "root", "11")]
    {
        let mode = if user == "root" { "--system" } else { "--user" };
        let units = names(directory);
        assert_eq!(units.len(), 5, "{units:?}");
        for unit in &units {
            let verified = machine.as_user(user, &["systemd-analyze", mode, "--man=no", "verify", unit]);
            let said = verified.exits(0).stderr.clone() + &verified.stdout;
            let ours: Vec<&str> = said.lines().filter(|line| line.contains("dbx-rotator")).collect();
            assert!(ours.is_empty(), "{unit}: {ours:#?}");
        }
        for unit in units.iter().filter(|unit| unit.ends_with(".service")) {
            let threshold = format!("--threshold={limit}");
            let analyze = ["systemd-analyze", mode, "security", "--offline=true", "--no-pager", &threshold, unit];
            let rated = machine.as_user(user, &analyze);
            eprintln!("{}: {}", release.name(), rated.exits(0).stdout.lines().last().unwrap_or_default());
        }
    }
}

/// As where kernel.unprivileged_userns_clone is 0 or AppArmor forbids it: nobody can create one.
fn forbid_user_namespaces(machine: &Machine) {
    machine.write(
        "/etc/systemd/system/user@.service.d/test.conf",
        "[Service]\nRestrictNamespaces=~user\n",
        0o644,
        None,
    );
    machine.run(&["systemctl", "daemon-reload"]).exits(0);
    machine.run(&["systemctl", "restart", "user@1000.service"]).exits(0);
}

/// The same exit code, and another cause: what helps is another path, and not a weaker sandbox.
fn a_path_that_is_missing_is_not_taken_for_forbidden_namespaces(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    stage.adjust(SERVICE, "[Service]\nReadWritePaths=/srv/not-there\n");
    stage.systemctl(&["start", SERVICE]).exits(1);
    assert_eq!(stage.property(SERVICE, "ExecMainStatus"), "226");
    let offered = stage.machine.as_user("alice", &["dbx-rotator", "service", "install"]);
    offered.exits(69).stdout_has("a path that the unit or a drop-in names may not exist");
    offered.stderr_lacks("--relaxed").stdout_lacks("--relaxed");
    let status = stage.machine.as_user("alice", &["dbx-rotator", "status"]);
    status.exits(1).stdout_has("systemctl --user cat dbx-rotator.service").stdout_lacks("--relaxed");
}

fn without_user_namespaces_the_relaxed_drop_in_lets_it_start(test: &str, release: Release) {
    let Some(stage) = Stage::set(test, release, Workspace::start()) else { return };
    forbid_user_namespaces(&stage.machine);
    stage.systemctl(&["start", SERVICE]).exits(1);
    let failed: i32 = stage.property(SERVICE, "ExecMainStatus").parse().unwrap();
    assert!([217, 218, 226].contains(&failed), "{failed}");
    // The cause is recognised, and the remedy is offered.
    let install = ["dbx-rotator", "service", "install"];
    let offered = stage.machine.as_user("alice", &install);
    offered.exits(64).stderr_has("does not let users make user namespaces").stderr_has("--relaxed");
    stage
        .machine
        .as_user("alice", &["dbx-rotator", "status"])
        .exits(1)
        .stdout_has("dbx-rotator service install --relaxed");
    stage.machine.as_user("alice", &[&install[..], &["--relaxed"]].concat()).exits(0).stdout_has("live");
    stage.log_in();
    let daemon = stage.machine.as_user("alice", &[&install[..], &["--relaxed", "--daemon"]].concat());
    daemon.exits(0).stdout_has("dbx-rotator-daemon.service");
    // System calls are still forbidden.
    let probe = format!("[Service]\nExecStart=\nExecStart=/usr/bin/perl {PROBE}\nSyslogIdentifier=probe\n");
    lay_out(&stage.machine);
    stage.adjust(SERVICE, &probe);
    stage.systemctl(&["start", SERVICE]).exits(0);
    let inside = findings(&stage.machine.journal("alice", SERVICE));
    for name in ["LockPersonality", "MemoryDenyWriteExecute", "RestrictAddressFamilies", "SystemCallFilter-others"] {
        assert_eq!(inside[name], "forbidden", "{name}\n{inside:#?}");
    }
}

crate::support::on_each_release!(
    everything_that_a_users_unit_claims_to_forbid_is_forbidden,
    everything_that_a_systems_unit_claims_to_forbid_is_forbidden,
    every_unit_is_clean_and_exposes_little,
    without_user_namespaces_the_relaxed_drop_in_lets_it_start,
    a_path_that_is_missing_is_not_taken_for_forbidden_namespaces,
);
