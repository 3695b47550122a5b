//! Root at work in another user's home. Whatever the owner put there, nothing of root's is read out, written or given away, no
//! program of the owner runs as root, and what root makes there belongs to the owner.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::workspace::scratch_directory;
use crate::support::{Home, Outcome, Session, Workspace, skip};

/// A user with a home who need not be in any list of users.
const BOB: u32 = 4242;

/// The contents of root's files.
const MARK: &str = "this-is-roots-and-nobody-elses";

const CONFIG: &str = ".config/dbx-rotator/config.toml";
const FRAGMENT: &str = ".config/dbx-rotator/conf.d/bobs.toml";
const SECRET: &str = ".config/dbx-rotator/secret";

/// Root's files, with the names that the program looks for if a directory of root's replaces one of bob's.
const OF_ROOT: [&str; 14] = [
    "victim",
    "dbx-rotator/config.toml",
    "dbx-rotator/secret",
    "dbx-rotator/record.json",
    "dbx-rotator/lock",
    "state/dbx-rotator/record.json",
    "state/dbx-rotator/lock",
    "config.toml",
    "secret",
    "record.json",
    "lock",
    ".pgpass",
    "token",
    "app",
];

/// The directories that a rotation works in.
const DIRECTORIES: [&str; 11] = [
    ".local",
    ".local/state",
    ".local/state/dbx-rotator",
    ".config",
    ".config/dbx-rotator",
    "passwords",
    "out",
    "envs",
    "made",
    "templates",
    "logs",
];

/// The files that a rotation reads or writes.
const FILES: [&str; 13] = [
    ".local/state/dbx-rotator/lock",
    ".local/state/dbx-rotator/record.json",
    "passwords/.pgpass",
    "out/token",
    "envs/env",
    "made/app",
    "templates/app",
    "logs/log",
    ".pg_service.conf",
    CONFIG,
    SECRET,
    "ca.pem",
    ".databrickscfg",
];

const COMMANDS: [&[&str]; 6] =
    [&["rotate", "--retry-for", "0s"], &["status"], &["check"], &["config", "show"], &["config", "check"], &["token"]];

/// Two homes in one directory, bob's and root's, and a workspace.
struct Homes {
    base: tempfile::TempDir,
    workspace: Workspace,
    /// Where commands are started from.
    desk: Home,
}

/// How one of bob's names leads to something of root's.
#[derive(Clone, Copy, Debug)]
enum Link {
    Absolute,
    Relative,
    Hard,
}

/// Files by path: owner, mode and contents.
type Seen = BTreeMap<PathBuf, (u32, u32, u32, i64, i64, Vec<u8>)>;

impl Homes {
    /// Prepares bob's home for a first rotation.
    fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip(test, "only root can be trapped");
            return None;
        }
        let base = scratch_directory(0o711);
        let homes = Homes { base, workspace: Workspace::start(), desk: Home::new() };
        for (home, owner, mode) in [("bob", BOB, 0o755), ("root", 0, 0o700)] {
            let home = homes.base.path().join(home);
            fs::create_dir(&home).unwrap();
            fs::set_permissions(&home, Permissions::from_mode(mode)).unwrap();
            chown(&home, Some(owner), Some(owner)).unwrap();
        }
        for file in OF_ROOT {
            let path = homes.of_root(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("{MARK}\n")).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }
        homes.put(CONFIG, homes.config(""));
        homes.put(SECRET, homes.workspace.client_secret());
        homes.put("ca.pem", fs::read(homes.workspace.ca_file()).unwrap());
        homes.put("templates/app", "url = {{ url | json }}\n");
        homes.make_parents("logs/log");
        homes.make_parents("passwords/.pgpass");
        Some(homes)
    }

    fn config(&self, more: &str) -> String {
        format!(
            "password_file = '~/passwords/.pgpass'\nlog_file = '~/logs/log'\n[[workspace]]\nhost = '{}'\nclient_id = '{}'\n\
             client_secret_file = '~/{SECRET}'\nca_file = '~/ca.pem'\n[[connection]]\nname = 'orders'\nhost = 'db.example'\n\
             service_file = true\ntoken_file = '~/out/token'\nenv_file = '~/envs/env'\n{more}\n[[connection.file]]\n\
             template = '~/templates/app'\npath = '~/made/app'\n",
            self.workspace.url(),
            self.workspace.client_id(),
        )
    }

    fn of_bob(&self, inside: &str) -> PathBuf {
        self.base.path().join("bob").join(inside)
    }

    fn of_root(&self, inside: &str) -> PathBuf {
        self.base.path().join("root").join(inside)
    }

    /// Puts a file of bob's into a directory of bob's.
    fn put(&self, inside: &str, bytes: impl AsRef<[u8]>) {
        self.make_parents(inside);
        let path = self.of_bob(inside);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(BOB), Some(BOB)).unwrap();
    }

    fn make_parents(&self, inside: &str) {
        let home = self.of_bob("");
        let path = self.of_bob(inside);
        let mut missing: Vec<_> = path.ancestors().skip(1).take_while(|above| above.starts_with(&home)).collect();
        missing.retain(|above| !above.exists());
        for directory in missing.into_iter().rev() {
            fs::create_dir(directory).unwrap();
            chown(directory, Some(BOB), Some(BOB)).unwrap();
        }
    }

    /// Bob makes one of his names lead to something of root's.
    fn link(&self, inside: &str, to: &Path, link: Link) {
        self.make_parents(inside);
        let path = self.of_bob(inside);
        match fs::symlink_metadata(&path) {
            Ok(there) if there.is_dir() => fs::remove_dir_all(&path).unwrap(),
            Ok(_) => fs::remove_file(&path).unwrap(),
            Err(_) => {}
        }
        let up = "../".repeat(Path::new(inside).components().count());
        match link {
            Link::Absolute => symlink(to, &path).unwrap(),
            Link::Relative => symlink(Path::new(&up).join(to.strip_prefix(self.base.path()).unwrap()), &path).unwrap(),
            Link::Hard => fs::hard_link(to, &path).unwrap(),
        }
        if !matches!(link, Link::Hard) {
            std::os::unix::fs::lchown(&path, Some(BOB), Some(BOB)).unwrap();
        }
    }

    /// A command that root types, with this home.
    fn root(&self, home: &str, arguments: &[&str]) -> Session<'_> {
        let by_a_shell_with_a_file = ["-c", "exec 9</dev/null; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_dbx-rotator")];
        let session = self.desk.command("/bin/sh").args(by_a_shell_with_a_file).args(arguments);
        let session = ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"]
            .iter()
            .fold(session, |session, name| session.without_env(name));
        let session = session.env("ROOTS_OWN", "kept").env("HOME", self.base.path().join(home));
        session.may_print_secrets().patience(Duration::from_secs(20))
    }

    /// A command that root types in root's own home, for a password file in bob's.
    fn own_settings(&self, password_file: &str) -> Session<'_> {
        let config = self.of_root("settings.toml");
        fs::write(&config, "").unwrap();
        self.root("root", &["rotate", "--retry-for", "0s", "--pg-host", "db.example", "--config"])
            .arg(config)
            .arg("--pgpass-file")
            .arg(self.of_bob(password_file))
            .signed_in_to(&self.workspace)
    }

    /// Everything in a home; links are not followed.
    fn seen(&self, home: &str) -> Seen {
        fn below(directory: &Path, seen: &mut Seen) {
            for path in
                fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).chain([directory.to_owned()])
            {
                let data = fs::symlink_metadata(&path).unwrap();
                if data.is_dir() && path != directory {
                    below(&path, seen);
                    continue;
                }
                let bytes = if data.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
                seen.insert(path, (data.mode(), data.uid(), data.gid(), data.mtime(), data.mtime_nsec(), bytes));
            }
        }
        let mut seen = Seen::new();
        below(&self.base.path().join(home), &mut seen);
        seen
    }

    /// What is wrong after a command: root's things must not appear anywhere else, in any way.
    fn faults(&self, was: &Seen, outcome: &Outcome) -> Vec<String> {
        let mut faults = self.faults_of_roots(was, outcome);
        for (path, (_, uid, .., bytes)) in self.seen("bob") {
            let is_another_name = uid == 0 && fs::symlink_metadata(&path).unwrap().nlink() > 1;
            if !is_another_name && String::from_utf8_lossy(&bytes).contains(MARK) {
                faults.push(format!("what is in root's file was copied to {}", path.display()));
            }
        }
        faults
    }

    /// The same without looking at bob's home.
    fn faults_of_roots(&self, was: &Seen, outcome: &Outcome) -> Vec<String> {
        let is = self.seen("root");
        let made = is.keys().filter(|path| !was.contains_key(*path));
        let mut faults: Vec<_> = made.map(|path| format!("{} was made", path.display())).collect();
        for path in was.keys().filter(|path| is.get(*path) != was.get(*path)) {
            let now = is.get(path).map(|(mode, uid, gid, ..)| format!("now {mode:o} of {uid}:{gid}"));
            faults.push(format!("{} was changed ({})", path.display(), now.unwrap_or_default()));
        }
        if outcome.stdout.contains(MARK) || outcome.stderr.contains(MARK) {
            faults.push(format!("what is in root's file was printed:\n{}{}", outcome.stdout, outcome.stderr));
        }
        if !matches!(outcome.code, Some(0 | 1 | 64 | 69 | 70 | 73 | 75 | 77 | 78)) {
            faults.push(format!("it ended with {:?} by signal {:?}: {}", outcome.code, outcome.signal, outcome.stderr));
        }
        faults
    }

    /// What belongs to somebody else in bob's home.
    fn not_of_bob(&self) -> Vec<String> {
        let foreign = self.seen("bob").into_iter().filter(|(_, (_, uid, gid, ..))| (*uid, *gid) != (BOB, BOB));
        foreign.map(|(path, (_, uid, gid, ..))| format!("{} belongs to {uid}:{gid}", path.display())).collect()
    }
}

/// Asserts that nothing was found; one run shows everything.
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} findings:\n  {}", findings.len(), findings.join("\n  "));
}

/// Runs each command with one of bob's names leading to something of root's.
fn trapped(test: &str, names: &[&str], to: &str, links: &[Link]) {
    let mut findings = Vec::new();
    for name in names {
        for link in links {
            let Some(homes) = Homes::new(test) else { return };
            if *name == ".databrickscfg" {
                let config = homes.config("").replace("client_secret_file", "profile = 'x'\n# ");
                homes.put(CONFIG, config.replace("client_id", "# "));
            }
            homes.link(name, &homes.of_root(to), *link);
            let was = homes.seen("root");
            for command in COMMANDS {
                let faults = homes.faults(&was, &homes.root("bob", command).run());
                findings.extend(faults.into_iter().map(|fault| format!("{name} {link:?}, {command:?}: {fault}")));
            }
            if *name == SECRET && homes.workspace.token_requests() > 0 {
                findings.push(format!("{name} {link:?}: what is in root's file was sent"));
            }
        }
    }
    none(findings);
}

#[test]
fn no_directory_of_roots_is_worked_in_for_one_of_bobs() {
    let test = "no_directory_of_roots_is_worked_in_for_one_of_bobs";
    trapped(test, &DIRECTORIES, "", &[Link::Absolute, Link::Relative]);
}

#[test]
fn no_file_of_roots_is_read_or_written_for_one_of_bobs() {
    let test = "no_file_of_roots_is_read_or_written_for_one_of_bobs";
    trapped(test, &FILES, "victim", &[Link::Absolute, Link::Relative, Link::Hard]);
}

#[test]
fn the_daemon_keeps_to_bobs_home_as_well() {
    let test = "the_daemon_keeps_to_bobs_home_as_well";
    let mut findings = Vec::new();
    for name in [".local/state", "passwords", "out", "logs"] {
        let Some(homes) = Homes::new(test) else { return };
        homes.link(name, &homes.of_root(""), Link::Absolute);
        let was = homes.seen("root");
        let running = homes.root("bob", &["run"]).spawn();
        // However it goes, its first round is over when it signs in, or has ended, or reports why not.
        let had_its_round = || homes.workspace.token_requests() > 0 || running.has_ended();
        for _ in 0..100 {
            if had_its_round() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let faults = homes.faults(&was, &running.terminate());
        findings.extend(faults.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    none(findings);
}

#[test]
fn a_name_that_changes_under_the_program_leads_nowhere_else() {
    let test = "a_name_that_changes_under_the_program_leads_nowhere_else";
    let rounds = if std::env::var_os("DBX_ROTATOR_FAULTS").is_some_and(|level| level == "all") { 300 } else { 25 };
    let mut findings = Vec::new();
    for name in [".local/state", "passwords", "out"] {
        let Some(homes) = Homes::new(test) else { return };
        homes.make_parents(&format!("{name}/x"));
        homes.link("trap", &homes.of_root(""), Link::Absolute);
        let (place, trap, done) = (homes.of_bob(name), homes.of_bob("trap"), AtomicBool::new(false));
        let was = homes.seen("root");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // The program may already have made the directory that is to be exchanged.
                    let _ = renameat_with(CWD, &place, CWD, &trap, RenameFlags::EXCHANGE);
                }
            });
            let faults = (0..rounds).map(|_| homes.faults_of_roots(&was, &homes.root("bob", COMMANDS[0]).run()));
            let faults = faults.filter(|faults| !faults.is_empty()).take(1).flatten();
            findings.extend(faults.map(|fault| format!("{name}: {fault}")));
            done.store(true, Ordering::Relaxed);
        });
    }
    none(findings);
}

#[test]
fn what_root_makes_in_a_home_belongs_to_its_owner() {
    let Some(homes) = Homes::new("what_root_makes_in_a_home_belongs_to_its_owner") else { return };
    for _ in 0..2 {
        homes.root("bob", COMMANDS[0]).run().exits(0);
        none(homes.not_of_bob());
    }
    for file in
        [".local/state/dbx-rotator/record.json", "passwords/.pgpass", "out/token", "envs/env", "made/app", "logs/log"]
    {
        assert!(homes.of_bob(file).exists(), "{file}");
    }
}

#[test]
fn links_to_what_is_bobs_own_are_followed() {
    let Some(homes) = Homes::new("links_to_what_is_bobs_own_are_followed") else { return };
    for (name, to) in [(".local/state", "disk/state"), ("passwords", "disk/passwords")] {
        homes.make_parents(&format!("{to}/x"));
        homes.link(name, &homes.of_bob(to), Link::Relative);
    }
    homes.put("dotfiles/services", "[other]\nhost=other.example\n");
    homes.link(".pg_service.conf", &homes.of_bob("dotfiles/services"), Link::Absolute);
    homes.root("bob", COMMANDS[0]).run().exits(0);
    none(homes.not_of_bob());
    assert!(fs::read_to_string(homes.of_bob("disk/passwords/.pgpass")).unwrap().contains("db.example"));
    assert!(fs::read_to_string(homes.of_bob("dotfiles/services")).unwrap().contains("[orders]"));
}

#[test]
fn a_password_file_of_bobs_is_bobs_whatever_home_root_has() {
    let test = "a_password_file_of_bobs_is_bobs_whatever_home_root_has";
    let Some(homes) = Homes::new(test) else { return };
    homes.own_settings("passwords/.pgpass").run().exits(0);
    none(homes.not_of_bob());
    assert!(homes.of_bob("passwords/.pgpass").exists());
    // The same with traps; what root keeps in root's own home does not matter.
    let mut findings = Vec::new();
    for (name, to, password_file) in
        [("passwords", "dbx-rotator", "passwords/.pgpass"), (".pgpass", "victim", ".pgpass")]
    {
        for link in [Link::Absolute, Link::Relative] {
            let Some(homes) = Homes::new(test) else { return };
            homes.link(name, &homes.of_root(to), link);
            let of_interest = |seen: Seen| -> Seen {
                let of = [homes.of_root("dbx-rotator"), homes.of_root("victim")];
                seen.into_iter().filter(|(path, _)| of.iter().any(|of| path.starts_with(of))).collect()
            };
            let was = of_interest(homes.seen("root"));
            homes.own_settings(password_file).run();
            if of_interest(homes.seen("root")) != was {
                findings.push(format!("{name} {link:?}: root's files were changed"));
            }
        }
    }
    none(findings);
}

#[test]
fn no_program_of_bobs_runs_as_root() {
    let test = "no_program_of_bobs_runs_as_root";
    let mut findings = Vec::new();
    for name in ["on_rotate", "cli_path", "~/.local/bin", "~/bin"] {
        let Some(homes) = Homes::new(test) else { return };
        let place = match name {
            "~/.local/bin" => ".local/bin/databricks",
            "~/bin" => "bin/databricks",
            _ => "program",
        };
        let (program, told) = (homes.of_bob(place), homes.of_bob("told"));
        // Its session is its own, and what root's shell has exported is not for it.
        let script = format!(
            "#!/bin/sh\nexec >> '{}'\nid -u\n[ -z \"${{ROOTS_OWN-}}\" ] || echo variable\n\
             [ \"$(cut -d' ' -f6 /proc/$$/stat)\" = $$ ] || echo session\n[ ! -e /proc/$$/fd/9 ] || echo descriptor\n",
            told.display()
        );
        homes.put(place, script);
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let by_cli =
            |more: &str| homes.config("").replace("client_secret_file", &format!("auth = 'databricks-cli'\n{more}# "));
        homes.put(
            CONFIG,
            match name {
                "on_rotate" => homes.config(&format!("on_rotate = ['{}']\n", program.display())),
                "cli_path" => by_cli(&format!("cli_path = '{}'\n", program.display())).replace("client_id", "# "),
                _ => by_cli("").replace("client_id", "# "),
            },
        );
        // Without `token`, which tries for a minute to get one.
        for command in &COMMANDS[..5] {
            homes.root("bob", command).run();
        }
        // As after `su` without a dash: root's own home, where a rotation finds all that it needs, and variables that lead to bob's
        // settings.
        let from = homes.of_bob(".");
        let mut copy = std::process::Command::new("cp");
        copy.args(["-r", "--no-preserve=ownership"]).arg(from).arg(homes.of_root(""));
        assert!(copy.status().unwrap().success());
        let config_home = homes.of_bob(".config");
        for (variable, place) in [
            ("XDG_CONFIG_HOME", config_home.clone()),
            ("CONFIGURATION_DIRECTORY", config_home.join("dbx-rotator")),
            ("DBX_ROTATOR_CONFIG", homes.of_bob(CONFIG)),
        ] {
            homes.root("root", COMMANDS[0]).env(variable, place).run();
        }
        // A file of bob's among root's own.
        for file in [CONFIG, FRAGMENT] {
            let (usual, there) = (homes.of_root(CONFIG), homes.of_root(file));
            let text = fs::read(&usual).unwrap();
            if file == FRAGMENT {
                fs::create_dir(there.parent().unwrap()).unwrap();
                fs::write(&usual, "").unwrap();
            }
            fs::write(&there, text).unwrap();
            chown(&there, Some(BOB), Some(BOB)).unwrap();
            homes.root("root", COMMANDS[0]).run();
            fs::copy(&there, &usual).unwrap();
            chown(&usual, Some(0), Some(0)).unwrap();
            chown(&there, Some(0), Some(0)).unwrap();
        }
        let who = fs::read_to_string(told).unwrap_or_default();
        if who.lines().any(|uid| uid == "0") {
            findings.push(format!("{name}: ran as root"));
        }
        for what in ["variable", "session", "descriptor"] {
            if who.lines().any(|line| line == what) {
                findings.push(format!("{name}: got root's {what}"));
            }
        }
        if name == "cli_path" && who.is_empty() {
            findings.push(format!("{name}: never ran, so that this proves nothing"));
        }
    }
    none(findings);
}

/// Root's own limits do not count for root, but for whom it becomes.
#[test]
fn a_machine_without_threads_to_give_costs_a_try_and_not_the_program() {
    let Some(homes) = Homes::new("a_machine_without_threads_to_give_costs_a_try_and_not_the_program") else { return };
    homes.put(CONFIG, homes.config("").replace("127.0.0.1", "localhost"));
    let script = "ulimit -u 0; exec \"$0\" \"$@\"";
    let session = homes.desk.command("/bin/bash").args(["-c", script, env!("CARGO_BIN_EXE_dbx-rotator")]);
    let session = session.args(["rotate", "--retry-for", "0s"]).env("HOME", homes.of_bob(""));
    let session = ["XDG_CONFIG_HOME", "XDG_STATE_HOME"].iter().fold(session, |session, name| session.without_env(name));
    session.run().exits(69).stderr_has("no thread can be started now");
}
