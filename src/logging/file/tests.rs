use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use super::*;
use crate::os::inherited::until;

fn log_in(directory: &Path) -> (PathBuf, LogFile) {
    let path = directory.join("r.log");
    let log = LogFile::open(&path).unwrap();
    (path, log)
}

const LINE: &str = "2026-01-31 12:00:00 - INFO - before\n";

fn fill(path: &Path) {
    let rest = usize::try_from(LARGEST).unwrap() - LINE.len();
    fs::write(path, format!("{LINE}{}", "x".repeat(rest))).unwrap();
}

fn names(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn aside(path: &Path, number: usize) -> PathBuf {
    path.with_extension(format!("log.{number}"))
}

#[test]
fn a_log_that_was_moved_deleted_or_made_anew_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (path, log) = log_in(directory.path());
    assert_eq!(log.write("one\n"), None);
    // As logrotate does with `nocreate`, with `create`, and with `copytruncate`.
    fs::rename(&path, aside(&path, 1)).unwrap();
    assert_eq!(log.write("two\n"), None);
    assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
    fs::rename(&path, aside(&path, 1)).unwrap();
    fs::write(&path, LINE).unwrap();
    assert_eq!(log.write("three\n"), None);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{LINE}three\n"));
    File::create(&path).unwrap();
    assert_eq!(log.write("four\n"), None);
    assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
    fs::remove_file(&path).unwrap();
    assert_eq!(log.write("five\n"), None);
    assert_eq!(fs::read_to_string(&path).unwrap(), "five\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_full_log_is_put_aside_before_the_next_line_whoever_else_writes_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let (path, log) = log_in(directory.path());
    let other = LogFile::open(&path).unwrap();
    fill(&path);
    assert_eq!(log.write(LINE), None);
    assert_eq!(other.write("two\n"), None);
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{LINE}two\n"));
    assert_eq!(fs::metadata(aside(&path, 1)).unwrap().len(), LARGEST);
    assert_eq!(names(directory.path()), ["r.log", "r.log.1"].map(str::to_owned).into());
}

#[test]
fn what_holds_something_else_than_a_log_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kept");
    let large = "a long table\n".repeat(1_000_000);
    for text in ["#!/bin/sh\n", "{\"first\": 1}", "2026-1-1\n", " 2026-01-01", &large] {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let told = LogFile::open(&path).err().unwrap().to_string();
        assert!(told.contains("other than a log"), "{told}");
        assert!(fs::read_to_string(&path).unwrap() == text);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        // The same where it comes there later.
        fs::remove_file(&path).unwrap();
        let log = LogFile::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, text).unwrap();
        assert!(log.write("one\n").is_some_and(|told| told.contains("other than a log")));
        assert!(fs::read_to_string(&path).unwrap() == text);
        fs::remove_file(&path).unwrap();
        assert_eq!(log.write("two\n"), None);
    }
    for text in
        ["", LINE, "\n2026-01-31 12:00:00 - INFO - after a torn line\n", "(3 messages were lost)\n2026-01-31 12:00"]
    {
        fs::write(&path, text).unwrap();
        assert_eq!(LogFile::open(&path).unwrap().write("one\n"), None);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{text}one\n"));
    }
    assert_eq!(names(directory.path()), ["kept".to_owned()].into());
}

#[test]
fn while_another_puts_it_aside_one_goes_on_writing() {
    let directory = tempfile::tempdir().unwrap();
    let (path, log) = log_in(directory.path());
    fill(&path);
    let other = File::open(&path).unwrap();
    other.lock().unwrap();
    assert_eq!(log.write("one\n"), None);
    assert!(!aside(&path, 1).exists());
    drop(other);
    until(|| log.write("two\n").is_none() && fs::read_to_string(&path).unwrap() == "two\n");
}

#[test]
fn names_of_old_logs_that_are_taken_are_let_be() {
    let directory = tempfile::tempdir().unwrap();
    let (path, log) = log_in(directory.path());
    fs::create_dir(aside(&path, 1)).unwrap();
    symlink("/nowhere", aside(&path, 3)).unwrap();
    for number in 0..4 {
        fill(&path);
        assert_eq!(log.write(&format!("{number}\n")), None);
    }
    assert!(aside(&path, 1).is_dir() && aside(&path, 3).is_symlink());
    let expected = ["r.log", "r.log.1", "r.log.2", "r.log.3", "r.log.4", "r.log.5"];
    assert_eq!(names(directory.path()), expected.map(str::to_owned).into());
    assert_eq!(fs::read_to_string(&path).unwrap(), "3\n");
}

#[test]
fn where_it_cannot_be_put_aside_it_grows_and_that_is_told_once() {
    let directory = tempfile::tempdir().unwrap();
    let (path, log) = log_in(directory.path());
    (1..=5).for_each(|number| fs::create_dir(aside(&path, number)).unwrap());
    fill(&path);
    assert!(log.write("one\n").is_some_and(|told| told.contains("r.log")));
    assert_eq!(log.write("two\n"), None);
    assert!(fs::read(&path).unwrap().ends_with(b"xone\ntwo\n"));
    fs::remove_dir(aside(&path, 4)).unwrap();
    assert_eq!(log.write("three\n"), None);
    assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
}

#[test]
fn a_path_that_leads_to_a_directory_by_now_costs_a_word_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let (path, log) = log_in(directory.path());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(log.write("one\n").is_some());
    assert_eq!(log.write("two\n"), None);
    fs::remove_dir(&path).unwrap();
    assert_eq!(log.write("three\n"), None);
    assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
}

#[test]
fn a_pipe_that_nobody_reads_takes_what_it_can_and_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.log");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let log = LogFile::open(&path).unwrap();
    let line = format!("{}\n", "x".repeat(999));
    let begun = Instant::now();
    let told: Vec<String> = (0..300).filter_map(|_| log.write(&line)).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    // One wait, not one for each of the 200 lines that did not fit.
    assert!(begun.elapsed() < Duration::from_secs(15));
    let mut reader =
        OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(&path).unwrap();
    let mut read = Vec::new();
    // It is empty, and not at its end.
    let _ = reader.read_to_end(&mut read);
    assert_eq!(log.write("later\n"), None);
    let _ = reader.read_to_end(&mut read);
    let dropped = 300 - read.len() / line.len();
    let text = String::from_utf8(read).unwrap();
    assert!(text.ends_with(&format!("({dropped} messages were lost: nobody read them)\nlater\n")), "{dropped}");
}

#[test]
fn what_is_no_file_takes_lines_and_is_never_put_aside() {
    let log = LogFile::open(Path::new("/dev/null")).unwrap();
    assert!((0..3).all(|_| log.write("one\n").is_none()));
}

#[test]
fn what_was_written_in_part_does_not_spoil_the_next_line() {
    let directory = tempfile::tempdir().unwrap();
    let (path, log) = log_in(directory.path());
    fs::write(&path, "half of a li").unwrap();
    log.state.lock().unwrap().is_torn = true;
    assert_eq!(log.write("a line\n"), None);
    assert_eq!(log.write("another\n"), None);
    assert_eq!(fs::read_to_string(&path).unwrap(), "half of a li\na line\nanother\n");
}

#[test]
fn a_full_device_is_told_once() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let log = LogFile::open(Path::new("/dev/full")).unwrap();
    assert!(log.write("one\n").is_some_and(|told| told.contains("/dev/full")));
    assert_eq!(log.write("two\n"), None);
}

#[test]
fn root_writes_to_no_file_that_somebody_elses_link_leads_to() {
    use std::os::unix::fs::lchown;
    if !crate::os::identity::is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let (target, link) = (directory.path().join("of-root"), directory.path().join("log"));
    fs::write(&target, "root's\n").unwrap();
    fs::set_permissions(&target, Permissions::from_mode(0o644)).unwrap();
    symlink(&target, &link).unwrap();
    lchown(&link, Some(4711), Some(4711)).unwrap();
    assert_eq!(LogFile::open(&link).map(drop).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(fs::read_to_string(&target).unwrap(), "root's\n");
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o644);
    // Nor is one read.
    fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
    let read = crate::os::files::read_bytes(&link);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::PermissionDenied);
}
