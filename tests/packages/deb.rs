//! The .deb: accepted by lintian, the same bytes from the same commit, and a whole life on a real Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::workspace::scratch_directory;
use crate::support::{Machine, Release, Running, Workspace, skip};
use crate::{built, printed, with_ending};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/repository");

/// The repository that people install from, signed with a temporary key.
pub(crate) struct Archive {
    pub(crate) directory: tempfile::TempDir,
    keys: tempfile::TempDir,
}

impl Archive {
    pub(crate) fn new() -> Self {
        let archive = Archive { directory: scratch_directory(0o755), keys: scratch_directory(0o700) };
        let parameters =
            "%no-protection\nKey-Type: eddsa\nKey-Curve: ed25519\nName-Email: archive@example.invalid\n%commit\n";
        let file = archive.keys.path().join("parameters");
        fs::write(&file, parameters).unwrap();
        printed(archive.command("gpg").args(["--batch", "--quiet", "--gen-key"]).arg(file));
        archive
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("GNUPGHOME", self.keys.path());
        command
    }

    /// Publishes these packages on the machine, instead of the earlier ones.
    pub(crate) fn publish(&self, packages: &Path, machine: &Machine) {
        let key = "archive@example.invalid";
        printed(self.command(REPOSITORY).arg(packages).arg(self.directory.path()).arg(key));
        let there = machine.path("/srv/archive");
        let _ = fs::remove_dir_all(&there);
        printed(Command::new("cp").arg("-R").arg(self.directory.path()).arg(&there));
        printed(Command::new("chmod").args(["-R", "a+rX"]).arg(&there));
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        // gpg leaves an agent running.
        let _ = self.command("gpgconf").args(["--kill", "all"]).status();
    }
}

#[test]
fn lintian_finds_no_fault_with_the_package() {
    let test = "lintian_finds_no_fault_with_the_package";
    let Some(packages) = built::packages_or_skip(test, None, &["lintian", "runuser"]) else { return };
    // lintian does not want to run as root, and must be able to read the package.
    let scratch = scratch_directory(0o755);
    let package = scratch.path().join("dbx-rotator.deb");
    fs::copy(with_ending(&packages, ".deb"), &package).unwrap();
    printed(Command::new("chmod").arg("a+r").arg(&package));
    let words = ["lintian", "--profile", "debian", "-EI", "--pedantic", "--fail-on", "error,warning"];
    let mut lintian = Command::new("runuser");
    lintian.args(["-u", "nobody", "--"]).args(words).arg(&package).env("HOME", "/nonexistent").env("TMPDIR", "/tmp");
    printed(&mut lintian);
    let overrides = include_str!("../../debian/lintian-overrides");
    let lines: Vec<&str> = overrides.lines().collect();
    for (above, line) in lines.iter().zip(&lines[1..]).filter(|(_, line)| line.starts_with("dbx-rotator:")) {
        assert!(above.starts_with("# "), "{line} has no reason");
    }
}

#[test]
fn every_file_of_the_package_has_the_right_owner_and_mode() {
    let test = "every_file_of_the_package_has_the_right_owner_and_mode";
    let Some(packages) = built::packages_or_skip(test, None, &["dpkg-deb"]) else { return };
    let list = printed(Command::new("dpkg-deb").arg("-c").arg(with_ending(&packages, ".deb")));
    for line in list.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (mode, owner, path) = (words[0], words[1], words[5]);
        let wanted = match mode.as_bytes()[0] {
            b'd' => "drwxr-xr-x",
            b'l' => "lrwxrwxrwx",
            _ if path == "./usr/bin/dbx-rotator" => "-rwxr-xr-x",
            _ => "-rw-r--r--",
        };
        assert_eq!((mode, owner), (wanted, "0/0"), "{line}");
    }
    let has = |path: &str| list.lines().any(|line| line.split_whitespace().nth(5) == Some(path));
    for name in ["rotator", "install", "status", "restart", "uninstall"] {
        assert!(has(&format!("./usr/bin/databricks-oauth-{name}")), "{name}\n{list}");
    }
    for unit in [
        "user/dbx-rotator.timer",
        "user/dbx-rotator-daemon.service",
        "user/dbx-rotator-proxy.socket",
        "user/dbx-rotator-proxy.service",
        "system/dbx-rotator@.timer",
        "system/dbx-rotator-proxy@.socket",
        "system/dbx-rotator-proxy@.service",
    ] {
        assert!(has(&format!("./usr/lib/systemd/{unit}")), "{unit}\n{list}");
    }
}

#[test]
fn the_package_is_the_same_wherever_the_commit_is_built() {
    let test = "the_package_is_the_same_wherever_the_commit_is_built";
    let Some(packages) = built::packages_or_skip(test, None, &["dpkg-deb"]) else { return };
    // Another directory, at another depth, with nothing built yet.
    let scratch = scratch_directory(0o755);
    let copy = scratch.path().join("some/where/else");
    let repository = env!("CARGO_MANIFEST_DIR");
    let files = printed(Command::new("git").args(["-C", repository, "ls-files"]));
    for file in files.lines().filter(|file| Path::new(repository).join(file).exists()) {
        let to = copy.join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(Path::new(repository).join(file), &to).unwrap();
    }
    // Independent of the umask with which the clone was made.
    printed(Command::new("chmod").args(["-R", "go-rwx"]).arg(&copy));
    let epoch = printed(Command::new("git").args(["-C", repository, "log", "-1", "--format=%ct"]));
    let mut build = Command::new(copy.join("dist/build"));
    printed(build.current_dir("/").env_remove("CARGO_TARGET_DIR").env("SOURCE_DATE_EPOCH", epoch.trim()));
    let sums = |directory: PathBuf| fs::read_to_string(directory.join("SHA256SUMS")).unwrap();
    assert_eq!(sums(copy.join("target/dist")), sums(packages));
}

// ---- a life ----

/// A Debian where apt uses only this archive, and a user who has written her settings.
struct Debian {
    machine: Machine,
    workspace: Workspace,
    server: crate::support::Postgres,
    archive: Archive,
}

impl Debian {
    fn new(test: &str, release: Release) -> Option<Self> {
        let or_skip = |reason: String| skip(test, &reason);
        let packages = built::packages_or_skip(test, None, &["apt-ftparchive", "createrepo_c", "gpg"])?;
        let workspace = Workspace::start();
        let server = crate::support::Postgres::start(&workspace, &[workspace.client_id()]).map_err(or_skip).ok()?;
        let machine = Machine::boot(release).map_err(or_skip).ok()?;
        machine.watch(&workspace);
        let debian = Debian { machine, workspace, server, archive: Archive::new() };
        debian.lay_out();
        debian.archive.publish(&packages, &debian.machine);
        Some(debian)
    }

    fn lay_out(&self) {
        let sources = "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*; \
                       for user in carol dave; do useradd --create-home --shell /bin/bash $user; chmod 700 /home/$user; done";
        self.root(&["sh", "-c", sources]);
        let line = "deb [signed-by=/srv/archive/dbx-rotator.asc] file:/srv/archive/apt stable main\n";
        self.machine.write("/etc/apt/sources.list.d/dbx-rotator.list", line, 0o644, None);
        for unit in ["dbx-rotator.service", "dbx-rotator-daemon.service", "dbx-rotator-proxy.service"] {
            let drop_in = format!("/etc/systemd/user/{unit}.d/container.conf");
            self.machine.write(&drop_in, "[Service]\nProtectKernelLogs=no\n", 0o644, None);
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        self.machine.write("/etc/ssl/workspace-ca.pem", read(&self.workspace.ca_file()), 0o644, None);
        self.machine.write("/etc/ssl/server-ca.pem", read(&self.server.ca_file()), 0o644, None);
        for user in ["alice", "bob", "carol"] {
            self.machine.linger(user);
        }
        for user in ["alice", "carol"] {
            self.configure(user, "");
        }
        self.machine.write("/etc/dbx-rotator/dave.toml", self.config(""), 0o644, None);
        self.machine.write("/etc/dbx-rotator/dave.client-secret", self.workspace.client_secret(), 0o600, None);
    }

    fn config(&self, more: &str) -> String {
        let (url, id, port) = (self.workspace.url(), self.workspace.client_id(), self.server.port());
        format!(
            "{more}[[workspace]]\nhost = \"{url}\"\nca_file = \"/etc/ssl/workspace-ca.pem\"\nclient_id = \"{id}\"\n\
             [[connection]]\nname = \"orders\"\nhost = \"127.0.0.1\"\nport = {port}\nsslrootcert = \"/etc/ssl/server-ca.pem\"\n"
        )
    }

    fn configure(&self, user: &str, more: &str) {
        let config =
            self.config(more).replace("[[connection]]", "client_secret_file = \"client-secret\"\n[[connection]]");
        let directory = format!("/home/{user}/.config/dbx-rotator");
        self.machine.write(&format!("{directory}/config.toml"), config, 0o600, Some(user));
        self.machine.write(&format!("{directory}/client-secret"), self.workspace.client_secret(), 0o600, Some(user));
    }

    #[track_caller]
    fn root(&self, line: &[&str]) -> String {
        self.machine.run(line).exits(0).stdout.clone()
    }

    #[track_caller]
    fn apt(&self, words: &[&str]) -> String {
        let line = [&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"], words].concat();
        let done = self.machine.run(&line);
        let said = done.exits(0).stdout.clone() + &done.stderr;
        // dpkg warns about every downgrade, and bookworm's about a directory that another package owns under its name before
        // /usr-merge.
        let known = ["downgrading dbx-rotator", "system-preset' not empty so not removed"];
        let warns = |line: &&str| line.contains("warning") && !known.iter().any(|known| line.contains(known));
        assert_eq!(said.lines().find(warns), None, "{done}");
        said
    }

    #[track_caller]
    fn systemctl(&self, user: &str, words: &[&str]) -> String {
        self.machine.as_user(user, &[&["systemctl", "--user"], words].concat()).exits(0).stdout.trim().to_owned()
    }

    #[track_caller]
    fn property(&self, user: &str, unit: &str, name: &str) -> String {
        self.systemctl(user, &["show", "--value", "-p", name, unit])
    }

    #[track_caller]
    fn log_in(&self, user: &str) {
        let login = ["psql", "-X", "-w", "-A", "-t", "-c", "select current_user", &self.whither()];
        self.machine.as_user(user, &login).exits(0).stdout_has(self.workspace.client_id());
    }

    fn whither(&self) -> String {
        format!(
            "host=127.0.0.1 port={} dbname=databricks_postgres user={} sslmode=verify-ca sslrootcert=/etc/ssl/server-ca.pem",
            self.server.port(),
            self.workspace.client_id()
        )
    }

    /// Lets a user log in repeatedly while `what` runs: no login may fail.
    fn logging_in<T>(&self, user: &str, what: impl FnOnce() -> T) -> T {
        let again = format!(
            "while [ ! -e /tmp/enough ]; do psql -X -w -A -t -c 'select 1' '{}' >/dev/null || {{ echo failed; exit 1; }}; \
             echo in; sleep 0.1; done",
            self.whither()
        );
        let login =
            self.machine.command(user, &["sh", "-c", &again]).patience(std::time::Duration::from_secs(120)).spawn();
        let result = what();
        self.root(&["touch", "/tmp/enough"]);
        let done = login.ends();
        assert!(done.exits(0).stdout.lines().count() > 1, "{done}");
        self.root(&["rm", "/tmp/enough"]);
        result
    }

    /// A property of dave's daemon, which the machine's manager runs.
    #[track_caller]
    fn daves(&self, property: &str) -> String {
        self.root(&["systemctl", "show", "--value", "-p", property, DAVES]).trim().to_owned()
    }

    /// The users' own files, with their contents.
    fn of_users(&self) -> String {
        self.root(&["sh", "-c", "sha256sum /home/*/.pgpass /home/*/.config/dbx-rotator/*"])
    }

    /// The program that a user's daemon runs; an older, replaced one would be marked as deleted.
    fn runs(&self) -> String {
        let pid = self.property("alice", DAEMON, "MainPID");
        self.root(&["readlink", &format!("/proc/{pid}/exe")]).trim().to_owned()
    }

    /// Waits until alice's and dave's daemons have been replaced by new processes, and are up.
    fn await_restart(&self, before: &[String; 2]) {
        let began = std::time::Instant::now();
        let states = || [self.property("alice", DAEMON, "ActiveState"), self.daves("ActiveState")];
        while self.daemons().iter().zip(before).any(|(now, before)| now == before) || states() != ["active", "active"] {
            assert!(
                began.elapsed() < std::time::Duration::from_secs(30),
                "a daemon was not started anew: {:?}",
                states()
            );
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    fn daemons(&self) -> [String; 2] {
        [self.property("alice", DAEMON, "MainPID"), self.daves("MainPID")]
    }

    /// Asserts that none of our units has failed, and that nothing runs for people who asked for nothing.
    #[track_caller]
    fn is_in_order(&self) {
        self.machine.run(&["systemctl", "--failed", "--plain", "--no-legend"]).prints_nothing();
        for user in ["alice", "bob", "carol"] {
            assert_eq!(self.systemctl(user, &["--failed", "--plain", "--no-legend"]), "");
        }
        let units = self
            .systemctl("bob", &["list-units", "--plain", "--no-legend", "--state=active,activating", "dbx-rotator*"]);
        assert_eq!(units, "", "bob asked for nothing");
    }
}

const A_WHILE: std::time::Duration = std::time::Duration::from_secs(60);
const DAEMON: &str = "dbx-rotator-daemon.service";
const TIMER: &str = "dbx-rotator.timer";
const DAVES: &str = "dbx-rotator-daemon@dave.service";

fn the_package_lives_and_goes_without_a_trace_of_harm(test: &str, release: Release) {
    let Some(debian) = Debian::new(test, release) else { return };
    debian.apt(&["update"]);
    debian.apt(&["install", "dbx-rotator"]);
    // Nothing was enabled without asking.
    for user in ["alice", "bob", "carol"] {
        let units = debian.systemctl(user, &["list-units", "--plain", "--no-legend", "--state=active", "dbx-rotator*"]);
        assert_eq!(units, "");
    }
    debian
        .machine
        .run(&["sh", "-c", "ls /etc/systemd/user/*.wants/dbx-rotator* /etc/systemd/system/*.wants/dbx-rotator*"])
        .prints_nothing();

    // Alice wants the daemon, carol the timer; dave's runs in the machine's manager.
    debian.root(&["systemctl", "enable", "--now", DAVES]);
    debian.log_in("dave");
    debian.systemctl("alice", &["enable", "--now", DAEMON]);
    debian.systemctl("carol", &["enable", "--now", TIMER]);
    debian.machine.journal_says(
        "carol",
        "dbx-rotator.service",
        "Token rotation completed",
        std::time::Duration::from_secs(30),
    );
    debian.log_in("alice");
    debian.log_in("carol");
    let explained = debian.machine.as_user("carol", &["journalctl", "--user", "-xu", "dbx-rotator"]);
    explained.exits(0).stdout_has("Subject: The PostgreSQL password of orders was renewed");

    // Alice's and dave's programs have sessions by the proxy.
    debian.systemctl("alice", &["enable", "--now", "dbx-rotator-proxy.socket"]);
    debian.root(&["systemctl", "enable", "--now", "dbx-rotator-proxy@dave.socket"]);
    let sessions = [("alice", "/run/user/1000/dbx-rotator"), ("dave", "/run/dbx-rotator/dave")].map(|(user, place)| {
        let psql = ["psql", "-X", "-w", "-A", "-t", "-h", place, "orders"];
        let session = debian.machine.command(user, &psql).with_keyboard().patience(A_WHILE).spawn();
        session.types("select 'logged' || ' in';\n").prints("logged in", A_WHILE);
        session
    });
    upgrade(&debian);
    for session in &sessions {
        session.types("select 'survived' || ' it';\n").prints("survived it", A_WHILE);
    }
    remove_and_return(&debian, &sessions);
}

fn upgrade(debian: &Debian) {
    let newer = built::packages(Some(built::NEWER)).unwrap();
    debian.archive.publish(&newer, &debian.machine);
    debian.configure("alice", "interval = \"30m\"\n");
    let settings = debian.machine.read("/home/alice/.config/dbx-rotator/config.toml");
    let (daemons, issued) = (debian.daemons(), debian.workspace.tokens_issued());
    debian.apt(&["update"]);
    debian.logging_in("alice", || {
        debian.apt(&["install", "--only-upgrade", "dbx-rotator"]);
        debian.await_restart(&daemons);
    });
    assert!(debian.root(&["dpkg-query", "-W", "dbx-rotator"]).contains(built::NEWER_PACKAGED));
    assert_eq!(debian.runs(), "/usr/bin/dbx-rotator");
    assert_eq!(debian.property("carol", TIMER, "ActiveState"), "active");
    assert_eq!(debian.property("carol", "dbx-rotator.service", "NeedDaemonReload"), "no");
    assert_eq!(debian.machine.read("/home/alice/.config/dbx-rotator/config.toml"), settings);
    // No password expired because of it, or had to be renewed.
    assert_eq!(debian.workspace.tokens_issued(), issued);
    debian.log_in("alice");
    debian.log_in("carol");
    debian.is_in_order();
}

fn remove_and_return(debian: &Debian, sessions: &[Running<'_>]) {
    // The package must leave alone a user's own unit with the same name.
    let own = "[Service]\nExecStart=/bin/sleep infinity\n";
    debian.machine.write(&format!("/home/bob/.config/systemd/user/{DAEMON}"), own, 0o644, Some("bob"));
    debian.systemctl("bob", &["daemon-reload"]);
    debian.systemctl("bob", &["start", DAEMON]);
    let before = debian.of_users();
    debian.logging_in("alice", || debian.apt(&["remove", "dbx-rotator"]));
    assert_eq!(debian.property("bob", DAEMON, "ActiveState"), "active");
    debian.systemctl("bob", &["stop", DAEMON]);
    assert_ne!(debian.daves("ActiveState"), "active");
    for session in sessions {
        session.types("select 1;\n").says("FATAL", A_WHILE);
    }
    debian.machine.run(&["sh", "-c", "ls -d /run/dbx-rotator/*/.s* /run/user/*/dbx-rotator/.s*"]).exits(2);
    for unit in [DAEMON, TIMER] {
        assert_eq!(debian.property("alice", unit, "LoadState"), "not-found");
        assert_eq!(debian.property("carol", unit, "ActiveState"), "inactive");
    }
    debian.is_in_order();
    assert_eq!(debian.of_users(), before);
    assert!(debian.machine.path("/etc/dbx-rotator/dave.toml").exists(), "settings stay until the purge");

    // Installed again, then an older version.
    debian.apt(&["install", "dbx-rotator"]);
    debian.systemctl("alice", &["start", DAEMON]);
    debian.root(&["systemctl", "start", DAVES]);
    let older = built::packages(None).unwrap();
    debian.archive.publish(&older, &debian.machine);
    debian.apt(&["update"]);
    let daemons = debian.daemons();
    let version = format!("dbx-rotator={}-1", env!("CARGO_PKG_VERSION"));
    debian.apt(&["install", "--allow-downgrades", &version]);
    debian.await_restart(&daemons);
    assert_eq!(debian.runs(), "/usr/bin/dbx-rotator");
    debian.is_in_order();

    debian.apt(&["purge", "dbx-rotator"]);
    assert!(!debian.machine.path("/etc/dbx-rotator").exists());
    let left = "find / -xdev -path /proc -prune -o -path /srv -prune -o -path '/home/*' -prune -o -name '*dbx-rotator*' -print | \
                grep -v -e /etc/apt -e /var/cache/apt -e /var/lib/apt -e container.conf -e '\\.d$' -e /var/lib/systemd/timers";
    debian.machine.run(&["sh", "-c", left]).prints_nothing();
    assert_eq!(debian.of_users(), before);
    debian.log_in("alice");
    debian.is_in_order();
}

/// dpkg is killed while the package's own script runs.
fn an_install_of_the_package_that_was_cut_off_ends_well(test: &str, release: Release) {
    let Some(debian) = Debian::new(test, release) else { return };
    debian.apt(&["update"]);
    let hang = "#!/bin/sh\n[ \"$1\" != daemon-reload ] || { touch /run/hangs; exec sleep 600; }\nexec /usr/bin/systemctl \"$@\"\n";
    debian.machine.write("/usr/local/bin/systemctl", hang, 0o755, None);
    let cut_off = "apt-get -q -y -o DPkg::Path=$PATH install dbx-rotator & for i in $(seq 600); do [ ! -e /run/hangs ] || break; sleep 0.05; done; \
                   pkill -KILL -x dpkg; pkill -KILL -x apt-get; pkill -x sleep; wait; rm /usr/local/bin/systemctl; dpkg-query -W -f '${Status}' dbx-rotator";
    let state = debian.machine.run(&["env", "DEBIAN_FRONTEND=noninteractive", "bash", "-c", cut_off]);
    assert!(!state.stdout.contains("install ok installed"), "{state}");
    debian.root(&["dpkg", "--configure", "-a"]);
    assert!(debian.root(&["dpkg-query", "-W", "-f", "${Status}", "dbx-rotator"]).ends_with("install ok installed"));
    debian.systemctl("alice", &["start", DAEMON]);
    debian.log_in("alice");
    debian.is_in_order();
}

/// If the package is configured before systemd exists, as when an image is made, nothing is enabled either.
#[test]
fn the_package_enables_nothing_where_there_is_no_systemd_yet() {
    let test = "the_package_enables_nothing_where_there_is_no_systemd_yet";
    let Some(packages) = built::packages_or_skip(test, None, &["deb-systemd-helper", "dpkg-deb"]) else { return };
    let root = scratch_directory(0o755);
    let package = with_ending(&packages, ".deb");
    printed(Command::new("dpkg-deb").arg("-x").arg(&package).arg(root.path()));
    printed(Command::new("dpkg-deb").arg("-e").arg(&package).arg(root.path().join("control")));
    let mut configure = Command::new(root.path().join("control/postinst"));
    // A PATH with the helper but without systemctl.
    fs::create_dir(root.path().join("bin")).unwrap();
    for program in ["cat", "deb-systemd-helper", "env", "id", "perl", "sh", "timeout"] {
        let found =
            ["/usr/bin", "/bin"].iter().map(|at| Path::new(at).join(program)).find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(found, root.path().join("bin").join(program)).unwrap();
    }
    let clean = configure.args(["configure", ""]).env_clear().env("PATH", root.path().join("bin"));
    printed(
        clean
            .env("DPKG_ROOT", root.path())
            .env("DPKG_MAINTSCRIPT_PACKAGE", "dbx-rotator")
            .env("_skip_systemd_native", "1"),
    );
    let links = printed(Command::new("find").arg(root.path()).args(["-path", "*/etc/*", "-name", "dbx-rotator*"]));
    assert_eq!(links, "");
}

/// A pre-release sorts before its release.
#[test]
fn a_package_of_a_pre_release_is_older_than_that_of_the_release() {
    let test = "a_package_of_a_pre_release_is_older_than_that_of_the_release";
    let Some(packages) = built::packages_or_skip(test, Some(built::NEWER), &["dpkg-deb"]) else { return };
    let version = printed(Command::new("dpkg-deb").arg("-f").arg(with_ending(&packages, ".deb")).arg("Version"));
    printed(Command::new("dpkg").args(["--compare-versions", version.trim(), "lt", "99.0.0-1"]));
    assert!(
        with_ending(&packages, ".rpm").to_string_lossy().contains(&format!("dbx-rotator-{}-1.", built::NEWER_PACKAGED))
    );
}

crate::support::on_each_release!(
    the_package_lives_and_goes_without_a_trace_of_harm,
    an_install_of_the_package_that_was_cut_off_ends_well,
);
