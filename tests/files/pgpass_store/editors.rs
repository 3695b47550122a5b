//! Somebody saves the file while it is being replaced: their edit is kept, and so is the entry.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dbx_rotator::pgpass::FsHooks;

use super::moments::{At, Moment, save, save_with};
use super::{Home, OURS, token};

#[test]
fn an_edit_that_somebody_saves_in_between_is_kept() {
    type Edit = fn(&Path);
    let ways: [(&str, Edit); 4] = [
        ("appends", |path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            fs::write(path, format!("{text}new:5432:*:bob:pw\n")).unwrap();
        }),
        ("replaces", |path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            save(path, &format!("new:5432:*:bob:pw\n{text}"));
        }),
        ("moves away", |path| {
            let _ = fs::remove_file(path);
            fs::write(path.with_extension("elsewhere"), "new:5432:*:bob:pw\n").unwrap();
            symlink(".elsewhere", path).unwrap();
            fs::rename(path.with_extension("elsewhere"), path.with_file_name(".elsewhere")).unwrap();
        }),
        ("overwrites with the same length and time", |path| {
            let Ok(metadata) = fs::metadata(path) else { return fs::write(path, "new:5432:*:bob:pw\n").unwrap() };
            let text = fs::read_to_string(path).unwrap().replace("old:5432:*:bob:pw", "new:5432:*:bob:pw");
            let file = fs::File::options().write(true).open(path).unwrap();
            file.write_all_at(text.as_bytes(), 0).unwrap();
            file.set_modified(metadata.modified().unwrap()).unwrap();
        }),
    ];
    for (name, edit) in ways {
        for exists in [true, false] {
            let home = Home::new();
            if exists {
                home.write(&format!("old:5432:*:bob:pw\n{OURS}old\n"), 0o600);
            }
            let path = home.path();
            let file = home.with_fs_hooks(At::once(Moment::Ready, move || edit(&path)));
            file.publish(&token("new")).unwrap();
            assert!(home.text().contains("new:5432:*:bob:pw\n"), "{name}, {exists}: {}", home.text());
            assert!(home.text().contains(&format!("{OURS}new\n")), "{name}, {exists}: {}", home.text());
        }
    }
}

#[test]
fn a_file_that_somebody_keeps_saving_gets_the_entry_all_the_same_and_loses_nothing() {
    let home = Home::with("x:1:d:u:p\n");
    let path = home.path();
    let saved = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&saved);
    let keep_saving = move || save_with(&path, &format!("# {}\n", count.fetch_add(1, Ordering::SeqCst)));
    home.with_fs_hooks(At::times(usize::MAX, Moment::Ready, keep_saving)).publish(&token("T")).unwrap();
    assert!(home.text().starts_with(&format!("{OURS}T\n")), "{}", home.text());
    // Their last version is carried over as soon as they leave the file alone.
    home.file().publish(&token("T")).unwrap();
    let others: Vec<String> = (0..saved.load(Ordering::SeqCst)).map(|number| format!("# {number}")).collect();
    let text = home.text();
    assert!(others.iter().all(|other| text.lines().any(|line| line == other)), "{text}");
    assert!(text.contains("x:1:d:u:p\n") && text.lines().count() == others.len() + 2, "{text}");
    // What a child of another test has open between fork and exec is left for later.
    let others_beside = || fs::read_dir(home.0.path()).unwrap().count() > 1;
    for _ in (0..1_000).take_while(|_| others_beside()) {
        home.file().publish(&token("T")).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    home.holds_only(&[".pgpass"]);
}

#[test]
fn a_file_that_is_moved_and_linked_in_between_stays_a_link() {
    // What stow, chezmoi and similar programs do: the same file, the same bytes, another place.
    let home = Home::with_old("");
    let path = home.path();
    let adopt = move || {
        fs::rename(&path, path.with_file_name("dotfile")).unwrap();
        symlink("dotfile", &path).unwrap();
    };
    home.with_fs_hooks(At::once(Moment::Ready, adopt)).publish(&token("new")).unwrap();
    assert!(home.path().is_symlink());
    assert_eq!(home.text(), format!("{OURS}new\n"));
    home.holds_only(&[".pgpass", "dotfile"]);
}

#[test]
fn a_file_that_appears_at_the_last_moment_is_not_overwritten() {
    let home = Home::new();
    let path = home.path();
    let appear = move || fs::write(&path, "sudden:1:d:u:p\n").unwrap();
    home.with_fs_hooks(At::once(Moment::Naming, appear)).publish(&token("T")).unwrap();
    assert_eq!(home.text(), format!("{OURS}T\nsudden:1:d:u:p\n"));
    home.holds_only(&[".pgpass"]);
}

#[test]
fn an_entry_that_is_overwritten_at_once_is_published_again() {
    let home = Home::with("early:1:d:u:p\n");
    // Like a program that read before our change and writes after it.
    let path = home.path();
    let overwrite = move || fs::write(&path, "late:1:d:u:p\n").unwrap();
    home.with_fs_hooks(At::once(Moment::Placed, overwrite)).publish(&token("T")).unwrap();
    assert_eq!(home.text(), format!("{OURS}T\nlate:1:d:u:p\n"));
}

#[test]
fn what_is_renamed_over_the_file_at_the_last_moment_is_kept() {
    let home = Home::with_old("older:1:d:u:p\n");
    let path = home.path();
    let edit = move || save(&path, &format!("# new\n{OURS}old\nolder:1:d:u:p\n"));
    home.with_fs_hooks(At::once(Moment::Looked, edit)).publish(&token("new")).unwrap();
    assert_eq!(home.text(), format!("# new\n{OURS}new\nolder:1:d:u:p\n"));
    home.holds_only(&[".pgpass"]);
}

/// Saves at the last moment, several times in a row, and checks the file whenever it is ours.
struct Saver {
    path: PathBuf,
    saved: AtomicUsize,
    missed: Arc<AtomicUsize>,
}

impl Saver {
    const TIMES: usize = 12;

    fn look(&self) {
        let text = fs::read_to_string(&self.path).unwrap();
        let is_missing = |number: &usize| !text.contains(&format!("# {number}\n"));
        self.missed.fetch_add((0..self.saved.load(Ordering::SeqCst)).filter(is_missing).count(), Ordering::SeqCst);
    }
}

impl FsHooks for Saver {
    fn looked(&self) {
        let number = self.saved.load(Ordering::SeqCst);
        if number < Self::TIMES {
            save_with(&self.path, &format!("# {number}\n"));
            self.saved.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn displaced(&self) {
        self.look();
    }

    fn placed(&self) {
        self.look();
    }
}

#[test]
fn whoever_looks_at_the_file_after_saving_it_finds_what_they_saved() {
    let home = Home::with_old("older:1:d:u:p\n");
    let missed = Arc::new(AtomicUsize::new(0));
    let saver = Saver { path: home.path(), saved: AtomicUsize::new(0), missed: Arc::clone(&missed) };
    let published = home.with_fs_hooks(saver).publish(&token("new")).unwrap();
    assert_eq!(missed.load(Ordering::SeqCst), 0, "lines that were not there");
    assert!(!published.notes.iter().any(|note| note.contains("replaced all the same")), "{:?}", published.notes);
    let saved: String = (0..Saver::TIMES).map(|number| format!("# {number}\n")).collect();
    assert_eq!(home.text(), format!("{OURS}new\nolder:1:d:u:p\n{saved}"));
    home.holds_only(&[".pgpass"]);
}

#[test]
fn a_link_that_is_put_there_at_the_last_moment_stays_a_link() {
    let home = Home::with_old("");
    let path = home.path();
    let adopt = move || {
        fs::rename(&path, path.with_file_name("dotfile")).unwrap();
        symlink("dotfile", path.with_file_name("link")).unwrap();
        fs::rename(path.with_file_name("link"), &path).unwrap();
    };
    home.with_fs_hooks(At::once(Moment::Looked, adopt)).publish(&token("new")).unwrap();
    assert!(home.path().is_symlink());
    assert_eq!(home.text(), format!("{OURS}new\n"));
    home.holds_only(&[".pgpass", "dotfile"]);
}

#[test]
fn a_file_that_is_removed_at_the_last_moment_is_made_again() {
    let home = Home::with_old("");
    let path = home.path();
    home.with_fs_hooks(At::once(Moment::Looked, move || fs::remove_file(&path).unwrap()))
        .publish(&token("new"))
        .unwrap();
    assert_eq!(home.text(), format!("{OURS}new\n"));
    home.holds_only(&[".pgpass"]);
}
