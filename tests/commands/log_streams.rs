//! `--log-file` with what is no file: the streams that a container runtime hands to a program, named pipes, devices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use crate::support::{Home, Session, Workspace, dbx_rotator};

/// Runs a program with a stdout of the kind that is named, prints what it wrote there, and ends as it ended.
const WITH_STDOUT: &str = r#"
import os, socket, subprocess, sys
kind, *command = sys.argv[1:]
if "socket" in kind:
    r, w = (end.detach() for end in socket.socketpair())
elif kind == "file":
    w = os.open("out", os.O_WRONLY | os.O_CREAT, 0o644)
    os.fchmod(w, 0o644)
    os.write(w, b"before\n")
    r = os.open("out", os.O_RDONLY)
else:
    r, w = os.pipe()
if kind.startswith("full"):
    os.set_blocking(w, False)
    for size in (4096, 1):
        try:
            while True: os.write(w, b"x" * size)
        except BlockingIOError: pass
    os.set_blocking(w, True)
if kind.startswith("closed"):
    os.close(r)
code = subprocess.call(command, stdout=w)
assert os.get_blocking(w), "its flags are not those of the program alone"
os.close(w)
text = b""
while not kind.startswith("closed"):
    piece = os.read(r, 65536)
    if not piece: break
    text += piece
sys.stdout.buffer.write(text.lstrip(b"x"))
sys.exit(code)
"#;

fn rotate<'a>(home: &'a Home, workspace: &Workspace, session: Session<'a>, log: &str) -> Session<'a> {
    home.watch(workspace);
    session
        .args(["rotate", "--log-file", log])
        .signed_in_to(workspace)
        .env("DATABRICKS_PG_HOST", "db.example.com")
        .env("DATABRICKS_PG_USERNAME", workspace.client_id())
}

#[test]
fn each_name_of_stdout_is_written_to_whatever_stdout_is() {
    let workspace = Workspace::start();
    for kind in ["pipe", "socket", "file", "full pipe", "full socket", "closed pipe", "closed socket"] {
        for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "linked.log"] {
            let home = Home::new();
            std::os::unix::fs::symlink("/dev/stdout", home.path("linked.log")).unwrap();
            let python = home.command("/usr/bin/python3").args(["-c", WITH_STDOUT, kind]);
            let session = python.arg(env!("CARGO_BIN_EXE_dbx-rotator"));
            let outcome = rotate(&home, &workspace, session, name).run();
            outcome.exits(0).stderr_has("Token rotation completed successfully");
            assert!(home.pgpass().contains(":eyJ"), "{kind} {name}\n{outcome}");
            let is_read = !kind.starts_with("full") && !kind.starts_with("closed");
            assert_eq!(
                outcome.stdout.contains("Token rotation completed successfully"),
                is_read,
                "{kind} {name}\n{outcome}"
            );
            if kind == "file" {
                assert!(outcome.stdout.starts_with("before\n2"), "{outcome}");
                assert_eq!(home.mode("out"), 0o644, "it is somebody else's file");
            }
            let left = home.files().iter().any(|file| file.to_string_lossy().contains(".log.1"));
            assert!(!left, "{:?}", home.files());
        }
    }
}

#[test]
fn no_line_goes_to_stderr_twice() {
    let workspace = Workspace::start();
    for name in ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"] {
        let home = Home::new();
        let outcome = rotate(&home, &workspace, dbx_rotator!(home), name).run();
        outcome.exits(0).prints_nothing();
        assert_eq!(outcome.stderr.matches("Token rotation completed successfully").count(), 1, "{name}\n{outcome}");
    }
}

#[test]
fn a_named_pipe_with_and_without_a_reader_ends_no_rotation() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let pipe = home.path("log.pipe");
    home.command("/usr/bin/mkfifo").arg(&pipe).run().exits(0);
    rotate(&home, &workspace, dbx_rotator!(home), pipe.to_str().unwrap()).run().exits(0);
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut reader = fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(&pipe).unwrap();
    rotate(&home, &workspace, dbx_rotator!(home), pipe.to_str().unwrap()).run().exits(0);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.contains("Token rotation completed successfully"), "{text}");
}

#[test]
fn devices_take_lines_and_clash_with_nothing() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let session = rotate(&home, &workspace, dbx_rotator!(home), "/dev/null");
    session.env("DATABRICKS_CONFIG_FILE", "/dev/null").run().exits(0);
    rotate(&home, &workspace, dbx_rotator!(home), "/dev/full").run().exits(0).stderr_has("/dev/full");
}

#[test]
fn a_descriptor_that_is_not_open_is_named() {
    let (workspace, home) = (Workspace::start(), Home::new());
    rotate(&home, &workspace, dbx_rotator!(home), "/dev/fd/9").run().exits(73).stderr_has("/dev/fd/9");
}
