//! The schemas of the Kubernetes API, kept by a helper in Python.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::cache;

/// The version whose schemas the stand-in takes: old enough that newer clusters take the same.
pub const VERSION: &str = "1.30";

/// A Python with the schemas, and with a reader of YAML; or why there is none.
pub fn python() -> Result<PathBuf, String> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(install).clone()
}

fn install() -> Result<PathBuf, String> {
    let cache = cache::directory();
    fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    // Two test programs at once would install into each other.
    let lock = File::create(cache.join("kubernetes.lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let environment = cache.join("kubernetes");
    let python = environment.join("bin/python");
    let works = || works(Command::new(&python).args(["-c", "import kubernetes_validate, yaml"]));
    if works().is_err() {
        self::works(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        self::works(Command::new(&python).args(["-m", "pip", "install", "--quiet", "kubernetes-validate==1.37.0"]))?;
        works()?;
    }
    Ok(python)
}

fn works(command: &mut Command) -> Result<(), String> {
    let outcome = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let last_words = String::from_utf8_lossy(&outcome.stderr).lines().last().unwrap_or_default().to_owned();
    if outcome.status.success() { Ok(()) } else { Err(format!("{command:?}: {last_words}")) }
}

/// The helper that runs.
pub struct Schemas {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Schemas {
    pub fn start() -> Result<Self, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/cluster/schemas.py");
        let mut child = Command::new(python()?)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let (to, from) = (child.stdin.take().expect("its stdin"), child.stdout.take().expect("its stdout"));
        let mut schemas = Schemas { child, to, from: BufReader::new(from) };
        // Before anybody waits for it, it has read what it needs.
        schemas.fault(VERSION, &json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}));
        Ok(schemas)
    }

    /// What is wrong with this object; empty if nothing is.
    pub fn fault(&mut self, version: &str, object: &Value) -> String {
        writeln!(self.to, "{}", json!([version, object])).expect("write to the schemas");
        let mut line = String::new();
        self.from.read_line(&mut line).expect("read from the schemas");
        line.trim().to_owned()
    }
}

impl Drop for Schemas {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
