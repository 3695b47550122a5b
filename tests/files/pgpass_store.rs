//! The password file on disk: replaced as a whole, kept private, and without losing anybody's edit.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may fail loudly and speak")]

mod attributes;
mod displaced;
mod editors;
mod in_place;
mod links;
mod moments;
mod processes;
mod readers;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::skip;
use dbx_rotator::pgpass::{Current, Entry, FsHooks, Key, PasswordFile, Reading};

/// What our entry begins with.
const OURS: &str = "db.example.com:5432:*:alice:";

fn key(user: &str) -> Key {
    Key::new("db.example.com", 5432, "*", user).unwrap()
}

fn entry(user: &str, password: &str) -> [Entry; 1] {
    [Entry::new(key(user), password.into(), false).unwrap()]
}

/// Our entry with this password.
fn token(password: &str) -> [Entry; 1] {
    entry("alice", password)
}

/// A home directory with or without a password file.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(content: &str) -> Self {
        let home = Self::new();
        home.write(content, 0o600);
        home
    }

    /// With our entry, which has its old password, and this below it.
    fn with_old(below: &str) -> Self {
        Self::with(&format!("{OURS}old\n{below}"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join(".pgpass")
    }

    fn write(&self, content: &str, mode: u32) {
        fs::write(self.path(), content).unwrap();
        fs::set_permissions(self.path(), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn file(&self) -> PasswordFile {
        PasswordFile::new(self.path())
    }

    fn with_fs_hooks(&self, fs_hooks: impl FsHooks + 'static) -> PasswordFile {
        PasswordFile::with_fs_hooks(self.path(), Arc::new(fs_hooks))
    }

    fn text(&self) -> String {
        String::from_utf8(fs::read(self.path()).unwrap()).unwrap()
    }

    fn sorted_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.text().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn mode(&self) -> u32 {
        mode(&self.path())
    }

    /// Asserts that it contains only these files: the password file, and no leftovers.
    #[track_caller]
    fn holds_only(&self, names: &[&str]) {
        let mut found: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, names);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn root_or_skip(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skip(test, "needs root");
    }
    is_root
}

#[test]
fn a_new_file_is_private_and_holds_the_entry() {
    let home = Home::new();
    let published = home.file().publish(&token("T1")).unwrap();
    assert!(published.changed);
    assert_eq!((home.text(), home.mode()), (format!("{OURS}T1\n"), 0o600));
    home.holds_only(&[".pgpass"]);
}

#[test]
fn a_missing_file_reads_as_empty_and_nothing_to_publish_creates_none() {
    let home = Home::new();
    let contents = home.file().read().unwrap();
    assert!(!contents.exists && contents.bytes.is_empty() && !contents.is_ignored_by_libpq());
    assert!(!home.file().publish(&[]).unwrap().changed);
    home.holds_only(&[]);
}

#[test]
fn a_rotation_changes_the_password_and_nothing_else() {
    let home = Home::with("# mine\nother:5432:*:bob:pw\ndb.example.com:5432:*:alice:old\n\n*:*:*:*:wild\n");
    let before = home.text();
    let published = home.file().publish(&token("new")).unwrap();
    assert_eq!(home.text(), before.replace("alice:old", "alice:new"));
    assert_eq!((published.placements[0].line, published.notes), (3, vec![]));
    home.holds_only(&[".pgpass"]);
}

#[test]
fn the_same_password_again_does_not_touch_the_file() {
    let home = Home::with(&format!("{OURS}T1\n"));
    let inode = |home: &Home| fs::metadata(home.path()).unwrap().ino();
    let before = inode(&home);
    assert!(!home.file().publish(&token("T1")).unwrap().changed);
    assert_eq!(inode(&home), before);
    assert!(home.file().publish(&token("T2")).unwrap().changed);
    assert_ne!(inode(&home), before, "a change is a new file under the old name");
}

#[test]
fn a_bare_file_name_is_in_the_current_directory() {
    // Only read, since the current directory of a test is the source tree.
    assert!(!PasswordFile::new("no-such-password-file").read().unwrap().exists);
}

#[test]
fn what_is_on_disk_is_what_was_published() {
    let home = Home::with("*:*:*:*:wild");
    home.file().publish(&token("T")).unwrap();
    let contents = home.file().read().unwrap();
    assert!(matches!(Reading::new(&contents.bytes).current(&key("alice")), Current::Ours { line: 1, .. }));
    assert_eq!(contents.target, home.path());
    assert_eq!(contents.mode, 0o600);
}
