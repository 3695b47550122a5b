//! Several processes of ours at one file, and one that was killed.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dbx_rotator::pgpass::{Disk, FsHooks, PasswordFile};

use super::moments::{At, Moment, append, displaced_beside, save_with};
use super::{Home, OURS, entry, token};

#[test]
fn two_that_know_nothing_of_each_other_both_publish() {
    let home = Home::with("older:1:d:u:p\n");
    std::thread::scope(|scope| {
        for user in ["alice", "bob"] {
            let file = home.file();
            scope.spawn(move || {
                for number in 0..100 {
                    file.publish(&entry(user, &format!("{user}-{number}"))).unwrap();
                }
            });
        }
    });
    let entries = ["alice", "bob"].map(|user| format!("db.example.com:5432:*:{user}:{user}-99"));
    assert_eq!(home.sorted_lines(), [&entries[0], &entries[1], "older:1:d:u:p"]);
    home.holds_only(&[".pgpass"]);
}

/// An editor renames its file over the password file at the last moment. While the editor's file gets its place back, another
/// process of ours publishes and clears the directory up.
struct Crowd {
    path: PathBuf,
    other_comes: When,
    exchanged: AtomicUsize,
}

/// When that other process comes, seen from the moment when the editor's file gets its place back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Before,
    /// Somebody has appended to our file, which has the place until then.
    BeforeAndWritten,
    After,
    /// Somebody had appended to our file while that had the place.
    AfterAndWritten,
}

impl Crowd {
    fn other_publishes(&self) {
        PasswordFile::new(&self.path).publish(&entry("bob", "B1")).unwrap();
    }
}

impl FsHooks for Crowd {
    fn looked(&self) {
        if self.exchanged.load(Ordering::SeqCst) == 0 {
            save_with(&self.path, "saved:1:d:u:p\n");
        }
    }

    fn exchange(&self, new: &Path, old: &Path) -> io::Result<()> {
        let is_giving_back = self.exchanged.fetch_add(1, Ordering::SeqCst) == 1;
        if is_giving_back && matches!(self.other_comes, When::BeforeAndWritten | When::AfterAndWritten) {
            append(&self.path, "appended:1:d:u:p\n");
        }
        if is_giving_back && matches!(self.other_comes, When::Before | When::BeforeAndWritten) {
            self.other_publishes();
        }
        let exchanged = Disk.exchange(new, old);
        if is_giving_back && matches!(self.other_comes, When::After | When::AfterAndWritten) {
            self.other_publishes();
        }
        exchanged
    }
}

#[test]
fn what_is_given_back_while_another_process_clears_up_is_kept() {
    for other_comes in [When::Before, When::BeforeAndWritten, When::After, When::AfterAndWritten] {
        let home = Home::with_old("older:1:d:u:p\n");
        let crowd = Crowd { path: home.path(), other_comes, exchanged: AtomicUsize::new(0) };
        home.with_fs_hooks(crowd).publish(&token("new")).unwrap_or_else(|error| panic!("{other_comes:?}: {error}"));
        let mut wanted =
            vec!["db.example.com:5432:*:alice:new", "db.example.com:5432:*:bob:B1", "older:1:d:u:p", "saved:1:d:u:p"];
        if matches!(other_comes, When::BeforeAndWritten | When::AfterAndWritten) {
            wanted.insert(0, "appended:1:d:u:p");
        }
        assert_eq!(home.sorted_lines(), wanted, "{other_comes:?}");
        home.holds_only(&[".pgpass"]);
    }
}

#[test]
fn what_was_written_when_the_process_was_killed_is_taken_over_by_the_next_and_nothing_else_is() {
    let inner = "pgpass_store::processes::inside_what_was_written_when_the_process_was_killed";
    for late in ["late:1:d:u:p\n", ""] {
        let home = Home::with_old("older:1:d:u:p\n");
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", inner, "--ignored"])
            .env("DBX_ROTATOR_TEST_FILE", home.path())
            .env("DBX_ROTATOR_TEST_LINE", late)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!status.success(), "it was to be killed");
        assert_eq!(home.text(), format!("{OURS}new\nolder:1:d:u:p\n"), "the new one had its place already");
        assert!(displaced_beside(&home.path()).exists());
        // What the user does meanwhile is kept.
        home.write(&home.text().replace("older:1:d:u:p\n", "newer:1:d:u:p\n"), 0o600);
        home.file().publish(&token("newest")).unwrap();
        if late.is_empty() {
            assert_eq!(home.text(), format!("{OURS}newest\nnewer:1:d:u:p\n"));
        } else {
            // It is no longer known who removed what, so no line is lost.
            let text = home.text();
            assert!(text.starts_with(&format!("{OURS}newest\n")) && text.lines().count() == 4, "{text}");
            assert!(text.contains(late) && text.contains("newer:1:d:u:p\n"), "{text}");
        }
        home.holds_only(&[".pgpass"]);
    }
}

#[test]
#[ignore = "dies, started by what_was_written_when_the_process_was_killed_is_taken_over_by_the_next_and_nothing_else_is"]
fn inside_what_was_written_when_the_process_was_killed() {
    let path = PathBuf::from(std::env::var_os("DBX_ROTATOR_TEST_FILE").unwrap());
    let beside = path.clone();
    let die = move || {
        append(&displaced_beside(&beside), &std::env::var("DBX_ROTATOR_TEST_LINE").unwrap());
        std::process::abort();
    };
    PasswordFile::with_fs_hooks(path, Arc::new(At::once(Moment::Displaced, die))).publish(&token("new")).unwrap();
}
