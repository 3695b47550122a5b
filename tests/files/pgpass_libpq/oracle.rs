//! Asks the real libpq which password it picks.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use super::SEED;
use crate::support::skip;

pub(crate) fn oracle_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/libpq_oracle.py")
}

/// The socket directory that this libpq treats as localhost; `None`, and a message, if there is no libpq to ask.
pub(crate) fn libpq_or_skip(test: &str) -> Option<Vec<u8>> {
    let output = Command::new("python3").arg(oracle_path()).arg("--version").output();
    let reason = match output {
        Err(error) => format!("python3 does not run: {error}"),
        Ok(output) if !output.status.success() => "libpq.so.5 cannot be loaded".to_owned(),
        Ok(output) => {
            let version: Value = serde_json::from_slice(&output.stdout).unwrap();
            let directory = version["default_socket_dir"][0].as_str().unwrap().as_bytes().to_vec();
            eprintln!("{test}: libpq {}, seed {SEED:#x}", version["version"]);
            return Some(directory);
        }
    };
    skip(test, &reason);
    None
}

/// One question: a file and a connection.
pub(crate) struct Question {
    pub(crate) file: Vec<u8>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) user: String,
}

/// Asks libpq about all of them, in one process.
pub(crate) fn ask_libpq(questions: &[Question]) -> Vec<Option<Vec<u8>>> {
    let mut command = Command::new("python3");
    command.arg(oracle_path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    if Path::new("/dev/shm").is_dir() {
        command.env("TMPDIR", "/dev/shm");
    }
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let answers: Vec<_> = std::thread::scope(|scope| {
        scope.spawn(move || {
            for Question { file, host, port, database, user } in questions {
                let file = BASE64_STANDARD.encode(file);
                let line = json!({"file_b64": file, "host": host, "port": port, "database": database, "user": user});
                writeln!(input, "{line}").unwrap();
            }
        });
        output.lines().map(|line| answer(&serde_json::from_str(&line.unwrap()).unwrap())).collect()
    });
    assert!(child.wait().unwrap().success());
    assert_eq!(answers.len(), questions.len());
    answers
}

pub(crate) fn answer(line: &Value) -> Option<Vec<u8>> {
    match (&line["expect"], &line["expect_b64"]) {
        (Value::String(text), _) => Some(text.clone().into_bytes()),
        (_, Value::String(text)) => Some(BASE64_STANDARD.decode(text).unwrap()),
        _ => None,
    }
}
