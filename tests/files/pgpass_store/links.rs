//! A path that is a link, or leads to no file.

use std::fs;
use std::os::unix::fs::{FileTypeExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dbx_rotator::pgpass::{FileError, FileFault, PasswordFile};

use super::{Home, OURS, mode, root_or_skip, token};

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
    lchown(home.path(), Some(1234), Some(1234)).unwrap();
    let error = home.file().publish(&token("T")).unwrap_err();
    assert!(matches!(error.fault, FileFault::ForeignLink(_)), "{error}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "root's\n");
    chown(&precious, Some(1234), None).unwrap();
    home.file().publish(&token("T")).unwrap();
}

#[test]
fn a_broken_hard_link_is_told() {
    let home = Home::with_old("");
    let other = home.0.path().join("other");
    fs::hard_link(home.path(), &other).unwrap();
    let published = home.file().publish(&token("new")).unwrap();
    assert!(published.notes[0].contains("2 names (hard links)"), "{:?}", published.notes);
    assert_eq!(fs::read_to_string(other).unwrap(), format!("{OURS}old\n"));
    assert_eq!(home.text(), format!("{OURS}new\n"));
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
fn a_missing_directory_is_told_with_what_to_do() {
    let home = Home::new();
    let path = home.0.path().join("nowhere/.pgpass");
    let error = PasswordFile::new(&path).publish(&token("T")).unwrap_err();
    assert!(matches!(error.fault, FileFault::NoDirectory(_)), "{error}");
    assert!(!error.is_read() && error.hint().contains("mkdir -p"), "{}", error.hint());
}
