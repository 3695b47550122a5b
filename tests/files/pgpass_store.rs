//! The password file on disk: replaced as a whole, kept private, and without losing anybody's edit.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test may fail loudly and speak")]

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::skip;
use dbx_rotator::pgpass::{Current, Disk, Entry, FileError, FileFault, FsHooks, Key, PasswordFile, Reading, Target};

const OURS: &str = "db.example.com:5432:*:alice:";

fn key() -> Key {
    Key::new("db.example.com", 5432, "*", "alice").unwrap()
}

fn token(password: &str) -> [Entry; 1] {
    [Entry::new(key(), password.into(), false).unwrap()]
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

fn is_root() -> bool {
    fs::metadata("/proc/self").or_else(|_| tempfile::tempfile().unwrap().metadata()).unwrap().uid() == 0
}

fn root_or_skip(test: &str) -> bool {
    if !is_root() {
        skip(test, "needs root");
    }
    is_root()
}

// --- the usual way -------------------------------------------------------------------------------------------------

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

// --- mode and owner ------------------------------------------------------------------------------------------------

#[test]
fn a_mode_that_lets_others_in_is_tightened_and_told_and_a_read_only_file_stays_so() {
    for (before, after, told) in [
        (0o600, 0o600, None),
        (0o400, 0o400, None),
        (0o644, 0o600, Some("libpq ignored the file")),
        (0o440, 0o400, Some("others may have read")),
        (0o700, 0o600, Some("lib/pq")),
        (0o1600, 0o600, Some("lib/pq")),
    ] {
        for (password, changed) in [("old", false), ("new", true)] {
            let home = Home::new();
            home.write(&format!("{OURS}old\n"), before);
            let published = home.file().publish(&token(password)).unwrap();
            assert_eq!((published.changed, home.mode()), (changed, after), "{before:o}");
            assert_eq!(published.notes.len(), usize::from(told.is_some()), "{before:o}: {:?}", published.notes);
            assert!(told.is_none_or(|told| published.notes[0].contains(told)), "{:?}", published.notes);
            assert_eq!(home.text(), format!("{OURS}{password}\n"));
        }
    }
}

#[test]
fn the_owner_and_the_group_are_kept() {
    if !root_or_skip("the_owner_and_the_group_are_kept") {
        return;
    }
    let home = Home::with(&format!("{OURS}old\n"));
    chown(home.path(), Some(1234), Some(5678)).unwrap();
    let published = home.file().publish(&token("new")).unwrap();
    let metadata = fs::metadata(home.path()).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), published.notes), (1234, 5678, vec![]));
}

#[test]
fn a_file_that_root_creates_in_somebodys_home_is_theirs() {
    if !root_or_skip("a_file_that_root_creates_in_somebodys_home_is_theirs") {
        return;
    }
    let home = Home::new();
    chown(home.0.path(), Some(1234), Some(5678)).unwrap();
    let published = home.file().publish(&token("T1")).unwrap();
    let metadata = fs::metadata(home.path()).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 5678));
    assert!(published.notes[0].contains("uid 1234"), "{:?}", published.notes);
}

#[test]
fn extended_attributes_are_kept() {
    let home = Home::with(&format!("{OURS}old\n"));
    if let Err(error) = rustix::fs::setxattr(home.path(), "user.backup", b"yes", rustix::fs::XattrFlags::empty()) {
        skip("extended_attributes_are_kept", &error.to_string());
        return;
    }
    let published = home.file().publish(&token("new")).unwrap();
    let mut kept = [0; 3];
    assert_eq!(rustix::fs::getxattr(home.path(), "user.backup", &mut kept), Ok(3));
    assert_eq!(&kept, b"yes");
    assert_eq!(published.notes, Vec::<String>::new());
}

// --- links and things that are not files ---------------------------------------------------------------------------

#[test]
fn links_are_followed_and_stay_links_even_where_they_dangle() {
    for exists in [true, false] {
        let home = Home::new();
        let dotfiles = home.0.path().join("dotfiles");
        fs::create_dir(&dotfiles).unwrap();
        symlink("second", home.path()).unwrap();
        symlink("dotfiles/pgpass", home.0.path().join("second")).unwrap();
        if exists {
            fs::write(dotfiles.join("pgpass"), format!("# kept\n{OURS}old\n")).unwrap();
        }
        home.file().publish(&token("new")).unwrap();
        assert!(home.path().is_symlink() && home.0.path().join("second").is_symlink());
        let kept = if exists { "# kept\n" } else { "" };
        assert_eq!(home.text(), format!("{kept}{OURS}new\n"));
        assert_eq!(mode(&dotfiles.join("pgpass")), 0o600);
        assert_eq!(fs::read_dir(&dotfiles).unwrap().count(), 1, "the new file was made beside the target");
        home.holds_only(&[".pgpass", "dotfiles", "second"]);
    }
}

#[test]
fn links_that_lead_in_a_circle_are_refused() {
    let home = Home::new();
    symlink(".pgpass", home.path()).unwrap();
    assert!(matches!(home.file().publish(&token("T")), Err(FileError { fault: FileFault::LinkLoop, .. })));
}

#[test]
fn a_users_link_to_a_file_of_somebody_else_is_not_followed_by_root() {
    if !root_or_skip("a_users_link_to_a_file_of_somebody_else_is_not_followed_by_root") {
        return;
    }
    let home = Home::new();
    let precious = home.0.path().join("precious");
    fs::write(&precious, "root's\n").unwrap();
    symlink("precious", home.path()).unwrap();
    std::os::unix::fs::lchown(home.path(), Some(1234), Some(1234)).unwrap();
    let error = home.file().publish(&token("T")).unwrap_err();
    assert!(matches!(error.fault, FileFault::ForeignLink(_)), "{error}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "root's\n");
    chown(&precious, Some(1234), None).unwrap();
    home.file().publish(&token("T")).unwrap();
}

#[test]
fn a_pipe_a_directory_and_a_device_are_refused_at_once() {
    let home = Home::new();
    let pipe = home.0.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    for (path, expected) in
        [(pipe.as_path(), "a named pipe"), (home.0.path(), "a directory"), (Path::new("/dev/null"), "a device")]
    {
        let started = Instant::now();
        let error = PasswordFile::new(path).publish(&token("T")).unwrap_err();
        assert!(matches!(error.fault, FileFault::NotAFile(kind) if kind == expected), "{error}");
        assert!(error.is_read() && error.to_string().contains(&*path.to_string_lossy()));
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn a_broken_hard_link_is_told() {
    let home = Home::with(&format!("{OURS}old\n"));
    let other = home.0.path().join("other");
    fs::hard_link(home.path(), &other).unwrap();
    let published = home.file().publish(&token("new")).unwrap();
    assert!(published.notes[0].contains("2 names (hard links)"), "{:?}", published.notes);
    assert_eq!(fs::read_to_string(other).unwrap(), format!("{OURS}old\n"));
    assert_eq!(home.text(), format!("{OURS}new\n"));
}

#[test]
fn a_missing_directory_is_told_with_what_to_do() {
    let home = Home::new();
    let path = home.0.path().join("nowhere/.pgpass");
    let error = PasswordFile::new(&path).publish(&token("T")).unwrap_err();
    assert!(matches!(error.fault, FileFault::NoDirectory(_)), "{error}");
    assert!(!error.is_read() && error.hint().contains("mkdir -p"), "{}", error.hint());
}

// --- somebody else writes too --------------------------------------------------------------------------------------

/// Does something just before the file is replaced, a number of times.
struct Meddler<F> {
    times: AtomicUsize,
    act: F,
}

impl<F: Fn() + Send + Sync> Meddler<F> {
    fn new(times: usize, act: F) -> Self {
        Self { times: AtomicUsize::new(times), act }
    }
}

impl<F: Fn() + Send + Sync> FsHooks for Meddler<F> {
    fn ready(&self) {
        if self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            (self.act)();
        }
    }
}

#[test]
fn an_edit_that_somebody_saves_in_between_is_kept() {
    type Save = fn(&Path);
    let ways: [(&str, Save); 4] = [
        ("appends", |path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            fs::write(path, format!("{text}new:5432:*:bob:pw\n")).unwrap();
        }),
        ("replaces", |path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let beside = path.with_extension("editor");
            fs::write(&beside, format!("new:5432:*:bob:pw\n{text}")).unwrap();
            fs::rename(beside, path).unwrap();
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
            std::os::unix::fs::FileExt::write_all_at(&file, text.as_bytes(), 0).unwrap();
            file.set_modified(metadata.modified().unwrap()).unwrap();
        }),
    ];
    for (name, save) in ways {
        for exists in [true, false] {
            let home = Home::new();
            if exists {
                home.write(&format!("old:5432:*:bob:pw\n{OURS}old\n"), 0o600);
            }
            let path = home.path();
            let file = home.with_fs_hooks(Meddler::new(1, move || save(&path)));
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
    let append = move || {
        let text = fs::read_to_string(&path).unwrap();
        let number = count.fetch_add(1, Ordering::SeqCst);
        fs::write(path.with_extension("editor"), format!("{text}# {number}\n")).unwrap();
        fs::rename(path.with_extension("editor"), &path).unwrap();
    };
    home.with_fs_hooks(Meddler::new(usize::MAX, append)).publish(&token("T")).unwrap();
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
    let home = Home::with(&format!("{OURS}old\n"));
    let path = home.path();
    let adopt = move || {
        fs::rename(&path, path.with_file_name("dotfile")).unwrap();
        symlink("dotfile", &path).unwrap();
    };
    home.with_fs_hooks(Meddler::new(1, adopt)).publish(&token("new")).unwrap();
    assert!(home.path().is_symlink());
    assert_eq!(home.text(), format!("{OURS}new\n"));
    home.holds_only(&[".pgpass", "dotfile"]);
}

/// Creates the file at the last moment, after we saw that it did not exist.
struct LastMoment(PathBuf);

impl FsHooks for LastMoment {
    fn naming(&self) {
        fs::write(&self.0, "sudden:1:d:u:p\n").unwrap();
    }
}

#[test]
fn a_file_that_appears_at_the_last_moment_is_not_overwritten() {
    let home = Home::new();
    home.with_fs_hooks(LastMoment(home.path())).publish(&token("T")).unwrap();
    assert_eq!(home.text(), format!("{OURS}T\nsudden:1:d:u:p\n"));
    home.holds_only(&[".pgpass"]);
}

/// Overwrites our new file once, like a program that read before our change and writes after it.
struct LateWriter {
    path: PathBuf,
    done: AtomicBool,
}

impl FsHooks for LateWriter {
    fn placed(&self) {
        if !self.done.swap(true, Ordering::SeqCst) {
            fs::write(&self.path, "late:1:d:u:p\n").unwrap();
        }
    }
}

#[test]
fn an_entry_that_is_overwritten_at_once_is_published_again() {
    let home = Home::with("early:1:d:u:p\n");
    let file = home.with_fs_hooks(LateWriter { path: home.path(), done: AtomicBool::new(false) });
    file.publish(&token("T")).unwrap();
    assert_eq!(home.text(), format!("{OURS}T\nlate:1:d:u:p\n"));
}

/// Does something at one moment of a replacement, once.
struct At<F> {
    moment: Moment,
    done: AtomicBool,
    act: F,
}

#[derive(Clone, Copy, PartialEq)]
enum Moment {
    Looked,
    Displaced,
}

impl<F: Fn() + Send + Sync> At<F> {
    fn new(moment: Moment, act: F) -> Self {
        Self { moment, done: AtomicBool::new(false), act }
    }

    fn reach(&self, moment: Moment) {
        if moment == self.moment && !self.done.swap(true, Ordering::SeqCst) {
            (self.act)();
        }
    }
}

impl<F: Fn() + Send + Sync> FsHooks for At<F> {
    fn looked(&self) {
        self.reach(Moment::Looked);
    }

    fn displaced(&self) {
        self.reach(Moment::Displaced);
    }
}

/// The displaced file, by the name that it has for a moment.
fn displaced_beside(path: &Path) -> PathBuf {
    let mut names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    names.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(".pgpass-new-")).unwrap()
}

/// The file that was displaced last.
fn newest_beside(path: &Path) -> PathBuf {
    let names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let changed = |path: &PathBuf| fs::metadata(path).map(|data| (data.ctime(), data.ctime_nsec())).unwrap();
    names.filter(|other| other != path).max_by_key(changed).unwrap()
}

fn append(path: &Path, line: &str) {
    let mut file = fs::File::options().append(true).open(path).unwrap();
    io::Write::write_all(&mut file, line.as_bytes()).unwrap();
}

#[test]
fn what_is_renamed_over_the_file_at_the_last_moment_is_kept() {
    let home = Home::with(&format!("{OURS}old\nolder:1:d:u:p\n"));
    let path = home.path();
    let save = move || {
        fs::write(path.with_extension("editor"), format!("# new\n{OURS}old\nolder:1:d:u:p\n")).unwrap();
        fs::rename(path.with_extension("editor"), &path).unwrap();
    };
    home.with_fs_hooks(At::new(Moment::Looked, save)).publish(&token("new")).unwrap();
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
            let text = fs::read_to_string(&self.path).unwrap();
            fs::write(self.path.with_extension("editor"), format!("{text}# {number}\n")).unwrap();
            fs::rename(self.path.with_extension("editor"), &self.path).unwrap();
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
    let home = Home::with(&format!("{OURS}old\nolder:1:d:u:p\n"));
    let missed = Arc::new(AtomicUsize::new(0));
    let saver = Saver { path: home.path(), saved: AtomicUsize::new(0), missed: Arc::clone(&missed) };
    let published = home.with_fs_hooks(saver).publish(&token("new")).unwrap();
    assert_eq!(missed.load(Ordering::SeqCst), 0, "lines that were not there");
    assert!(!published.notes.iter().any(|note| note.contains("replaced all the same")), "{:?}", published.notes);
    let saved: String = (0..Saver::TIMES).map(|number| format!("# {number}\n")).collect();
    assert_eq!(home.text(), format!("{OURS}new\nolder:1:d:u:p\n{saved}"));
    home.holds_only(&[".pgpass"]);
}

/// Appends to the displaced file and reads the current one at the same moment; when the append is being carried over, saves what
/// it read with another line.
struct Outdated {
    path: PathBuf,
    read: Mutex<Option<String>>,
    done: AtomicBool,
}

impl FsHooks for Outdated {
    fn displaced(&self) {
        let mut read = self.read.lock().unwrap();
        if read.is_none() {
            append(&displaced_beside(&self.path), "late:1:d:u:p\n");
            *read = Some(fs::read_to_string(&self.path).unwrap());
        }
    }

    fn placed(&self) {
        if !self.done.swap(true, Ordering::SeqCst) {
            let read = self.read.lock().unwrap().clone().unwrap();
            fs::write(self.path.with_extension("editor"), read + "saved:1:d:u:p\n").unwrap();
            fs::rename(self.path.with_extension("editor"), &self.path).unwrap();
        }
    }
}

#[test]
fn what_was_taken_over_is_put_in_again_where_somebody_saves_who_had_not_seen_it() {
    let home = Home::with(&format!("{OURS}old\nolder:1:d:u:p\n"));
    let outdated = Outdated { path: home.path(), read: Mutex::new(None), done: AtomicBool::new(false) };
    home.with_fs_hooks(outdated).publish(&token("new")).unwrap();
    let mut lines: Vec<String> = home.text().lines().map(str::to_owned).collect();
    lines.sort();
    let new = format!("{OURS}new");
    assert_eq!(lines, [new.as_str(), "late:1:d:u:p", "older:1:d:u:p", "saved:1:d:u:p"]);
    home.holds_only(&[".pgpass"]);
}

/// Appends to the displaced file and reads the current one at the same moment; after the append was carried over, saves what it
/// read with another line.
struct Slow {
    path: PathBuf,
    read: Mutex<Option<String>>,
}

impl FsHooks for Slow {
    fn displaced(&self) {
        let mut read = self.read.lock().unwrap();
        if read.is_none() {
            append(&displaced_beside(&self.path), "late:1:d:u:p\n");
            *read = Some(fs::read_to_string(&self.path).unwrap());
        }
    }

    fn carried(&self) {
        let read = std::mem::take(&mut *self.read.lock().unwrap()).filter(|read| !read.is_empty());
        if let Some(read) = read {
            *self.read.lock().unwrap() = Some(String::new());
            fs::write(self.path.with_extension("editor"), read + "saved:1:d:u:p\n").unwrap();
            fs::rename(self.path.with_extension("editor"), &self.path).unwrap();
        }
    }
}

#[test]
fn what_was_taken_over_is_put_in_again_where_somebody_saves_late_who_had_not_seen_it() {
    let home = Home::with(&format!("{OURS}old\nolder:1:d:u:p\n"));
    home.with_fs_hooks(Slow { path: home.path(), read: Mutex::default() }).publish(&token("new")).unwrap();
    let mut lines: Vec<String> = home.text().lines().map(str::to_owned).collect();
    lines.sort();
    let new = format!("{OURS}new");
    assert_eq!(lines, [new.as_str(), "late:1:d:u:p", "older:1:d:u:p", "saved:1:d:u:p"]);
    home.holds_only(&[".pgpass"]);
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
            fs::write(self.path.with_extension("editor"), format!("{}saved:1:d:u:p\n", read[0])).unwrap();
            fs::rename(self.path.with_extension("editor"), &self.path).unwrap();
        }
    }
}

#[test]
fn what_was_taken_over_before_the_last_time_is_not_forgotten() {
    let home = Home::with(&format!("{OURS}old\nolder:1:d:u:p\n"));
    let outdated = TwiceOutdated { path: home.path(), read: Mutex::default() };
    home.with_fs_hooks(outdated).publish(&token("new")).unwrap();
    let mut lines: Vec<String> = home.text().lines().map(str::to_owned).collect();
    lines.sort();
    let new = format!("{OURS}new");
    assert_eq!(lines, [new.as_str(), "late0:1:d:u:p", "late1:1:d:u:p", "older:1:d:u:p", "saved:1:d:u:p"]);
    home.holds_only(&[".pgpass"]);
}

#[test]
fn a_link_that_is_put_there_at_the_last_moment_stays_a_link() {
    let home = Home::with(&format!("{OURS}old\n"));
    let path = home.path();
    let adopt = move || {
        fs::rename(&path, path.with_file_name("dotfile")).unwrap();
        symlink("dotfile", path.with_file_name("link")).unwrap();
        fs::rename(path.with_file_name("link"), &path).unwrap();
    };
    home.with_fs_hooks(At::new(Moment::Looked, adopt)).publish(&token("new")).unwrap();
    assert!(home.path().is_symlink());
    assert_eq!(home.text(), format!("{OURS}new\n"));
    home.holds_only(&[".pgpass", "dotfile"]);
}

#[test]
fn a_file_that_is_removed_at_the_last_moment_is_made_again() {
    let home = Home::with(&format!("{OURS}old\n"));
    let path = home.path();
    home.with_fs_hooks(At::new(Moment::Looked, move || fs::remove_file(&path).unwrap()))
        .publish(&token("new"))
        .unwrap();
    assert_eq!(home.text(), format!("{OURS}new\n"));
    home.holds_only(&[".pgpass"]);
}

#[test]
fn what_is_written_to_the_file_after_it_was_displaced_is_taken_over() {
    let home = Home::with(&format!("{OURS}old\nolder:1:d:u:p\n"));
    let path = home.path();
    let write = move || {
        append(&displaced_beside(&path), "late:1:d:u:p\n");
        // And somebody else opens the new one.
        append(&path, "later:1:d:u:p\n");
    };
    let published = home.with_fs_hooks(At::new(Moment::Displaced, write)).publish(&token("new")).unwrap();
    assert!(published.changed);
    assert_eq!(home.text(), format!("{OURS}new\nolder:1:d:u:p\nlate:1:d:u:p\nlater:1:d:u:p\n"));
    home.holds_only(&[".pgpass"]);
}

/// Appends to the displaced file again and again.
struct Latecomer {
    path: PathBuf,
    written: AtomicUsize,
}

impl FsHooks for Latecomer {
    fn displaced(&self) {
        let number = self.written.fetch_add(1, Ordering::SeqCst);
        if number < 4 {
            append(&newest_beside(&self.path), &format!("# {number}\n"));
        }
    }
}

#[test]
fn what_is_written_to_one_displaced_file_after_the_other_is_all_taken_over() {
    let home = Home::with(&format!("{OURS}old\nolder:1:d:u:p\n"));
    home.with_fs_hooks(Latecomer { path: home.path(), written: AtomicUsize::new(0) }).publish(&token("new")).unwrap();
    let mut lines: Vec<String> = home.text().lines().map(str::to_owned).collect();
    lines.sort();
    let new = format!("{OURS}new");
    assert_eq!(lines, ["# 0", "# 1", "# 2", "# 3", &new, "older:1:d:u:p"]);
    home.holds_only(&[".pgpass"]);
}

#[test]
fn what_was_written_when_the_process_was_killed_is_taken_over_by_the_next_and_nothing_else_is() {
    let inner = "pgpass_store::inside_what_was_written_when_the_process_was_killed";
    for late in ["late:1:d:u:p\n", ""] {
        let home = Home::with(&format!("{OURS}old\nolder:1:d:u:p\n"));
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
    PasswordFile::with_fs_hooks(path, Arc::new(At::new(Moment::Displaced, die))).publish(&token("new")).unwrap();
}

#[test]
fn two_that_know_nothing_of_each_other_both_publish() {
    let home = Home::with("older:1:d:u:p\n");
    std::thread::scope(|scope| {
        for user in ["alice", "bob"] {
            let file = home.file();
            scope.spawn(move || {
                for number in 0..100 {
                    let key = Key::new("db.example.com", 5432, "*", user).unwrap();
                    file.publish(&[Entry::new(key, format!("{user}-{number}").into(), false).unwrap()]).unwrap();
                }
            });
        }
    });
    let mut lines: Vec<String> = home.text().lines().map(str::to_owned).collect();
    lines.sort();
    let entries = ["alice", "bob"].map(|user| format!("db.example.com:5432:*:{user}:{user}-99"));
    assert_eq!(lines, [&entries[0], &entries[1], "older:1:d:u:p"]);
    home.holds_only(&[".pgpass"]);
}

/// An editor renames its file over the password file at the last moment. While that gets its place back, another process of ours
/// publishes and clears the directory up.
struct Crowd {
    path: PathBuf,
    other_comes: When,
    exchanged: AtomicUsize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    Before,
    /// Before it, after somebody has appended to our file, which has the place.
    BeforeAndWritten,
    After,
    /// After it, and somebody has appended to our file before.
    AfterAndWritten,
}

impl Crowd {
    fn other_publishes(&self) {
        let key = Key::new("db.example.com", 5432, "*", "bob").unwrap();
        let entry = Entry::new(key, "B1".into(), false).unwrap();
        PasswordFile::new(&self.path).publish(&[entry]).unwrap();
    }
}

impl FsHooks for Crowd {
    fn looked(&self) {
        if self.exchanged.load(Ordering::SeqCst) == 0 {
            let text = fs::read_to_string(&self.path).unwrap();
            fs::write(self.path.with_extension("editor"), format!("{text}saved:1:d:u:p\n")).unwrap();
            fs::rename(self.path.with_extension("editor"), &self.path).unwrap();
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
        let home = Home::with(&format!("{OURS}old\nolder:1:d:u:p\n"));
        let crowd = Crowd { path: home.path(), other_comes, exchanged: AtomicUsize::new(0) };
        home.with_fs_hooks(crowd).publish(&token("new")).unwrap_or_else(|error| panic!("{other_comes:?}: {error}"));
        let text = home.text();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        let appended = "appended:1:d:u:p";
        let mut wanted =
            vec!["db.example.com:5432:*:alice:new", "db.example.com:5432:*:bob:B1", "older:1:d:u:p", "saved:1:d:u:p"];
        if matches!(other_comes, When::BeforeAndWritten | When::AfterAndWritten) {
            wanted.insert(0, appended);
        }
        assert_eq!(lines, wanted, "{other_comes:?}");
        home.holds_only(&[".pgpass"]);
    }
}

#[test]
fn in_a_directory_where_nothing_can_be_renamed_nothing_is_left_behind() {
    let test = "in_a_directory_where_nothing_can_be_renamed_nothing_is_left_behind";
    let home = Home::with(&format!("{OURS}old\n"));
    let chattr = |change: &str| {
        let done = Command::new("chattr").arg(change).arg(home.0.path()).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    };
    if !chattr("+a") {
        skip(test, "chattr +a needs root and a file system that knows it");
        return;
    }
    let published = home.file().publish(&token("new"));
    let other = PasswordFile::new(home.0.path().join("other")).publish(&token("new"));
    assert!(chattr("-a"));
    assert!(published.unwrap().notes[0].contains("append-only"));
    other.unwrap();
    assert_eq!(home.text(), format!("{OURS}new\n"));
    home.holds_only(&[".pgpass", "other"]);
}

// --- where it cannot be renamed ------------------------------------------------------------------------------------

struct RefusesRename(i32);

impl FsHooks for RefusesRename {
    fn exchange(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(self.0))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(self.0))
    }
}

const EIO: i32 = 5;
const EXDEV: i32 = 18;
const EBUSY: i32 = 16;

#[test]
fn a_file_that_cannot_be_replaced_is_written_in_place_and_cut_to_length() {
    for errno in [EBUSY, EXDEV] {
        let home = Home::new();
        home.write(&format!("# kept\n{OURS}a-much-longer-password-than-the-new-one\n"), 0o644);
        let inode = fs::metadata(home.path()).unwrap().ino();
        let published = home.with_fs_hooks(RefusesRename(errno)).publish(&token("new")).unwrap();
        assert_eq!((home.text(), home.mode()), (format!("# kept\n{OURS}new\n"), 0o600));
        assert_eq!(fs::metadata(home.path()).unwrap().ino(), inode);
        assert!(published.notes.iter().any(|note| note.contains("written in place")), "{:?}", published.notes);
        home.holds_only(&[".pgpass"]);
    }
}

#[test]
fn any_other_failure_leaves_the_old_file_and_nothing_else() {
    let home = Home::with(&format!("{OURS}old\n"));
    let error = home.with_fs_hooks(RefusesRename(EIO)).publish(&token("new")).unwrap_err();
    assert!(matches!(error.fault, FileFault::Write { .. }) && !error.is_read(), "{error}");
    assert!(error.to_string().contains(&*home.path().to_string_lossy()));
    assert_eq!(home.text(), format!("{OURS}old\n"));
    home.holds_only(&[".pgpass"]);
}

/// Runs one test of this file again, alone, in its own mount namespace.
fn in_own_mounts(test: &str, inner: &str) {
    again_under(&["unshare", "-m"], test, inner);
}

/// Runs one test of this file again, alone, under a command that restricts it.
fn again_under(wrapper: &[&str], test: &str, inner: &str) {
    if !root_or_skip(test) {
        return;
    }
    let command = || {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]);
        command
    };
    if !command().arg("true").status().is_ok_and(|status| status.success()) {
        skip(test, &format!("{} is not permitted", wrapper.join(" ")));
        return;
    }
    let inner = format!("pgpass_store::{inner}");
    let arguments = ["--exact", &inner, "--ignored", "--nocapture"];
    let output = command().arg(std::env::current_exe().unwrap()).args(arguments).output().unwrap();
    // A test that does not exist would succeed as well.
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(
        output.status.success() && ran,
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn mount(arguments: &[&str]) {
    assert!(Command::new("mount").args(arguments).status().unwrap().success(), "mount {arguments:?}");
}

#[test]
fn a_bind_mounted_file_is_written_in_place() {
    in_own_mounts("a_bind_mounted_file_is_written_in_place", "inside_a_bind_mounted_file_is_written_in_place");
}

#[test]
#[ignore = "runs in a mount namespace of its own, started by a_bind_mounted_file_is_written_in_place"]
fn inside_a_bind_mounted_file_is_written_in_place() {
    let home = Home::with("");
    let volume = home.0.path().join("volume");
    fs::write(&volume, format!("# kept\n{OURS}old-and-longer\n")).unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o600)).unwrap();
    mount(&["--bind", volume.to_str().unwrap(), home.path().to_str().unwrap()]);
    let published = home.file().publish(&token("new")).unwrap();
    assert!(published.notes[0].contains("busy"), "{:?}", published.notes);
    assert_eq!(home.text(), format!("# kept\n{OURS}new\n"));
    assert_eq!(fs::read_to_string(volume).unwrap(), home.text());
    home.holds_only(&[".pgpass", "volume"]);
    assert!(Command::new("umount").arg(home.path()).status().unwrap().success());
}

#[test]
fn a_writable_file_in_a_read_only_directory_is_written_in_place() {
    let test = "a_writable_file_in_a_read_only_directory_is_written_in_place";
    in_own_mounts(test, "inside_a_writable_file_in_a_read_only_directory_is_written_in_place");
}

#[test]
#[ignore = "runs in a mount namespace of its own, started by a_writable_file_in_a_read_only_directory_is_written_in_place"]
fn inside_a_writable_file_in_a_read_only_directory_is_written_in_place() {
    // As under systemd's ProtectHome=read-only with ReadWritePaths=~/.pgpass.
    let home = Home::with(&format!("{OURS}old\n"));
    let (directory, path) = (home.0.path().to_str().unwrap().to_owned(), home.path());
    let path = path.to_str().unwrap();
    mount(&["--bind", &directory, &directory]);
    mount(&["--bind", path, path]);
    mount(&["-o", "remount,bind,ro", &directory]);
    assert!(fs::write(home.0.path().join("probe"), "").is_err(), "the directory must be read-only");
    let published = home.file().publish(&token("new")).unwrap();
    assert!(published.notes[0].contains("read-only"), "{:?}", published.notes);
    assert_eq!(home.text(), format!("{OURS}new\n"));
    assert!(Command::new("umount").args([path, &directory]).status().unwrap().success());
}

#[test]
fn an_owner_that_cannot_be_given_is_kept_by_writing_in_place() {
    // Root in a container may be unable to change owners: a new file would lock the owner out.
    let test = "an_owner_that_cannot_be_given_is_kept_by_writing_in_place";
    let wrapper = ["setpriv", "--inh-caps=-chown", "--bounding-set=-chown"];
    again_under(&wrapper, test, "inside_an_owner_that_cannot_be_given_is_kept_by_writing_in_place");
}

#[test]
#[ignore = "runs without CAP_CHOWN, started by an_owner_that_cannot_be_given_is_kept_by_writing_in_place"]
fn inside_an_owner_that_cannot_be_given_is_kept_by_writing_in_place() {
    // Without CAP_CHOWN, this is the only way to get somebody else's file: another user makes it.
    let home = Home::new();
    fs::set_permissions(home.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let script = r#"umask 077; printf 'db.example.com:5432:*:alice:old\n' > "$1""#;
    let made = Command::new("setpriv")
        .args(["--reuid", "1234", "--clear-groups", "sh", "-c", script, "sh"])
        .arg(home.path())
        .status()
        .unwrap();
    assert!(made.success());
    let published = home.file().publish(&token("new")).unwrap();
    assert_eq!((home.text(), fs::metadata(home.path()).unwrap().uid()), (format!("{OURS}new\n"), 1234));
    assert!(published.notes[0].contains("its owner (uid 1234)"), "{:?}", published.notes);
    home.holds_only(&[".pgpass"]);
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    in_own_mounts("a_full_disk_leaves_the_old_file", "inside_a_full_disk_leaves_the_old_file");
}

#[test]
#[ignore = "runs in a mount namespace of its own, started by a_full_disk_leaves_the_old_file"]
fn inside_a_full_disk_leaves_the_old_file() {
    let home = Home::new();
    mount(&["-t", "tmpfs", "-o", "size=16k", "tmpfs", home.0.path().to_str().unwrap()]);
    home.write(&format!("{OURS}old\n"), 0o600);
    fs::write(home.0.path().join("ballast"), vec![0; 8192]).unwrap();
    let error = home.file().publish(&token(&"x".repeat(20_000))).unwrap_err();
    assert!(error.hint().contains("make room"), "{error}");
    assert_eq!(home.text(), format!("{OURS}old\n"));
    home.holds_only(&[".pgpass", "ballast"]);

    // The same for a file that can only be written in place: nothing is overwritten until there is room for all of it.
    let elsewhere = Home::with("");
    let (directory, path) = (elsewhere.0.path().to_str().unwrap().to_owned(), elsewhere.path());
    mount(&["--bind", &directory, &directory]);
    mount(&["--bind", home.path().to_str().unwrap(), path.to_str().unwrap()]);
    mount(&["-o", "remount,bind,ro", &directory]);
    let error = elsewhere.file().publish(&token(&"x".repeat(20_000))).unwrap_err();
    assert!(error.to_string().contains("reserve room") && error.hint().contains("make room"), "{error}");
    assert_eq!(home.text(), format!("{OURS}old\n"));
    let mounts = [path.to_str().unwrap(), &directory, home.0.path().to_str().unwrap()];
    assert!(Command::new("umount").args(mounts).status().unwrap().success());
}

// --- many readers --------------------------------------------------------------------------------------------------

/// Reads repeatedly like clients until the writer is done; returns how often, and how often there was no password.
fn read_until(done: &AtomicBool, path: &Path) -> (usize, usize) {
    let (mut reads, mut missing) = (0, 0);
    let target = Target::new(b"db.example.com", b"5432", b"app", b"alice");
    while !done.load(Ordering::SeqCst) {
        let found = fs::read(path).ok().and_then(|bytes| Reading::new(&bytes).lookup(&target));
        reads += 1;
        missing += usize::from(!found.is_some_and(|found| found.password.starts_with(b"token-")));
    }
    (reads, missing)
}

/// The same with the real libpq in another process, which prints how often there was no password when it is stopped.
const LIBPQ_READER: &str = r#"
import sys, threading
sys.path.insert(0, sys.argv[1])
import libpq_oracle
pq = libpq_oracle.Libpq()
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
reads = missing = 0
params = {"host": "db.example.com", "hostaddr": "127.0.0.1", "port": "5432", "dbname": "app", "user": "alice", "passfile": sys.argv[2]}
print("reading", flush=True)
while not done.is_set():
    matched, password, _ = pq.lookup(params)
    reads += 1
    missing += not (matched and password.startswith(b"token-"))
print(reads, missing)
"#;

#[test]
fn readers_never_miss_the_password_while_it_is_replaced_over_and_over() {
    let test = "readers_never_miss_the_password_while_it_is_replaced_over_and_over";
    let filler = "other:5432:*:bob:pw\n".repeat(200);
    let home = Home::with(&format!("{filler}{OURS}token-0\n{filler}"));
    let done = AtomicBool::new(false);
    let mut libpq = start_libpq_reader(&home.path());
    if libpq.is_none() {
        skip(&format!("{test} (libpq's part)"), "no python3 or no libpq.so.5");
    }
    let (rotations, (reads, missing)) = std::thread::scope(|scope| {
        let path = home.path();
        let done = &done;
        let reader = scope.spawn(move || read_until(done, &path));
        let started = Instant::now();
        let mut rotations = 0;
        while started.elapsed() < Duration::from_secs(2) || rotations < 20 {
            rotations += 1;
            home.file().publish(&token(&format!("token-{rotations}"))).unwrap();
        }
        done.store(true, Ordering::SeqCst);
        (rotations, reader.join().unwrap())
    });
    eprintln!("{test}: {rotations} rotations; the model read {reads} times, without a password {missing}");
    assert_eq!(missing, 0);
    assert!(reads > 0);
    if let Some(child) = libpq.take() {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let numbers: Vec<usize> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
        eprintln!("{test}: libpq read {} times, without a password {}", numbers[0], numbers[1]);
        assert_eq!(numbers[1], 0);
        assert!(numbers[0] > 0);
    }
    home.holds_only(&[".pgpass"]);
}

/// Starts it and waits until it reads. Closing its input (which waiting for it does) stops it.
fn start_libpq_reader(path: &Path) -> Option<std::process::Child> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut child = Command::new("python3")
        .args(["-c", LIBPQ_READER])
        .args([&cases, path])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut ready = [0; 8];
    io::Read::read_exact(child.stdout.as_mut()?, &mut ready).ok()?;
    Some(child)
}

#[test]
fn what_is_on_disk_is_what_was_published() {
    let home = Home::with("*:*:*:*:wild");
    home.file().publish(&token("T")).unwrap();
    let contents = home.file().read().unwrap();
    assert!(matches!(Reading::new(&contents.bytes).current(&key()), Current::Ours { line: 1, .. }));
    assert_eq!(contents.target, home.path());
    assert_eq!(contents.mode, 0o600);
}
