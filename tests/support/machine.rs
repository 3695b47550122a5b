//! A machine with a real systemd, booted in a container for one test.
//!
//! No stand-in can show what a unit really does under a service manager. So this boots Debian itself: `machine/root`
//! builds one for each release and keeps it in the tests' cache, `machine/boot` boots a throw-away copy of it. The
//! machine shares the host's network, so a test's stand-ins on loopback can be reached from inside.
//!
//! Needs root, mmdebstrap, systemd-nspawn and util-linux, and Debian's mirror for the very first boot.
//!
//! Invariants: a machine never outlives the process that booted it, however that ends, and leaves no mount, process or
//! file; no secret that it was told to watch ever appears in the output of a command, nor in its journal at the end.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::outcome::Outcome;
use super::session::{Home, Session};
use super::workspace::Workspace;

// Explicit paths, so that this file may itself be included by path.
#[path = "machine/container.rs"]
mod container;
#[path = "machine/roots.rs"]
mod roots;

use container::Container;

/// How long a machine may take to boot.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
const PATH: &str = "/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin:/bin:/sbin";
/// Moves itself into the machine's cgroups and then into all its namespaces; without the cgroups, logind (since systemd
/// 258) cannot place the caller.
const ENTER: &str = r#"echo $$ >"$1" && shift && exec nsenter "$@""#;

/// The oldest and the newest systemd that we support.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// Debian 12, systemd 252.
    Bookworm,
    /// Debian 14 (testing), systemd 262.
    Forky,
}

impl Release {
    pub const ALL: [Self; 2] = [Self::Bookworm, Self::Forky];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Forky => "forky",
        }
    }
}

/// A test on each release, `bookworm::NAME` and `forky::NAME`, of a function that takes the test's name and the release.
macro_rules! on_each_release {
    ($($test:ident),+ $(,)?) => {
        mod bookworm {
            $(#[test] fn $test() {
                super::$test(concat!("bookworm::", stringify!($test)), super::Release::Bookworm);
            })+
        }
        mod forky {
            $(#[test] fn $test() {
                super::$test(concat!("forky::", stringify!($test)), super::Release::Forky);
            })+
        }
    };
}
pub(crate) use on_each_release;

/// A booted machine, removed when dropped. It has the users `alice` and `bob`.
pub struct Machine {
    release: Release,
    container: Container,
    /// Keeps the commands' history and the secrets; the machine is mounted in it.
    home: Home,
}

/// A user in /etc/passwd.
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

impl Machine {
    /// A running machine, or why there can be none here.
    ///
    /// # Panics
    /// When systemd was started but did not come up: that is not the host's fault.
    #[track_caller]
    pub fn boot(release: Release) -> Result<Self, String> {
        let root = roots::root(release.name())?;
        let home = Home::new();
        let container = Container::start(&root, &home.path("machine"))?;
        let machine = Self { release, container, home };
        machine.await_boot();
        Ok(machine)
    }

    #[track_caller]
    fn await_boot(&self) {
        let up = || {
            let state = self.command("root", &["systemctl", "is-system-running", "--wait"]).unrecorded().run();
            matches!(state.stdout.trim(), "running" | "degraded")
        };
        // Until systemd listens there is nothing to wait for.
        let is_up = container::wait(BOOT_LIMIT, || up().then_some(())).is_some();
        assert!(is_up, "{} did not get up\n{}", self.release.name(), self.container.console());
    }

    /// Turns it off and on again: files stay, /run does not.
    #[track_caller]
    pub fn reboot(&mut self) {
        let before = self.container.leader();
        self.run(&["systemctl", "reboot"]);
        let after = self.container.await_leader(BOOT_LIMIT, |leader| leader != before);
        after.unwrap_or_else(|reason| panic!("{reason}"));
        self.await_boot();
    }

    pub fn release(&self) -> Release {
        self.release
    }

    /// The process id of its systemd on the host.
    pub fn leader(&self) -> u32 {
        self.container.leader()
    }

    /// A process of the host that writes its id here becomes a process of the machine.
    pub fn door(&self) -> PathBuf {
        self.container.door()
    }

    // Files.

    /// Where a file of the machine is on the host. An absolute symbolic link in it would lead to the host's files.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        self.container.root().join(inside.strip_prefix("/").expect("a path in the machine is absolute"))
    }

    /// Writes a file in the machine, with its parent directories; all of them belong to the owner.
    pub fn write(&self, inside: &str, text: impl AsRef<[u8]>, mode: u32, owner: Option<&str>) {
        let ids = owner.map(|owner| self.user(owner)).map(|user| (user.uid, user.gid));
        let give = |path: &Path| {
            if let Some((uid, gid)) = ids {
                chown(path, Some(uid), Some(gid)).expect("give it to its owner");
            }
        };
        let path = self.path(inside);
        let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|directory| !directory.exists()).collect();
        for directory in missing.into_iter().rev() {
            fs::create_dir(directory).expect("make a directory");
            give(directory);
        }
        fs::write(&path, text).unwrap_or_else(|error| panic!("{inside}: {error}"));
        give(&path);
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set the mode");
    }

    #[track_caller]
    pub fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_else(|error| panic!("{inside}: {error}"))
    }

    /// Installs the program as /usr/bin/dbx-rotator, with the units and message catalogs of `dist/systemd`.
    #[track_caller]
    pub fn install(&self, program: &Path) {
        fs::copy(program, self.path("/usr/bin/dbx-rotator")).expect("copy the program");
        let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd");
        self.copy_files(&dist.join("system"), "", "/usr/lib/systemd/system");
        self.copy_files(&dist.join("user"), "", "/usr/lib/systemd/user");
        self.copy_files(&dist, ".catalog", "/usr/lib/systemd/catalog");
        self.run(&["journalctl", "--update-catalog"]).exits(0);
        self.run(&["systemctl", "daemon-reload"]).exits(0);
        for user in ["alice", "bob"] {
            if self.path(self.user(user).manager_socket()).exists() {
                self.as_user(user, &["systemctl", "--user", "daemon-reload"]).exits(0);
            }
        }
    }

    /// Copies the files with this ending from a directory of the repository, and those in `UNIT.d`, its drop-ins; none if
    /// the directory does not exist.
    fn copy_files(&self, from: &Path, end: &str, to: &str) {
        for entry in fs::read_dir(from).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let inside = format!("{to}/{}", name.to_str().expect("a plain name"));
            if path.is_file() && inside.ends_with(end) {
                self.write(&inside, fs::read(&path).expect("read it"), 0o644, None);
            } else if inside.ends_with(".d") {
                self.copy_files(&path, ".conf", &inside);
            }
        }
    }

    // Commands.

    /// Runs a command as root.
    #[track_caller]
    pub fn run(&self, program_and_arguments: &[&str]) -> Outcome {
        self.command("root", program_and_arguments).run()
    }

    /// Runs a command as that user, in the home directory, with the environment of a login and none of ours.
    #[track_caller]
    pub fn as_user(&self, user: &str, program_and_arguments: &[&str]) -> Outcome {
        self.command(user, program_and_arguments).run()
    }

    /// The same, not yet started, for a test that wants to type something, wait longer or keep it running.
    pub fn command(&self, user: &str, program_and_arguments: &[&str]) -> Session<'_> {
        let user = self.user(user);
        let shown = format!("[{}@{}] {}", user.name, self.release.name(), program_and_arguments.join(" "));
        self.home
            .command("sh")
            .env("PATH", PATH)
            .args(["-c", ENTER, "enter"])
            .arg(self.container.door())
            .args(["--all", "--target", &self.container.leader().to_string()])
            .args([
                "--setuid",
                &user.uid.to_string(),
                "--setgid",
                &user.gid.to_string(),
                "--",
                "/usr/bin/env",
                "-i",
                "-C",
            ])
            .arg(&user.home)
            .args(user.environment())
            .args(program_and_arguments)
            .shown_as(shown)
    }

    /// Starts the user's manager without a login, and enables it for each boot.
    #[track_caller]
    pub fn linger(&self, user: &str) {
        self.run(&["loginctl", "enable-linger", user]).exits(0);
        // logind starts it as well, but does not say when it is up.
        self.run(&["systemctl", "start", &format!("user@{}.service", self.user(user).uid)]).exits(0);
    }

    fn user(&self, name: &str) -> User {
        let passwd = self.read("/etc/passwd");
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name));
        let fields: Vec<&str> = line.unwrap_or_else(|| panic!("there is no user {name}")).split(':').collect();
        let number = |field: &str| field.parse().expect("a number in /etc/passwd");
        User { name: name.to_owned(), uid: number(fields[2]), gid: number(fields[3]), home: fields[5].to_owned() }
    }

    // The journal.

    /// Waits until the journal of this unit contains this text, from the unit itself or from the manager about it. The
    /// unit belongs to the user's manager; for root, to the system's.
    ///
    /// journald looks up a line's unit when it reads the line. If the process has ended by then, the line has no unit.
    #[track_caller]
    pub fn journal_says(&self, user: &str, unit: &str, text: &str, limit: Duration) {
        self.journal_says_times(1, user, unit, text, limit);
    }

    #[track_caller]
    pub fn journal_says_times(&self, times: usize, user: &str, unit: &str, text: &str, limit: Duration) {
        // Standard error shows whether it has begun to follow. The follower ends on its own, in case we have read enough
        // before.
        let seconds = (limit.as_secs() + 2).to_string();
        let mut line = vec!["sh", "-c", r#"exec timeout "$@" >&2"#, "journal", &seconds];
        line.extend(["journalctl", "--quiet", "--follow", "--lines=all", "--output=cat"]);
        let matches = self.journal_matches(user, unit);
        line.extend(matches.iter().map(String::as_str));
        self.command("root", &line).shown_as(format!("[journal of {unit}]")).spawn().says_times(times, text, limit);
    }

    /// The journal of this unit so far, one message a line.
    #[track_caller]
    pub fn journal(&self, user: &str, unit: &str) -> String {
        let matches = self.journal_matches(user, unit);
        self.run(&["journalctl", "--sync"]).exits(0);
        let mut line = vec!["journalctl", "--quiet", "--no-pager", "--output=cat"];
        line.extend(matches.iter().map(String::as_str));
        self.command("root", &line).unrecorded().run().exits(0).stdout.clone()
    }

    fn journal_matches(&self, user: &str, unit: &str) -> Vec<String> {
        let uid = self.user(user).uid;
        let matches: &[&str] = match uid {
            0 => &["_SYSTEMD_UNIT=UNIT", "+", "UNIT=UNIT", "_PID=1"],
            _ => &["_SYSTEMD_USER_UNIT=UNIT", "_UID=USER", "+", "USER_UNIT=UNIT", "_UID=USER"],
        };
        let fill = |field: &&str| match field.split_once('=') {
            Some((name, "UNIT")) => format!("{name}={unit}"),
            Some((name, "USER")) => format!("{name}={uid}"),
            _ => (*field).to_owned(),
        };
        matches.iter().map(fill).collect()
    }

    // Secrets.

    /// This workspace's secrets must never be printed, or appear in the journal.
    pub fn watch(&self, workspace: &Workspace) {
        self.home.watch(workspace);
    }

    pub fn keep_secret(&self, secret: impl Into<String>) {
        self.home.keep_secret(secret);
    }

    /// No field of any entry in the whole journal contains a secret. Dropping the machine asserts this too.
    #[track_caller]
    pub fn assert_no_secret_in_journal(&self) {
        self.run(&["journalctl", "--sync"]).exits(0);
        let all = ["journalctl", "--quiet", "--no-pager", "--output=verbose", "--all"];
        // A session looks for secrets in all of its output.
        self.command("root", &all).unrecorded().run().exits(0);
    }
}

impl User {
    fn manager_socket(&self) -> String {
        format!("/run/user/{}/systemd/private", self.uid)
    }

    /// The variables of a login.
    fn environment(&self) -> Vec<String> {
        let Self { name, uid, home, .. } = self;
        let mut environment = vec![
            format!("HOME={home}"),
            format!("USER={name}"),
            format!("LOGNAME={name}"),
            "SHELL=/bin/bash".to_owned(),
        ];
        environment.extend([format!("PATH={PATH}"), "LANG=C.UTF-8".to_owned()]);
        if *uid != 0 {
            environment.push(format!("XDG_RUNTIME_DIR=/run/user/{uid}"));
            environment.push(format!("DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"));
        }
        environment
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if !self.container.is_running() {
            // Somebody has turned off the machine.
        } else if !std::thread::panicking() {
            self.assert_no_secret_in_journal();
        } else {
            // In its own thread, since a second panic in this one would end all tests.
            let last = ["journalctl", "--no-pager", "--lines=60", "--output=short-monotonic"];
            let said = std::thread::scope(|scope| scope.spawn(|| self.command("root", &last).run().stdout).join());
            eprintln!("---- the journal of {}\n{}----", self.release.name(), said.unwrap_or_default());
        }
    }
}
