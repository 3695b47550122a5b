//! Asks the real libpq how it reads a service file.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Deserialize;
use serde_json::json;

use crate::support::skip;

/// What libpq reads from a section, or why it refuses it.
pub(crate) type Answer = Result<BTreeMap<String, String>, String>;

#[derive(Deserialize)]
struct Told {
    error: Option<String>,
    settings: BTreeMap<String, String>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/libpq_services.py")
}

/// Whether there is a libpq to ask; if not, says so.
pub(crate) fn libpq_or_skip(test: &str) -> bool {
    let output = Command::new("python3").arg(script()).arg("--version").output();
    let is_there = output.is_ok_and(|output| output.status.success());
    if !is_there {
        skip(test, "python3 or libpq.so.5 is missing");
    }
    is_there
}

/// Asks about all of these files and names, in one process.
pub(crate) fn ask(questions: &[(Vec<u8>, &str)]) -> Vec<Answer> {
    let mut command = Command::new("python3");
    command.arg(script()).stdin(Stdio::piped()).stdout(Stdio::piped());
    if Path::new("/dev/shm").is_dir() {
        command.env("TMPDIR", "/dev/shm");
    }
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        scope.spawn(move || {
            for (file, service) in questions {
                let line = json!({"file_b64": BASE64_STANDARD.encode(file), "service": service});
                writeln!(input, "{line}").unwrap();
            }
        });
        let answer = |line: String| {
            let Told { error, settings } = serde_json::from_str(&line).unwrap();
            error.map_or(Ok(settings), Err)
        };
        output.lines().map(|line| answer(line.unwrap())).collect()
    });
    assert!(child.wait().unwrap().success());
    assert_eq!(answers.len(), questions.len());
    answers
}
