//! Both homes: bob's, where a rotation finds all that it needs, or a trap; and root's, which must stay as it is.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::workspace::scratch_directory;
use crate::support::{Home, Outcome, Session, Workspace, skip};

/// A user with a home who need not be in any list of users.
pub(super) const BOB: u32 = 4242;

/// The contents of root's files.
const MARK: &str = "this-is-roots-and-nobody-elses";

pub(super) const CONFIG: &str = ".config/dbx-rotator/config.toml";
pub(super) const SECRET: &str = ".config/dbx-rotator/secret";

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

/// Without a second try, for which a test would wait.
pub(super) const ROTATE: &[&str] = &["rotate", "--retry-for", "0s"];

pub(super) const COMMANDS: [&[&str]; 6] =
    [ROTATE, &["status"], &["check"], &["config", "show"], &["config", "check"], &["token"]];

/// Two homes in one directory, bob's and root's, and a workspace.
pub(super) struct Homes {
    base: tempfile::TempDir,
    pub(super) workspace: Workspace,
    /// Where commands are started from.
    pub(super) desk: Home,
}

/// How one of bob's names leads to something of root's.
#[derive(Clone, Copy, Debug)]
pub(super) enum Link {
    Absolute,
    Relative,
    Hard,
}

/// Files by path: mode, owner, group, time of the last change (seconds and nanoseconds) and contents.
pub(super) type Seen = BTreeMap<PathBuf, (u32, u32, u32, i64, i64, Vec<u8>)>;

impl Homes {
    /// Prepares bob's home for a first rotation.
    pub(super) fn new(test: &str) -> Option<Self> {
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

    pub(super) fn config(&self, more: &str) -> String {
        format!(
            "password_file = '~/passwords/.pgpass'\nlog_file = '~/logs/log'\n[[workspace]]\nhost = '{}'\nclient_id = '{}'\n\
             client_secret_file = '~/{SECRET}'\nca_file = '~/ca.pem'\n[[connection]]\nname = 'orders'\nhost = 'db.example'\n\
             service_file = true\ntoken_file = '~/out/token'\nenv_file = '~/envs/env'\n{more}\n[[connection.file]]\n\
             template = '~/templates/app'\npath = '~/made/app'\n",
            self.workspace.url(),
            self.workspace.client_id(),
        )
    }

    pub(super) fn of_bob(&self, inside: &str) -> PathBuf {
        self.base.path().join("bob").join(inside)
    }

    pub(super) fn of_root(&self, inside: &str) -> PathBuf {
        self.base.path().join("root").join(inside)
    }

    /// Puts a file of bob's into a directory of bob's.
    pub(super) fn put(&self, inside: &str, bytes: impl AsRef<[u8]>) {
        self.make_parents(inside);
        let path = self.of_bob(inside);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(BOB), Some(BOB)).unwrap();
    }

    pub(super) fn make_parents(&self, inside: &str) {
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
    pub(super) fn link(&self, inside: &str, to: &Path, link: Link) {
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
            lchown(&path, Some(BOB), Some(BOB)).unwrap();
        }
    }

    /// A command that root types, with this home.
    pub(super) fn root(&self, home: &str, arguments: &[&str]) -> Session<'_> {
        let by_a_shell_with_a_file = ["-c", "exec 9</dev/null; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_dbx-rotator")];
        let session = self.desk.command("/bin/sh").args(by_a_shell_with_a_file).args(arguments);
        let session = self.with_home(session, home).env("ROOTS_OWN", "kept");
        session.may_print_secrets().patience(Duration::from_secs(20))
    }

    /// With this home, and with no variable that names other directories.
    pub(super) fn with_home<'a>(&self, session: Session<'a>, home: &str) -> Session<'a> {
        ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"]
            .iter()
            .fold(session, |session, name| session.without_env(name))
            .env("HOME", self.base.path().join(home))
    }

    /// A command that root types in root's own home, for a password file in bob's.
    pub(super) fn own_settings(&self, password_file: &str) -> Session<'_> {
        let config = self.of_root("settings.toml");
        fs::write(&config, "").unwrap();
        self.root("root", ROTATE)
            .args(["--pg-host", "db.example", "--config"])
            .arg(config)
            .arg("--pgpass-file")
            .arg(self.of_bob(password_file))
            .signed_in_to(&self.workspace)
    }

    /// Everything in a home; links are not followed.
    pub(super) fn seen(&self, home: &str) -> Seen {
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
    pub(super) fn faults(&self, was: &Seen, outcome: &Outcome) -> Vec<String> {
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
    pub(super) fn faults_of_roots(&self, was: &Seen, outcome: &Outcome) -> Vec<String> {
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
    pub(super) fn not_of_bob(&self) -> Vec<String> {
        let foreign = self.seen("bob").into_iter().filter(|(_, (_, uid, gid, ..))| (*uid, *gid) != (BOB, BOB));
        foreign.map(|(path, (_, uid, gid, ..))| format!("{} belongs to {uid}:{gid}", path.display())).collect()
    }
}
