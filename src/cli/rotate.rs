//! `dbx-rotator rotate`.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::arguments::RotateOptions;
use super::{Fault, block_on_to_the_end, choose, handed_over, print};
use crate::config::ConfigError;
use crate::failure::{Code, Failure, Kind};
use crate::os::zone;
use crate::rotation::{Outcome, Report, RotateRequest, Rotation};

/// With `is_told`, a line for the person at the terminal says what came of it.
pub(super) fn run(options: &RotateOptions, rotation: &Rotation, is_told: bool) -> Result<u8, Fault> {
    if options.token_stdin {
        return handed_over::run(options, rotation, is_told);
    }
    let only = selection(options, rotation)?;
    if options.dry_run {
        return dry_run(options, rotation, only.as_deref());
    }
    let request =
        if options.if_due { RotateRequest::DueBeforeNextRun } else { RotateRequest::All { since: Timestamp::now() } };
    // Decided without a runtime, since a timer that finds nothing due should cost nothing.
    let report = match options.if_due.then(|| rotation.nothing_to_do(&request, only.as_deref())).flatten() {
        Some(report) => report,
        None => block_on_to_the_end(async {
            let report = rotation.rotate(&request, only.as_deref(), options.retry_for).await;
            rotation.settle(&request).await;
            report
        })?,
    };
    if options.json {
        print::json(&Answer { version: 1, connections: report.outcomes().map(row).collect() })?;
    } else if is_told {
        print::out(&print::line(&conclusion(&report, Timestamp::now(), &zone::local())))?;
    }
    Ok(report.exit_code())
}

/// `3 passwords are live until 23:16`: until the first of them dies.
fn conclusion(report: &Report, now: Timestamp, zone: &TimeZone) -> String {
    let expiries: Vec<Option<Timestamp>> = report
        .outcomes()
        .filter_map(|(_, outcome)| match outcome {
            Outcome::Rotated { expires_at } => Some(Some(*expires_at)),
            Outcome::NotDue { expires_at } => Some(*expires_at),
            Outcome::Failed(_) => None,
        })
        .collect();
    let (live, all) = (expiries.len(), report.outcomes().count());
    let count = match (live, all) {
        (1, 1) => "1 password is live".to_owned(),
        (live, all) if live == all => format!("{live} passwords are live"),
        // What was published before may live all the same.
        (0, _) => return "nothing was renewed; `dbx-rotator status` shows what is still live".to_owned(),
        (live, all) => return format!("{live} of {all} passwords are live; `dbx-rotator status` shows the rest"),
    };
    let Some(first) = expiries.into_iter().flatten().min() else { return count };
    format!("{count} until {}", print::clock(first, now, zone))
}

fn selection(options: &RotateOptions, rotation: &Rotation) -> Result<Option<Vec<usize>>, ConfigError> {
    if options.connection.is_empty() {
        return Ok(None);
    }
    let named = options.connection.iter().map(|name| choose::by_name(rotation, name));
    let mut indices = named.collect::<Result<Vec<_>, _>>()?;
    indices.sort_unstable();
    indices.dedup();
    Ok(Some(indices))
}

fn dry_run(options: &RotateOptions, rotation: &Rotation, only: Option<&[usize]>) -> Result<u8, Fault> {
    let snapshot = rotation.snapshot()?;
    let config = rotation.config();
    let mut text = String::new();
    for (index, (connection, status)) in snapshot.connections().iter().zip(&snapshot.statuses).enumerate() {
        if only.is_some_and(|only| !only.contains(&index)) {
            continue;
        }
        let host = config.workspace_of(connection).host();
        let file = config.named_password_files();
        let entry = match connection.key() {
            Some(key) => format!("{key} in {file}"),
            None => format!("an entry in {file}, once its host and user are found"),
        };
        let what = if connection.credential.is_minted() { "a database credential" } else { "a token" };
        let soon_dead = Some("it would be dead before the next run".to_owned());
        let reason = status.reason.clone().or_else(|| soon_dead.filter(|_| status.dies_before_next_run()));
        let line = match (reason, options.if_due) {
            (Some(reason), _) => {
                format!("{}: would rotate: {reason}: {what} of {host} into {entry}", connection.name())
            }
            (None, false) => {
                format!("{}: would rotate, though it is not due: {what} of {host} into {entry}", connection.name())
            }
            (None, true) => format!("{}: not due", connection.name()),
        };
        text.push_str(&print::line(&line));
        for lack in snapshot.what_files_lack(index) {
            text.push_str(&print::line(&format!("{}: would be written again: {lack}", connection.name())));
        }
    }
    print::out(&text)?;
    Ok(0)
}

/// The whole answer in the documented JSON form.
#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    connections: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    outcome: &'static str,
    expires_at: Option<Timestamp>,
    error: Option<Error<'a>>,
}

/// A failure in the documented JSON form.
#[derive(Serialize)]
pub(super) struct Error<'a> {
    kind: Kind,
    code: Code,
    message: &'a str,
    hint: Option<&'a str>,
}

impl Error<'_> {
    /// Whether nothing but a person can end it.
    pub(super) fn needs_person(&self) -> bool {
        self.kind == Kind::Permanent
    }

    /// What went wrong and what to do next.
    pub(super) fn sentence(&self) -> String {
        match self.hint {
            Some(hint) => format!("{} - {hint}", self.message),
            None => self.message.to_owned(),
        }
    }
}

impl<'a> From<&'a Failure> for Error<'a> {
    fn from(failure: &'a Failure) -> Self {
        Error { kind: failure.kind, code: failure.code, message: &failure.message, hint: failure.hint.as_deref() }
    }
}

fn row<'a>((name, outcome): (&'a str, &'a Outcome)) -> Row<'a> {
    match outcome {
        Outcome::Rotated { expires_at } => Row { name, outcome: "rotated", expires_at: Some(*expires_at), error: None },
        Outcome::NotDue { expires_at } => Row { name, outcome: "not-due", expires_at: *expires_at, error: None },
        Outcome::Failed(failure) => Row { name, outcome: "failed", expires_at: None, error: Some(failure.into()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_ends_with_one_line_for_people() {
        let at = |time: &str| time.parse::<Timestamp>().unwrap();
        let rotated = |time: &str| Outcome::Rotated { expires_at: at(time) };
        let failed = || Outcome::Failed(Failure::permanent(Code::Configuration, "x"));
        for (outcomes, line) in [
            (vec![rotated("2026-01-01T23:16:40Z")], "1 password is live until 23:16"),
            (
                vec![rotated("2026-01-01T23:16:40Z"), Outcome::NotDue { expires_at: Some(at("2026-01-01T22:59:59Z")) }],
                "2 passwords are live until 22:59",
            ),
            (vec![rotated("2026-01-02T00:01:00Z")], "1 password is live until 2026-01-02 00:01"),
            (
                vec![rotated("2026-01-01T23:16:40Z"), failed()],
                "1 of 2 passwords are live; `dbx-rotator status` shows the rest",
            ),
            (vec![Outcome::NotDue { expires_at: None }], "1 password is live"),
            (vec![failed(), failed()], "nothing was renewed; `dbx-rotator status` shows what is still live"),
        ] {
            let report = Report::of(outcomes);
            assert_eq!(conclusion(&report, at("2026-01-01T22:00:00Z"), &TimeZone::UTC), line);
        }
    }
}
