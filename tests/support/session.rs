//! A scratch home and what happens in it: commands in a clean environment, and their outcomes.
//!
//! Invariants: a command sees nothing of the machine's environment; it never outlives its test; and its output never
//! contains a secret that its home knows, which is checked whenever a command ends.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

mod running;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::cli::Cli;
use super::names;
use super::outcome::Outcome;
use super::workspace::{Instance, Workspace, scratch_directory};

pub use running::Running;

/// A command that runs longer has hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// A home directory for one test, removed after it.
pub struct Home {
    directory: tempfile::TempDir,
    secrets: Mutex<Vec<Secret>>,
    history: Arc<Mutex<String>>,
}

enum Secret {
    Known(String),
    /// A workspace's, read when needed, since each token adds one.
    Of(Box<dyn Fn() -> Vec<String> + Send>),
}

impl Home {
    pub fn new() -> Self {
        let directory = scratch_directory(0o700);
        let home = Self { directory, secrets: Mutex::default(), history: Arc::default() };
        for (inside, mode) in [("bin", 0o755), ("tmp", 0o700), (".run", 0o700)] {
            fs::create_dir(home.path(inside)).expect("make a directory");
            home.set_mode(inside, mode);
        }
        home
    }

    /// A path inside the home; an absolute path stays as it is.
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(inside)
    }

    pub fn write(&self, inside: impl AsRef<Path>, text: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(&inside);
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("make its directory");
        if mode & 0o111 == 0 {
            fs::write(&path, text).expect("write the file");
        } else {
            write_program(&path, text.as_ref());
        }
        self.set_mode(inside, mode);
        path
    }

    pub fn read(&self, inside: impl AsRef<Path>) -> String {
        let path = self.path(inside);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The text of the password file; empty if there is none.
    pub fn pgpass(&self) -> String {
        fs::read_to_string(self.path(".pgpass")).unwrap_or_default()
    }

    /// The password in the password file's only entry.
    pub fn password(&self) -> String {
        self.pgpass().trim_end().rsplit(':').next().unwrap_or_default().to_owned()
    }

    pub fn mode(&self, inside: impl AsRef<Path>) -> u32 {
        fs::metadata(self.path(inside)).expect("the file").permissions().mode() & 0o7777
    }

    fn set_mode(&self, inside: impl AsRef<Path>, mode: u32) {
        fs::set_permissions(self.path(inside), Permissions::from_mode(mode)).expect("set the mode");
    }

    /// Every file below the home, with relative paths, to see what was left behind.
    pub fn files(&self) -> Vec<PathBuf> {
        fn below(directory: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(directory).expect("read a directory").flatten() {
                if entry.file_type().expect("a file type").is_dir() {
                    below(&entry.path(), found);
                } else {
                    found.push(entry.path());
                }
            }
        }
        let mut found = Vec::new();
        below(self.directory.path(), &mut found);
        found.sort();
        found.iter().map(|path| path.strip_prefix(self.directory.path()).expect("below").to_owned()).collect()
    }

    /// The stand-in CLI on this home's PATH, signed in as the workspace's user.
    pub fn install_cli(&self, workspace: &Workspace) -> Cli {
        Cli::install(&self.path("bin"), self.directory.path(), workspace, workspace.user())
    }

    /// This secret must never be printed.
    pub fn keep_secret(&self, secret: impl Into<String>) {
        self.secrets().push(Secret::Known(secret.into()));
    }

    /// This workspace's secrets must never be printed.
    pub fn watch(&self, workspace: &Workspace) {
        let secrets = workspace.secret_source();
        self.secrets().push(Secret::Of(Box::new(secrets)));
    }

    fn secrets(&self) -> MutexGuard<'_, Vec<Secret>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_secrets(&self) -> Vec<String> {
        self.secrets()
            .iter()
            .flat_map(|secret| match secret {
                Secret::Known(secret) => vec![secret.clone()],
                Secret::Of(source) => source(),
            })
            .collect()
    }

    /// A program in this home, not yet started.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Session<'_> {
        let home = self.directory.path();
        let mut environment = BTreeMap::new();
        for (name, value) in [
            ("HOME", home.to_owned()),
            ("XDG_CONFIG_HOME", home.join(".config")),
            ("XDG_STATE_HOME", home.join(".local/state")),
            ("XDG_DATA_HOME", home.join(".local/share")),
            ("XDG_CACHE_HOME", home.join(".cache")),
            ("XDG_RUNTIME_DIR", home.join(".run")),
            ("TMPDIR", home.join("tmp")),
        ] {
            environment.insert(OsString::from(name), value.into_os_string());
        }
        let path = format!("{}:/usr/bin:/bin", home.join("bin").display());
        for (name, value) in [("PATH", path.as_str()), ("LANG", "C.UTF-8"), ("TZ", zone())] {
            environment.insert(OsString::from(name), OsString::from(value));
        }
        Session {
            home: self,
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment,
            stdin: None,
            has_keyboard: false,
            patience: PATIENCE,
            may_print_secrets: false,
            shown_as: None,
            recorded: true,
        }
    }
}

/// A command about to be run.
#[derive(Clone)]
pub struct Session<'a> {
    home: &'a Home,
    program: OsString,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    stdin: Option<String>,
    has_keyboard: bool,
    patience: Duration,
    may_print_secrets: bool,
    shown_as: Option<String>,
    recorded: bool,
}

/// UTC, but in its evening a zone where it is afternoon: what expires within the next hours is then of today, and is shown without its
/// day.
fn zone() -> &'static str {
    let evening = 21 * 3_600;
    if jiff::Timestamp::now().as_second().rem_euclid(24 * 3_600) < evening { "UTC" } else { "<-08>8" }
}

impl<'a> Session<'a> {
    pub fn arg(self, argument: impl AsRef<OsStr>) -> Self {
        self.args([argument])
    }

    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    pub fn without_env(mut self, name: impl AsRef<OsStr>) -> Self {
        self.environment.remove(name.as_ref());
        self
    }

    /// With the workspace and a service principal in the environment, the authority trusted and the secrets watched.
    pub fn signed_in_to(self, workspace: &Workspace) -> Self {
        self.home.watch(workspace);
        self.trusting(workspace)
            .env("DATABRICKS_HOST", workspace.url())
            .env("DATABRICKS_CLIENT_ID", workspace.client_id())
            .env("DATABRICKS_CLIENT_SECRET", workspace.client_secret())
    }

    /// The same, with a configuration that has the instance `orders` of the workspace, and these additional settings of it.
    pub fn for_instance(self, workspace: &Workspace, more: &str) -> Self {
        if workspace.requests().is_empty() {
            workspace.add_instance(Instance::named("orders"));
        }
        let text = format!("[[connection]]\ninstance = 'orders'\n{more}\n");
        self.home.write(".config/dbx-rotator/config.toml", text, 0o600);
        self.signed_in_to(workspace)
    }

    pub fn trusting(self, workspace: &Workspace) -> Self {
        self.env("SSL_CERT_FILE", workspace.ca_file())
    }

    /// This name has this address for every command of this home that resolves names like this; can be repeated. A test
    /// must first ask [`names::wrapper`], and skip if there is none.
    #[track_caller]
    pub fn resolving(self, name: &str, address: impl Display) -> Self {
        let wrapper = names::wrapper().unwrap_or_else(|reason| panic!("{reason}"));
        let hosts = self.home.path(".hosts");
        names::put(&hosts, name, address);
        self.env("LD_PRELOAD", wrapper).env("NSS_WRAPPER_HOSTS", hosts)
    }

    /// What to type; without it standard input is /dev/null.
    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin = Some(text.to_owned());
        self
    }

    /// Standard input stays open, for [`Running::types`].
    pub fn with_keyboard(mut self) -> Self {
        self.has_keyboard = true;
        self
    }

    /// Such a terminal around this command line of a shell, this wide and high.
    pub fn at_terminal(mut self, (columns, rows): (u16, u16), line: &str) -> Self {
        let line = format!("stty cols {columns} rows {rows}; {line}");
        // Whoever runs the tests in the background has Ctrl-C ignored, and so would these.
        let script = std::mem::replace(&mut self.program, "env".into());
        let script = script.to_string_lossy().into_owned();
        self.args(["--default-signal=INT,QUIT", &script])
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env("TERM", "xterm")
            .with_keyboard()
    }

    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// Standard output may contain a credential, as that of `dbx-rotator token` does. Standard error never may.
    pub fn may_print_secrets(mut self) -> Self {
        self.may_print_secrets = true;
        self
    }

    /// Shown to people instead of a command line that is mostly about how to get into the machine.
    pub fn shown_as(mut self, line: impl Into<String>) -> Self {
        self.shown_as = Some(line.into());
        self
    }

    /// Keeps this command out of the home's history, since nobody would read so much.
    pub(super) fn unrecorded(mut self) -> Self {
        self.recorded = false;
        self
    }

    fn line(&self) -> String {
        if let Some(line) = &self.shown_as {
            return line.clone();
        }
        let mut line = Path::new(&self.program).file_name().unwrap_or_default().to_owned();
        for argument in &self.arguments {
            line.push(" ");
            line.push(argument);
        }
        line.to_string_lossy().into_owned()
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Outcome {
        self.spawn().ends()
    }

    /// Runs it in the background.
    #[track_caller]
    pub fn spawn(self) -> Running<'a> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(self.home.directory.path())
            .stdin(if self.stdin.is_some() || self.has_keyboard { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        if let Some(text) = self.stdin.clone()
            && let Some(mut stdin) = child.stdin.take()
        {
            // In a thread, so that the two sides do not wait for each other; a command that stops reading closes the
            // pipe.
            thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
        }
        Running::watch(self, child, began)
    }
}

/// By another process: while a file is open for writing anywhere, as in a child of another test that is about to begin, it cannot be run.
fn write_program(path: &Path, text: &[u8]) {
    let mut tee = Command::new("tee").arg(path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("tee");
    tee.stdin.take().expect("its input").write_all(text).expect("write the program");
    assert!(tee.wait().expect("its end").success(), "{} cannot be written", path.display());
}
