//! The files that are written: next to other writers, after a process was killed, and when writing fails.

#[path = "files/writers.rs"]
mod writers;

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::{Home, Session, Workspace, dbx_rotator};

/// `dbx-rotator ARGUMENTS` for one instance with these additional settings.
fn rotator<'a>(home: &'a Home, workspace: &Workspace, more: &str, arguments: &[&str]) -> Session<'a> {
    dbx_rotator!(home).args(arguments).for_instance(workspace, more)
}

#[track_caller]
fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(30), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_a_slow_redirection_writes_is_kept_beside_a_timer_and_a_daemon_and_clients_do_not_wait_for_it() {
    for arguments in [&["rotate", "--if-due"][..], &["run"]] {
        let (workspace, home) = (Workspace::start(), Home::new());
        rotator(&home, &workspace, "", &["rotate"]).run().exits(0);
        // What a shell does for `command > ~/.pgpass` before the command writes anything.
        let mut redirected = File::create(home.path(".pgpass")).unwrap();
        let running = rotator(&home, &workspace, "", arguments).spawn();
        until("clients have a password again", || home.pgpass().contains("eyJ"));
        assert!(!running.has_ended(), "somebody still writes");
        redirected.write_all(b"mine:5432:*:bob:pw\nmine too:5432:*:bob:pw\n").unwrap();
        drop(redirected);
        until("what was written is where clients read it", || home.pgpass().contains("mine too:5432:*:bob:pw\n"));
        let outcome = if arguments[0] == "run" { running.terminate() } else { running.ends() };
        outcome.exits(0);
        let text = home.pgpass();
        assert!(text.contains(":eyJ") && text.contains("mine:5432:*:bob:pw\n") && text.lines().count() == 3, "{text}");
        let is_left = || home.files().iter().any(|file| file.to_string_lossy().contains("-new-"));
        // On a busy machine its time may be over before the rest is tidied up: that is for the next one.
        if is_left() {
            rotator(&home, &workspace, "", &["rotate", "--if-due"]).run().exits(0);
        }
        assert!(!is_left(), "{:?}", home.files());
    }
}

#[test]
fn what_a_killed_process_left_goes_with_the_next_run_even_where_nothing_is_due() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let more = "token_file = '~/run/token'\nservice_file = true";
    rotator(&home, &workspace, more, &["rotate"]).run().exits(0);
    let before = home.files();
    let leftovers =
        [".pgpass-new-aB3dE9", ".dbx-rotator-new-x", "run/.dbx-rotator-new-y", ".local/state/dbx-rotator/.recordz"];
    for leftover in leftovers {
        home.write(leftover, "eyJhalf", 0o600);
    }
    rotator(&home, &workspace, more, &["rotate", "--if-due"]).run().exits(0);
    assert_eq!(home.files(), before);
    assert_eq!(workspace.credentials_minted(), 1);
}

#[test]
fn a_new_file_that_a_living_process_is_making_is_left_to_it() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let path = home.write(".pgpass-new-aB3dE9", "eyJhalf", 0o600);
    let file = File::open(&path).unwrap();
    file.lock().unwrap();
    rotator(&home, &workspace, "", &["rotate"]).run().exits(0);
    assert!(path.exists());
    drop(file);
    rotator(&home, &workspace, "", &["rotate"]).run().exits(0);
    assert!(!path.exists());
}

#[test]
fn a_limit_for_the_size_of_files_is_an_error_and_no_end() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let text = "other:5432:*:bob:a-password-of-somebody-else\n".repeat(1_000);
    home.write(".pgpass", &text, 0o600);
    rotator(&home, &workspace, "", &["config", "show"]).run().exits(0);
    // In blocks of 512 or 1,024 bytes.
    let limited = "ulimit -f 16; exec \"$@\"";
    let command = home.command("/bin/sh").args(["-c", limited, "sh", env!("CARGO_BIN_EXE_dbx-rotator"), "rotate"]);
    command.signed_in_to(&workspace).run().exits(73).stderr_has("write the new file");
    assert_eq!(home.pgpass(), text);
    assert!(home.files().iter().all(|file| !file.to_string_lossy().contains("-new-")), "{:?}", home.files());
}

#[test]
fn a_secret_of_somebody_else_is_not_replaced_and_what_we_wrote_is_whatever_it_looks_like() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.keep_secret("dose0123456789abcdef0123456789abcdef");
    let more = "token_file = '~/secret'\nenv_file = '~/env'";
    home.write("secret", "dose0123456789abcdef0123456789abcdef\n", 0o600);
    home.write("env", "PGPASSWORD=dose0123456789abcdef0123456789abcdef\n", 0o600);
    rotator(&home, &workspace, more, &["rotate"]).run().exits(73).stderr_has("something else than a token");
    assert_eq!(home.read("secret"), "dose0123456789abcdef0123456789abcdef\n");
    assert_eq!(home.read("env"), "PGPASSWORD=dose0123456789abcdef0123456789abcdef\n");
    fs::remove_file(home.path("secret")).unwrap();
    fs::write(home.path("env"), "").unwrap();
    for _ in 0..3 {
        rotator(&home, &workspace, more, &["rotate"]).run().exits(0);
        assert!(home.pgpass().contains(&home.read("secret")));
    }
}
