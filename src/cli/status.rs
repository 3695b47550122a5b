//! `dbx-rotator status`.

use jiff::Timestamp;
use serde::Serialize;

use super::print::Answer;
use super::rotate::Error;
use super::{Fault, print};
use crate::auth::Method;
use crate::config::{Config, Connection};
use crate::rotation::{ConnectionRecord, Rotator, Standing, State};

/// Not every connection is live.
const NOT_ALL_LIVE: u8 = 1;

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    host: &'a str,
    port: u16,
    database: &'a str,
    user: &'a str,
    password_file: String,
    state: State,
    expires_at: Option<Timestamp>,
    expires_in_seconds: Option<i64>,
    issued_at: Option<Timestamp>,
    source: Option<&'static str>,
    auth: Option<Method>,
    last_rotation_at: Option<Timestamp>,
    last_attempt_at: Option<Timestamp>,
    last_error: Option<Error<'a>>,
    next_rotation_at: Option<Timestamp>,
}

pub(super) fn run(rotator: &Rotator, json: bool) -> Result<u8, Fault> {
    let record = rotator.record();
    let standings = rotator.standings(&record)?;
    let config = rotator.config();
    let unknown = ConnectionRecord::default();
    let row = |(connection, standing)| {
        row(config, connection, standing, record.connection(config, connection).unwrap_or(&unknown))
    };
    let answer: Answer<Row<'_>> = config.connections().iter().zip(&standings).map(row).collect();
    if json {
        print::json(&answer)?;
    } else {
        print::out(&text(&answer, &standings))?;
    }
    let all_live = standings
        .iter()
        .all(|standing| matches!(standing.state, State::Live | State::Due) && standing.left().is_some());
    Ok(if all_live { 0 } else { NOT_ALL_LIVE })
}

fn row<'a>(config: &Config, connection: &'a Connection, standing: &Standing, known: &'a ConnectionRecord) -> Row<'a> {
    let key = connection.key();
    let token = standing.token.as_ref();
    Row {
        name: connection.name(),
        host: key.host(),
        port: key.port(),
        database: key.database(),
        user: key.user(),
        password_file: config.password_file().display().to_string(),
        state: standing.state,
        expires_at: token.map(|token| token.expires_at),
        expires_in_seconds: token.map(|token| token.expires_at.duration_since(standing.now).as_secs()),
        issued_at: token.map(|token| token.issued_at),
        source: token.map(|_| "workspace-token"),
        auth: token.and(known.published.as_ref()).map(|published| published.auth),
        last_rotation_at: known.last_rotation_at,
        last_attempt_at: known.last_attempt_at,
        last_error: known.last_error.as_ref().map(Error::from),
        // A retry that was planned by a run that has ended is no plan.
        next_rotation_at: known
            .next_attempt_at
            .filter(|at| *at > Timestamp::now())
            .or(token.map(|token| token.refresh_at)),
    }
}

fn text(answer: &Answer<Row<'_>>, standings: &[Standing]) -> String {
    let head = ["CONNECTION", "STATE", "EXPIRES", "NEXT ROTATION", "ENTRY"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut remarks = String::new();
    for (row, standing) in answer.connections.iter().zip(standings) {
        let state = match row.state {
            State::Live => "live",
            State::Due => "due",
            State::Expired => "expired",
            State::Missing => "missing",
        };
        let when = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| print::relative(at, standing.now));
        let next =
            if standing.is_due() && row.last_error.is_none() { "now".to_owned() } else { when(row.next_rotation_at) };
        let entry = format!("{}:{}:{}:{}", row.host, row.port, row.database, row.user);
        rows.push(vec![row.name.to_owned(), state.to_owned(), when(row.expires_at), next, entry]);
        if let Some(reason) = &standing.reason {
            remarks.push_str(&format!("{}: due, for {reason}\n", row.name));
        }
        if let Some(error) = &row.last_error {
            remarks.push_str(&format!("{}: last try failed: {}\n", row.name, error.sentence()));
        }
    }
    let file =
        answer.connections.first().map(|row| format!("password file: {}\n", row.password_file)).unwrap_or_default();
    format!("{}{file}{remarks}", print::table(&rows))
}
