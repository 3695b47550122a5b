//! What tests rely on when they boot a machine: it is separate from the host, it hides no secret, and nothing of it
//! remains.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test stops where it fails, and one tells another where its machine is"
)]

use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Machine, Release, on_each_release, skip};

on_each_release!(
    a_reboot_keeps_files_and_starts_a_lingering_manager,
    the_journal_of_a_unit_can_be_awaited,
    a_secret_in_the_journal_is_found,
);

const SOON: Duration = Duration::from_secs(20);
/// No unit of a user logs this anywhere else.
const SECRET: &str = "stand-in-secret-0123456789abcdef";

fn machine(test: &str, release: Release) -> Option<Machine> {
    Machine::boot(release).map_err(|reason| skip(test, &reason)).ok()
}

fn a_reboot_keeps_files_and_starts_a_lingering_manager(test: &str, release: Release) {
    let Some(mut machine) = machine(test, release) else { return };
    machine.write("/home/alice/.config/a/b", "kept", 0o600, Some("alice"));
    machine.linger("alice");
    machine.as_user("alice", &["touch", "/run/user/1000/lost"]).exits(0);
    machine.reboot();
    machine.run(&["systemctl", "start", "user@1000.service"]).exits(0);
    let look = "stat -c '%U %a' .config .config/a .config/a/b; cat .config/a/b; ls /run/user/1000; whoami";
    let seen = machine.as_user("alice", &["sh", "-c", look]);
    seen.exits(0).stdout_has("alice 755\nalice 755\nalice 600\nkept").stdout_lacks("lost");
    assert_eq!(machine.read("/home/alice/.config/a/b"), "kept");
}

fn the_journal_of_a_unit_can_be_awaited(test: &str, release: Release) {
    let Some(machine) = machine(test, release) else { return };
    for user in ["alice", "root"] {
        let script = r#"read -r line <"$0"; echo "I heard $line"; exec sleep 60"#;
        let mut line =
            vec!["systemd-run", "--unit=talk.service", "--description=Talk", "sh", "-c", script, "/tmp/pipe"];
        if user != "root" {
            machine.linger(user);
            line.insert(1, "--user");
        }
        machine.as_user(user, &["mkfifo", "/tmp/pipe"]).exits(0);
        machine.as_user(user, &line).exits(0);
        machine.journal_says(user, "talk.service", "Started", SOON);
        assert!(!machine.journal(user, "talk.service").contains("I heard"));
        machine.as_user(user, &["sh", "-c", "echo this >/tmp/pipe; rm /tmp/pipe"]).exits(0);
        machine.journal_says(user, "talk.service", "I heard this", SOON);
    }
    machine.linger("bob");
    assert_eq!(machine.journal("bob", "talk.service"), "", "a unit of another user is another unit");
    let missing = || machine.journal_says("alice", "talk.service", "never said", Duration::from_secs(1));
    catch_unwind(AssertUnwindSafe(missing)).expect_err("it was never said");
}

fn a_secret_in_the_journal_is_found(test: &str, release: Release) {
    let Some(machine) = machine(test, release) else { return };
    machine.keep_secret(SECRET);
    machine.assert_no_secret_in_journal();
    machine.write("/tmp/entry", format!("MESSAGE=harmless\nFIELD=a {} b\n", &SECRET[3..25]), 0o644, None);
    machine.as_user("alice", &["logger", "--journald=/tmp/entry"]).exits(0);
    let found = catch_unwind(AssertUnwindSafe(|| machine.assert_no_secret_in_journal())).expect_err("it is there");
    assert!(found.downcast_ref::<String>().unwrap().contains("leaked"));
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(machine))).expect_err("it is still there");
    assert!(dropped.downcast_ref::<String>().unwrap().contains("leaked"));
}

#[test]
fn machines_at_the_same_time_are_strangers() {
    let boot = |release| std::thread::spawn(move || Machine::boot(release));
    let booting = [Release::Bookworm, Release::Forky, Release::Forky].map(boot);
    let booted: Result<Vec<Machine>, String> = booting.into_iter().map(|machine| machine.join().unwrap()).collect();
    let machines = match booted {
        Ok(machines) => machines,
        Err(reason) => return skip("machines_at_the_same_time_are_strangers", &reason),
    };
    for (number, machine) in machines.iter().enumerate() {
        machine.linger("alice");
        machine.write("/home/alice/number", number.to_string(), 0o600, Some("alice"));
    }
    let ids: Vec<String> = machines.iter().map(|machine| machine.read("/etc/machine-id")).collect();
    for (number, machine) in machines.iter().enumerate() {
        machine.as_user("alice", &["cat", "number"]).exits(0).stdout_has(&number.to_string());
        machine.as_user("alice", &["systemctl", "--user", "is-system-running", "--wait"]).exits(0);
        assert_eq!(ids.iter().filter(|id| **id == ids[number]).count(), 1, "{ids:?}");
    }
}

/// Boots a machine and stays until it is killed.
#[test]
#[ignore = "started by nothing_stays_of_a_machine_whose_process_was_killed"]
fn boots_and_stays() {
    let machine = Machine::boot(Release::Bookworm).unwrap();
    machine.linger("alice");
    println!("\nBOOTED {}", machine.leader());
    std::thread::sleep(Duration::from_secs(60));
}

/// Everything named after that process: cgroups and temp directories.
fn leftovers(owner: u32) -> Vec<String> {
    let name = format!("dbx-rotator-test-{owner}-");
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd", "/tmp"];
    let entries = places.iter().flat_map(|place| std::fs::read_dir(place).into_iter().flatten().flatten());
    entries.map(|entry| entry.path().display().to_string()).filter(|path| path.contains(&name)).collect()
}

fn goes(what: &str, mut is_there: impl FnMut() -> bool) {
    let began = Instant::now();
    while is_there() {
        assert!(began.elapsed() < SOON, "{what} stays");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nothing_stays_of_a_machine_whose_process_was_killed() {
    if let Err(reason) = Machine::boot(Release::Bookworm) {
        return skip("nothing_stays_of_a_machine_whose_process_was_killed", &reason);
    }
    for with_supervisor in [false, true] {
        let mut owner = Command::new("setsid")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "machine::boots_and_stays", "--ignored", "--nocapture"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
        let leader = lines.find_map(|line| line.strip_prefix("BOOTED ").map(str::to_owned)).expect("a machine");
        assert!(!leftovers(owner.id()).is_empty());
        // The process group also contains the supervisor.
        let victim = if with_supervisor { format!("-{}", owner.id()) } else { owner.id().to_string() };
        assert!(Command::new("kill").args(["-KILL", "--", &victim]).status().unwrap().success());
        owner.wait().unwrap();
        goes("systemd", || Path::new("/proc").join(&leader).exists());
        // The next machine removes what nobody was left to remove.
        drop(Machine::boot(Release::Bookworm).unwrap());
        goes("something of the dead process", || !leftovers(owner.id()).is_empty());
    }
}
