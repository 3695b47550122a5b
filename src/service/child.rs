//! Runs a service manager's own program, to its end or up to a time limit.

use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{Code, Failure};
use crate::words;

/// What a program answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// None if a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

/// Runs it without a terminal. Messages call it `line`.
///
/// # Errors
/// It does not exist; `TryAgain` if it has not ended within `limit`.
pub(super) fn run(mut command: Command, line: &str, limit: Duration) -> Result<Answer, Failure> {
    command.env("LC_ALL", "C.UTF-8");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child =
        command.spawn().map_err(|error| cannot_run(format!("cannot run `{line}`: {}", words::of_io(&error))))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output: Output = match ended.recv_timeout(limit) {
        Ok(output) => output.map_err(|error| cannot_run(format!("`{line}`: {}", words::of_io(&error))))?,
        Err(_) => {
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::TERM);
            }
            let why = format!("`{line}` has not ended after {} s", limit.as_secs());
            return Err(Failure::transient(Code::TryAgain, why));
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Answer { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

/// A manager is not available.
pub(super) fn cannot_run(why: String) -> Failure {
    Failure::permanent(Code::Unavailable, why)
}
