//! Prints to stdout and stderr. A closed pipe is not an error. Also the words for times.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::config::ConfigError;
use crate::failure::{Code, Failure};
use crate::foreign;
use crate::logging::json;
use crate::words;

/// Whether only what went wrong is said.
static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on only what was asked for is printed, and what went wrong.
pub(super) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// See [`be_quiet`].
pub(super) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Prints to stdout, as [`out`] does, what nobody misses who only wants to know what went wrong.
///
/// # Errors
/// As [`exactly`].
pub(super) fn news(text: &str) -> Result<(), Failure> {
    if is_quiet() { Ok(()) } else { out(text) }
}

/// Prints our own lines to stdout, without secrets and invisible characters. Foreign text must be on one line ([`line()`],
/// [`table`]).
///
/// # Errors
/// As [`exactly`].
pub(super) fn out(text: &str) -> Result<(), Failure> {
    exactly(&foreign::lines(text))
}

/// Prints a text to stdout unchanged: a secret that was asked for, or another program's format. A reader that has gone away (`| head`) is
/// not an error.
///
/// # Errors
/// Anything else that prevents writing the text, such as a full disk.
pub(super) fn exactly(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// What came of writing to stdout.
fn written(end: io::Result<()>) -> Result<(), Failure> {
    match end {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::permanent(
            Code::CannotWrite,
            format!("cannot write to standard output: {}", words::of_io(&error)),
        )),
        _ => Ok(()),
    }
}

/// Prints JSON to stdout, without secrets.
///
/// # Errors
/// As [`exactly`].
pub(super) fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    // Plain structs with string keys cannot fail to serialize.
    exactly(&format!("{}\n", json::line(value).unwrap_or_default()))
}

/// Prints JSON to stdout with the secret that was asked for.
///
/// # Errors
/// As [`exactly`].
pub(super) fn json_with_secrets(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = json::line_with_secrets(value).unwrap_or_default();
    exactly(&text)?;
    exactly("\n")
}

/// Prints a failure and the next step to stderr, one line each.
pub(super) fn error(message: &str, hint: Option<&str>) {
    let hint = hint.map(|hint| format!("hint: {}\n", foreign::line(hint))).unwrap_or_default();
    to_stderr(&format!("error: {}\n{hint}", foreign::line(message)));
}

/// Prints a fault of the configuration to stderr, with the line it is in.
pub(super) fn fault(fault: &ConfigError) {
    to_stderr(&format!("error: {}\n", foreign::lines(&fault.to_string())));
}

/// Prints a warning to stderr about something that works but is unwise.
pub(super) fn warning(message: &str) {
    if is_quiet() {
        return;
    }
    to_stderr(&format!("warning: {}\n", foreign::line(message)));
}

/// Prints clap's message about the command line: in colour, or without if it may quote invisible characters. Help that was asked for
/// goes to stdout.
///
/// # Errors
/// As [`exactly`], where it was asked for.
pub(super) fn usage(error: &clap::Error) -> Result<(), Failure> {
    let is_printable = |word: OsString| word.to_str().is_some_and(|word| word.chars().all(foreign::is_printable));
    if !error.use_stderr() {
        return written(error.print().and_then(|()| io::stdout().flush()));
    }
    if std::env::args_os().all(is_printable) {
        let _ = error.print();
    } else {
        to_stderr(&foreign::lines(&error.render().to_string()));
    }
    Ok(())
}

/// Prints a page of help to stdout, or what is wrong with the command line to stderr. It may quote what was typed.
///
/// # Errors
/// As [`exactly`], where it was asked for.
pub(super) fn page(text: &str, asked_for: bool) -> Result<(), Failure> {
    if asked_for {
        return out(text);
    }
    to_stderr(&foreign::lines(text));
    Ok(())
}

/// Tells a person at a terminal what is waited for. Nobody else sees it.
pub(super) fn waits(what: &str) {
    if !is_quiet() && io::stderr().is_terminal() {
        to_stderr(&format!("{what}\n"));
    }
}

fn to_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// One line of foreign text, with its line end.
pub(super) fn line(text: &str) -> String {
    format!("{}\n", foreign::line(text))
}

/// `in 40 min`, `2 h 5 min ago`.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    let distance = at.duration_since(now);
    let length = duration(distance.abs());
    if distance.is_negative() { format!("{length} ago") } else { format!("in {length}") }
}

/// `14:32, in 40 min`; with its day where that is not today.
pub(super) fn moment(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    format!("{}, {}", clock(at, now, zone), relative(at, now))
}

/// `14:32`, or `2026-01-01 14:32` where that is not today.
pub(super) fn clock(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let (at, today) = (at.to_zoned_datetime(zone.clone()), now.to_zoned_datetime(zone.clone()).date());
    let format = if at.date() == today { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    at.strftime(format).to_string()
}

/// `59 s`, `40 min`, `2 h 5 min`, `3 d 4 h`.
pub(super) fn duration(length: SignedDuration) -> String {
    let seconds = length.as_secs();
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Columns as wide as their widest cell, with two blanks between them and none at the end of a line. Each cell is made one
/// line.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let cells = |row: &Vec<String>| row.iter().map(|cell| foreign::line(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect::<String>();
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_say_them() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(relative(at(2_400), at(0)), "in 40 min");
        assert_eq!(moment(at(86_399), at(83_999), &TimeZone::UTC), "23:59, in 40 min");
        assert_eq!(moment(at(0), at(86_400), &TimeZone::UTC), "1970-01-01 00:00, 24 h 0 min ago");
        assert_eq!(relative(at(0), at(59)), "59 s ago");
        assert_eq!(duration(SignedDuration::from_secs(7_500)), "2 h 5 min");
        assert_eq!(duration(SignedDuration::from_secs(270_000)), "3 d 3 h");
    }
}
