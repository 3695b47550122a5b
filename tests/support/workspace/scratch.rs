//! Temp directories with their owner in the name, so that those of killed test runs can be recognised and removed.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use tempfile::TempDir;

/// All our temp directories are named `dbx-rotator-test-PID-...` after the process that owns them.
const PREFIX: &str = "dbx-rotator-test-";

/// A temp directory of this process, removed when dropped. First removes what killed runs left behind.
pub fn scratch_directory(mode: u32) -> TempDir {
    remove_leftovers();
    tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .permissions(Permissions::from_mode(mode))
        .tempdir()
        .expect("a temp directory")
}

fn remove_leftovers() {
    for scratch in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = scratch.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok());
        // If we may not even ask about a process, it is alive.
        if owner.and_then(Pid::from_raw).is_some_and(|owner| test_kill_process(owner) == Err(Errno::SRCH)) {
            let _ = std::fs::remove_dir_all(scratch.path());
        }
    }
}
