//! A home with everything that the program writes for clients, and checks of what happened to it.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::support::{Home, Outcome, Session, Workspace, assert_no_secret, dbx_rotator};

pub(crate) const HOST: &str = "db.example";

pub(crate) const PASSWORDS: &str = ".pgpass";
pub(crate) const SERVICES: &str = ".pg_service.conf";
pub(crate) const TOKEN: &str = "token";
pub(crate) const ENV: &str = "env";
pub(crate) const CONFIG: &str = ".config/dbx-rotator/config.toml";
pub(crate) const SECRET: &str = ".config/dbx-rotator/secret";
pub(crate) const RECORD: &str = ".local/state/dbx-rotator/record.json";
pub(crate) const LOCK: &str = ".local/state/dbx-rotator/lock";

/// Somebody else's lines: a comment, an empty line, a password with a colon, bytes that are not UTF-8.
pub(crate) const FOREIGN_PASSWORDS: &[u8] =
    b"# mine\nother.example:5432:*:ada:pass\\:word\n\nlatin.example:5432:*:ada:gr\xfc\xdfe\n*:*:*:nobody:last\n";
pub(crate) const FOREIGN_SERVICES: &[u8] = b"# mine\n[other]\nhost=other.example\nport=1\n";

/// The exit codes of commands, as docs/commands.md lists them.
const DOCUMENTED: [i32; 8] = [0, 64, 69, 70, 73, 75, 77, 78];

/// A home, and the workspace whose client it is configured for.
pub(crate) struct Stage {
    pub(crate) workspace: Workspace,
    pub(crate) home: Home,
}

/// Every file of a home, by its path in it.
#[derive(Clone, PartialEq)]
pub(crate) struct Files(pub(super) BTreeMap<PathBuf, (u32, Vec<u8>)>);

impl Stage {
    /// A home before the first rotation.
    pub(crate) fn new() -> Self {
        Self::with(Workspace::start())
    }

    pub(crate) fn with(workspace: Workspace) -> Self {
        let stage = Stage { workspace, home: Home::new() };
        stage.home.write(PASSWORDS, FOREIGN_PASSWORDS, 0o600);
        stage.home.write(SERVICES, FOREIGN_SERVICES, 0o640);
        stage.home.write(SECRET, stage.workspace.client_secret(), 0o600);
        stage.configure("require");
        stage
    }

    /// Another sslmode changes the service's section.
    pub(crate) fn configure(&self, sslmode: &str) {
        self.home.write(CONFIG, self.config(sslmode), 0o600);
    }

    pub(crate) fn config(&self, sslmode: &str) -> String {
        format!(
            "[[workspace]]\nhost = '{}'\nclient_id = '{}'\nclient_secret_file = '~/{SECRET}'\n\
             [[connection]]\nname = 'orders'\nhost = '{HOST}'\nsslmode = '{sslmode}'\nservice_file = true\n\
             token_file = '~/{TOKEN}'\nenv_file = '~/{ENV}'\n",
            self.workspace.url(),
            self.workspace.client_id(),
        )
    }

    pub(crate) fn rotator(&self, arguments: &[&str]) -> Session<'_> {
        self.by(&[], arguments)
    }

    /// The program, started by another program: `prlimit`, `strace`, a shell.
    pub(crate) fn by(&self, starter: &[&str], arguments: &[&str]) -> Session<'_> {
        let session = match starter.split_first() {
            None => dbx_rotator!(self.home),
            Some((starter, words)) => self.home.command(starter).args(words).arg(env!("CARGO_BIN_EXE_dbx-rotator")),
        };
        // Not watched by the home, since looking for every token ever issued would take longer than thousands of
        // commands.
        session.args(arguments).trusting(&self.workspace)
    }

    /// One try to rotate everything, due or not.
    pub(crate) fn rotate(&self) -> Session<'_> {
        self.rotator(&["rotate", "--retry-for", "0s"])
    }

    /// The start of our line.
    pub(crate) fn entry(&self) -> String {
        format!("{HOST}:5432:databricks_postgres:{}:", self.workspace.client_id())
    }

    /// The password that clients find, if there is one.
    pub(crate) fn password(&self) -> Option<String> {
        let text = fs::read(self.home.path(PASSWORDS)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().find_map(|line| Some(line.strip_prefix(&self.entry())?.to_owned()))
    }

    /// Whether the workspace issued this token.
    pub(crate) fn issued(&self, token: &[u8]) -> bool {
        self.workspace.secrets().iter().any(|secret| secret.as_bytes() == token)
    }

    /// What is wrong with how a disturbed command ended.
    pub(crate) fn faults_of(&self, outcome: &Outcome) -> Vec<String> {
        let mut faults = Vec::new();
        if outcome.signal.is_none() && !outcome.code.is_some_and(|code| DOCUMENTED.contains(&code)) {
            faults.push(format!(
                "it ended with {:?}, which is not documented: {}",
                outcome.code,
                outcome.stderr.trim()
            ));
        }
        if ["panicked at", "RUST_BACKTRACE"].iter().any(|sign| outcome.stderr.contains(sign)) {
            faults.push(format!("it panicked: {}", outcome.stderr.trim()));
        }
        let newest = self.workspace.secrets().pop().unwrap_or_default();
        assert_no_secret("standard error", &outcome.stderr, &[self.workspace.client_secret(), newest.as_str()]);
        faults
    }

    /// What is wrong with the files: each must be the old or the new one; `new` has the new service file.
    pub(crate) fn faults_in_files(&self, old: &Files, new: &Files) -> Vec<String> {
        let now = Files::of(&self.home);
        let mut faults = Vec::new();
        let mut judge = |file: &str, is_new: &dyn Fn(&[u8]) -> bool| {
            let (was, is) = (old.bytes(file), now.bytes(file));
            if is != was && !is.is_some_and(is_new) {
                let text = is.map(String::from_utf8_lossy);
                faults.push(format!("{file} is neither the old nor the new one: {text:?}"));
            }
        };
        judge(PASSWORDS, &|bytes| {
            let (ours, others) = self.split(bytes);
            others == FOREIGN_PASSWORDS && ours.len() == 1 && ours.iter().all(|token| self.issued(token))
        });
        judge(SERVICES, &|bytes| Some(bytes) == new.bytes(SERVICES));
        judge(TOKEN, &|bytes| self.issued(bytes.trim_ascii_end()));
        judge(ENV, &|bytes| {
            bytes.strip_prefix(b"PGPASSWORD=").is_some_and(|token| self.issued(token.trim_ascii_end()))
        });
        judge(RECORD, &|bytes| serde_json::from_slice::<serde_json::Value>(bytes).is_ok());
        for file in [CONFIG, SECRET] {
            judge(file, &|_| false);
        }
        faults
    }

    /// The passwords of our lines, and all other bytes of the file.
    pub(crate) fn split<'a>(&self, bytes: &'a [u8]) -> (Vec<&'a [u8]>, Vec<u8>) {
        let entry = self.entry();
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            match line.strip_prefix(entry.as_bytes()) {
                Some(password) => ours.push(password.trim_ascii_end()),
                None => others.extend_from_slice(line),
            }
        }
        (ours, others)
    }

    /// What is wrong after one more undisturbed rotation: it must succeed, and leave exactly these files.
    pub(crate) fn faults_after_the_next(&self, expected: &Files) -> Vec<String> {
        let (before, outcome) = (self.password(), self.rotate().run());
        let mut faults = self.faults_of(&outcome);
        if outcome.code != Some(0) {
            faults.push(format!("the next rotation ended with {:?}: {}", outcome.code, outcome.stderr.trim()));
        }
        match self.password() {
            Some(password) if Some(&password) != before.as_ref() && self.issued(password.as_bytes()) => {}
            now => faults.push(format!("the next rotation published nothing new: {:?}", now.is_some())),
        }
        faults.extend(self.faults_in_names(expected));
        faults
    }

    /// Files that should not be there, and missing ones.
    pub(crate) fn faults_in_names(&self, expected: &Files) -> Vec<String> {
        let now = Files::of(&self.home);
        let left = now.0.keys().filter(|file| !expected.0.contains_key(*file));
        let gone = expected.0.keys().filter(|file| !now.0.contains_key(*file));
        let left = left.map(|file| format!("{} was left behind", file.display()));
        left.chain(gone.map(|file| format!("{} is gone", file.display()))).collect()
    }
}

impl Files {
    pub(crate) fn of(home: &Home) -> Self {
        let read = |file: PathBuf| {
            let path = home.path(&file);
            let mode = fs::symlink_metadata(&path).ok()?.permissions().mode() & 0o7777;
            Some((file, (mode, fs::read(&path).ok()?)))
        };
        Files(home.files().into_iter().filter_map(read).collect())
    }

    /// Restores the home, except for empty directories.
    pub(crate) fn restore(&self, home: &Home) {
        for file in home.files().into_iter().filter(|file| !self.0.contains_key(file)) {
            fs::remove_file(home.path(file)).expect("remove a file");
        }
        for (file, (mode, bytes)) in &self.0 {
            let path = home.path(file);
            fs::create_dir_all(path.parent().expect("a directory")).expect("make its directory");
            if fs::read(&path).ok().as_ref() != Some(bytes) {
                // A new file, as the program itself would make: an unchanged inode could be a hint.
                let _ = fs::remove_file(&path);
                fs::write(&path, bytes).expect("write a file");
            }
            fs::set_permissions(&path, Permissions::from_mode(*mode)).expect("set its mode");
        }
    }

    pub(crate) fn bytes(&self, file: &str) -> Option<&[u8]> {
        self.0.get(&PathBuf::from(file)).map(|(_, bytes)| bytes.as_slice())
    }
}
