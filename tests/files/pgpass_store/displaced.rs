//! What somebody writes to the old file after the new one got its place is taken over.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use dbx_rotator::pgpass::FsHooks;

use super::moments::{At, Moment, append, displaced_beside, newest_beside, save};
use super::{Home, OURS, token};

#[test]
fn what_is_written_to_the_file_after_it_was_displaced_is_taken_over() {
    let home = Home::with_old("older:1:d:u:p\n");
    let path = home.path();
    let write = move || {
        append(&displaced_beside(&path), "late:1:d:u:p\n");
        // And somebody else opens the new one.
        append(&path, "later:1:d:u:p\n");
    };
    let published = home.with_fs_hooks(At::once(Moment::Displaced, write)).publish(&token("new")).unwrap();
    assert!(published.changed);
    assert_eq!(home.text(), format!("{OURS}new\nolder:1:d:u:p\nlate:1:d:u:p\nlater:1:d:u:p\n"));
    home.holds_only(&[".pgpass"]);
}

#[test]
fn what_is_written_to_one_displaced_file_after_the_other_is_all_taken_over() {
    let home = Home::with_old("older:1:d:u:p\n");
    let (path, written) = (home.path(), AtomicUsize::new(0));
    let write = move || {
        let number = written.fetch_add(1, Ordering::SeqCst);
        append(&newest_beside(&path), &format!("# {number}\n"));
    };
    home.with_fs_hooks(At::times(4, Moment::Displaced, write)).publish(&token("new")).unwrap();
    let new = format!("{OURS}new");
    assert_eq!(home.sorted_lines(), ["# 0", "# 1", "# 2", "# 3", &new, "older:1:d:u:p"]);
    home.holds_only(&[".pgpass"]);
}

/// Appends to the displaced file and reads the current one at the same moment; at a later one, saves what it read with another
/// line.
struct Outdated {
    path: PathBuf,
    saves: Moment,
    read: OnceLock<String>,
    saved: AtomicBool,
}

impl Outdated {
    fn reach(&self, moment: Moment) {
        if moment == self.saves && !self.saved.swap(true, Ordering::SeqCst) {
            save(&self.path, &format!("{}saved:1:d:u:p\n", self.read.get().unwrap()));
        }
    }
}

impl FsHooks for Outdated {
    fn displaced(&self) {
        self.read.get_or_init(|| {
            append(&displaced_beside(&self.path), "late:1:d:u:p\n");
            fs::read_to_string(&self.path).unwrap()
        });
    }

    fn placed(&self) {
        self.reach(Moment::Placed);
    }

    fn carried(&self) {
        self.reach(Moment::Carried);
    }
}

#[track_caller]
fn is_put_in_again_where_somebody_saves(saves: Moment) {
    let home = Home::with_old("older:1:d:u:p\n");
    let outdated = Outdated { path: home.path(), saves, read: OnceLock::new(), saved: AtomicBool::new(false) };
    home.with_fs_hooks(outdated).publish(&token("new")).unwrap();
    let new = format!("{OURS}new");
    assert_eq!(home.sorted_lines(), [new.as_str(), "late:1:d:u:p", "older:1:d:u:p", "saved:1:d:u:p"]);
    home.holds_only(&[".pgpass"]);
}

#[test]
fn what_was_taken_over_is_put_in_again_where_somebody_saves_who_had_not_seen_it() {
    is_put_in_again_where_somebody_saves(Moment::Placed);
}

#[test]
fn what_was_taken_over_is_put_in_again_where_somebody_saves_late_who_had_not_seen_it() {
    is_put_in_again_where_somebody_saves(Moment::Carried);
}

/// Appends to the displaced file twice; the second time also saves what the file contained the first time, with another
/// line.
struct TwiceOutdated {
    path: PathBuf,
    read: Mutex<Vec<String>>,
}

impl FsHooks for TwiceOutdated {
    fn displaced(&self) {
        let mut read = self.read.lock().unwrap();
        let number = read.len();
        if number < 2 {
            append(&newest_beside(&self.path), &format!("late{number}:1:d:u:p\n"));
            read.push(fs::read_to_string(&self.path).unwrap());
        }
        if number == 1 {
            save(&self.path, &format!("{}saved:1:d:u:p\n", read[0]));
        }
    }
}

#[test]
fn what_was_taken_over_before_the_last_time_is_not_forgotten() {
    let home = Home::with_old("older:1:d:u:p\n");
    let outdated = TwiceOutdated { path: home.path(), read: Mutex::default() };
    home.with_fs_hooks(outdated).publish(&token("new")).unwrap();
    let new = format!("{OURS}new");
    assert_eq!(home.sorted_lines(), [new.as_str(), "late0:1:d:u:p", "late1:1:d:u:p", "older:1:d:u:p", "saved:1:d:u:p"]);
    home.holds_only(&[".pgpass"]);
}
