//! The stand-in for the vendor's CLI: installs `databricks` (the script next to this file) and sets its behaviour.
//!
//! It gets its tokens from the stand-in workspace with a refresh token, and returns the same token until little of its
//! life is left, as the real one does; a rotator must cope with that.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::workspace::Workspace;

const SCRIPT: &str = include_str!("databricks");
/// The vendor's: the same token is returned until less than this is left.
const REFRESH_WINDOW: Duration = Duration::from_secs(5 * 60);

/// An installed stand-in.
pub struct Cli {
    program: PathBuf,
    home: PathBuf,
    settings: Mutex<Settings>,
}

/// How a call fails; the texts are those of databricks/cli.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// Nobody has signed in: a person is needed.
    NotConfigured,
    /// Signed in with a CLI before 1.0, whose token store is no longer read: a person is needed.
    OlderVersions,
    /// The refresh token is invalid: a person is needed. (`Workspace::sign_out` is the natural way to cause it.)
    InvalidRefreshToken,
    NoProfile,
    NoProfiles,
    /// Two profiles for one host.
    Ambiguous,
    /// The profile belongs to a service principal.
    M2mProfile,
    /// Two calls used the macOS keychain at the same time: try again.
    #[serde(rename = "exit-45")]
    Exit45,
    Keyring,
    Network,
    /// The failure is JSON on standard output, as since September 2026.
    JsonError,
    /// Does not end on its own within a test's patience.
    Hang,
    /// Exit code 0 with neither a token nor JSON.
    Garbage,
    /// Exit code 0 and the token alone, as versions before JSON output printed it.
    BareToken,
}

#[derive(Serialize)]
struct Settings {
    workspace_url: String,
    ca_file: PathBuf,
    identity: String,
    profile: String,
    refresh_window: f64,
    knows_force_refresh: bool,
    version: &'static str,
    failure: Option<Failure>,
}

/// One call of the stand-in.
#[derive(Clone, Debug, Deserialize)]
pub struct Invocation {
    pub argv: Vec<String>,
    /// The names of the variables, without values.
    pub environment: Vec<String>,
    pub stdin_is_null: bool,
    pub directory: PathBuf,
}

impl Cli {
    /// Puts `databricks` into `directory`, signed in to the workspace as `user` with profile `DEFAULT`; its token
    /// cache is under `home`, which must be `HOME` when it is called.
    pub fn install(directory: &Path, home: &Path, workspace: &Workspace, user: &str) -> Self {
        let cli = Self {
            program: directory.join("databricks"),
            home: home.to_owned(),
            settings: Mutex::new(Settings {
                workspace_url: workspace.url(),
                ca_file: workspace.ca_file(),
                identity: user.to_owned(),
                profile: "DEFAULT".to_owned(),
                refresh_window: REFRESH_WINDOW.as_secs_f64(),
                knows_force_refresh: true,
                version: "1.13.0",
                failure: None,
            }),
        };
        install(&cli.program, SCRIPT);
        cli.set(|_| {});
        cli.sign_in(workspace);
        cli
    }

    /// The absolute path, for `databricks_cli_path`.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// What `databricks auth login` leaves: a token cache with a live refresh token, but no access token yet.
    pub fn sign_in(&self, workspace: &Workspace) {
        let (identity, profile) = {
            let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            (settings.identity.clone(), settings.profile.clone())
        };
        let entry = json!({"access_token": "", "token_type": "Bearer", "expiry": "0001-01-01T00:00:00Z",
            "refresh_token": workspace.sign_in(&identity)});
        let cache = self.token_cache();
        let directory = cache.parent().expect("the cache's directory");
        fs::create_dir_all(directory).expect("make ~/.databricks");
        fs::set_permissions(directory, Permissions::from_mode(0o700)).expect("set the mode");
        replace(&cache, &json!({"version": 1, "tokens": {profile: entry}}).to_string());
        fs::set_permissions(&cache, Permissions::from_mode(0o600)).expect("set the mode");
    }

    pub fn token_cache(&self) -> PathBuf {
        self.home.join(".databricks/token-cache.json")
    }

    /// The cached token is returned until less than this is left.
    pub fn set_refresh_window(&self, window: Duration) {
        self.set(|settings| settings.refresh_window = window.as_secs_f64());
    }

    /// Versions before 0.296 do not know `--force-refresh`.
    pub fn set_knows_force_refresh(&self, knows: bool) {
        self.set(|settings| {
            settings.knows_force_refresh = knows;
            settings.version = if knows { "1.13.0" } else { "0.278.0" };
        });
    }

    pub fn set_profile(&self, name: &str) {
        self.set(|settings| name.clone_into(&mut settings.profile));
    }

    /// From now on calls fail like this; with `None` they work again.
    pub fn set_failure(&self, failure: Option<Failure>) {
        self.set(|settings| settings.failure = failure);
    }

    /// Every call so far, in order.
    pub fn invocations(&self) -> Vec<Invocation> {
        let log = fs::read_to_string(self.program.with_file_name("invocations.jsonl")).unwrap_or_default();
        log.lines().map(|line| serde_json::from_str(line).expect("a line of the stand-in CLI's log")).collect()
    }

    fn set(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut settings);
        let text = serde_json::to_string(&*settings).expect("settings as JSON");
        replace(&self.program.with_file_name("databricks.json"), &text);
    }
}

/// Puts pip's retired `databricks-cli` into `directory`: another program with the name `databricks`.
pub fn legacy_cli(directory: &Path) -> PathBuf {
    let program = directory.join("databricks");
    install(
        &program,
        "#!/usr/bin/python3\n\
         # -*- coding: utf-8 -*-\n\
         import re\n\
         import sys\n\
         from databricks_cli.cli import cli\n\
         if __name__ == '__main__':\n\
         \x20   sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])\n\
         \x20   sys.exit(cli())\n",
    );
    program
}

/// Written by a shell: if this process had it open for writing, a child that another test starts at that moment would
/// inherit that, and running the file would fail with "text file busy".
fn install(program: &Path, text: &str) {
    fs::create_dir_all(program.parent().expect("a directory to install into")).expect("make the directory");
    let mut shell = Command::new("/bin/sh")
        .args(["-c", r#"cat > "$1.new" && chmod 755 "$1.new" && mv "$1.new" "$1""#, "sh"])
        .arg(program)
        .stdin(Stdio::piped())
        .spawn()
        .expect("start a shell");
    shell.stdin.take().expect("its stdin").write_all(text.as_bytes()).expect("write to the shell");
    assert!(shell.wait().expect("wait for the shell").success(), "install {}", program.display());
}

/// A concurrent reader sees the old text or the new one, never half.
fn replace(file: &Path, text: &str) {
    let fresh = file.with_extension("new");
    fs::write(&fresh, text).expect("write beside the file");
    fs::rename(&fresh, file).expect("rename over the file");
}
