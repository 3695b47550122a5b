//! How often the files that decide are read: each look reads them once, so that what it decides is about one state of them.

use std::time::Duration;

use super::stage::{PASSWORDS, RECORD, Stage};
use super::trace::{can_trace, opened};

/// How often these files were opened under their own names: for the password file and for the record.
fn counts(opened: &[String]) -> (usize, usize) {
    let of = |name: &str| opened.iter().filter(|path| path.ends_with(&format!("/{name}"))).count();
    (of(PASSWORDS), of(RECORD))
}

#[test]
fn a_rotation_opens_the_password_file_three_times_at_most_and_reads_the_record_once() {
    if !can_trace("a_rotation_opens_the_password_file_three_times_at_most_and_reads_the_record_once") {
        return;
    }
    let stage = Stage::new();
    stage.rotate().run().exits(0);
    let (paths, outcome) = opened(|strace| stage.by(strace, &["rotate"]).run());
    outcome.exits(0);
    let (passwords, record) = counts(&paths);
    assert!(passwords <= 3 && record == 1, "{passwords} and {record} times\n{}", paths.join("\n"));
    // Nothing is due then.
    let (paths, outcome) = opened(|strace| stage.by(strace, &["rotate", "--if-due"]).run());
    outcome.exits(0);
    assert_eq!(counts(&paths), (1, 1), "{}", paths.join("\n"));
}

#[test]
fn a_daemon_at_rest_reads_both_once_each_time_it_looks() {
    if !can_trace("a_daemon_at_rest_reads_both_once_each_time_it_looks") {
        return;
    }
    let stage = Stage::new();
    stage.rotate().run().exits(0);
    let socket = stage.home.path("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (paths, outcome) = opened(|strace| {
        let running = stage.by(strace, &["run"]).env("NOTIFY_SOCKET", &socket).spawn();
        let mut heard = [0; 4_096];
        loop {
            let length = manager.recv(&mut heard).expect("it is ready");
            if String::from_utf8_lossy(&heard[..length]).contains("READY=1") {
                break;
            }
        }
        running.terminate()
    });
    outcome.exits(0);
    assert_eq!(counts(&paths), (1, 1), "{}", paths.join("\n"));
}
