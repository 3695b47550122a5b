//! Printing, where a closed pipe is no error, and the words for times.

use std::io::{self, Write};

use jiff::{SignedDuration, Timestamp};

use crate::failure::{Code, Failure};

/// Prints to stdout. A reader that has gone away (`| head`) has had enough.
///
/// # Errors
/// Anything else that keeps the text from being written, such as a full disk.
pub(super) fn out(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::permanent(Code::CannotWrite, format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints JSON to stdout.
///
/// # Errors
/// As [`out`].
pub(super) fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    // Plain structs with string keys cannot fail to serialize.
    out(&format!("{}\n", serde_json::to_string(value).unwrap_or_default()))
}

/// Prints what went wrong and what to do next to stderr.
pub(super) fn error(message: &str, hint: Option<&str>) {
    let hint = hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
    let _ = io::stderr().write_all(format!("error: {message}\n{hint}").as_bytes());
}

/// Prints what works but is unwise to stderr.
pub(super) fn warning(message: &str) {
    let _ = io::stderr().write_all(format!("warning: {message}\n").as_bytes());
}

/// `in 40 min`, `2 h 5 min ago`.
pub(super) fn relative(at: Timestamp, now: Timestamp) -> String {
    let distance = at.duration_since(now);
    let length = duration(distance.abs());
    if distance.is_negative() { format!("{length} ago") } else { format!("in {length}") }
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

/// Columns as wide as their widest cell, two blanks apart, none at the end of a line.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
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
        assert_eq!(relative(at(0), at(59)), "59 s ago");
        assert_eq!(duration(SignedDuration::from_secs(7_500)), "2 h 5 min");
        assert_eq!(duration(SignedDuration::from_secs(270_000)), "3 d 3 h");
    }
}
