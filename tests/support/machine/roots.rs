//! The root file systems that machines boot, each built when it is first needed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::process::geteuid;

use super::super::cache;

const BUILDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/machine/root");
const NEEDED: [&str; 6] = ["bash", "mmdebstrap", "systemd-nspawn", "nsenter", "unshare", "flock"];

/// The root of a release, or why there is none.
pub(super) fn root(release: &str) -> Result<PathBuf, String> {
    // A failure would repeat, perhaps only after a long wait for the network.
    static KNOWN: Mutex<Option<HashMap<String, Result<PathBuf, String>>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_default().entry(release.to_owned()).or_insert_with(|| build(release)).clone()
}

fn build(release: &str) -> Result<PathBuf, String> {
    if !geteuid().is_root() {
        return Err("only root can boot a machine".to_owned());
    }
    if let Some(missing) = NEEDED.iter().find(|program| !is_installed(program)) {
        return Err(format!("{missing} is not installed"));
    }
    let root = cache::directory().join("roots").join(release);
    let built = Command::new(BUILDER)
        .arg(release)
        .arg(&root)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{BUILDER}: {error}"))?;
    if built.status.success() { Ok(root) } else { Err(String::from_utf8_lossy(&built.stderr).trim().to_owned()) }
}

fn is_installed(program: &str) -> bool {
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().any(|directory| Path::new(directory).join(program).exists())
}
