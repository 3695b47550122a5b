//! `dbx-rotator check`.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use serde::Serialize;

use super::outlook::{Outlook, Remark, Weight, Whose};
use super::rotate::Error;
use super::{Fault, block_on, print};
use crate::failure::{Code, Failure};
use crate::model::{Connection, Listing};
use crate::os::clock::{Reading, offset, wrong_by};
use crate::postgres;
use crate::rotation::{ConnectionStatus, Rotation, State};
use crate::service;

/// Something is wrong.
const NOT_WELL: u8 = 1;

/// How long one login may take: an idle endpoint needs a while to wake.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    connections: Vec<Row<'a>>,
    /// What of the connection service file was left alone or cannot work.
    service_file: &'a [String],
    /// What is wrong, or may be, with what renews the passwords.
    service: &'a [Remark],
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    state: State,
    login: Option<Login>,
    error: Option<Error<'a>>,
    /// How far the workspace's clock is ahead of this machine's, where that is known.
    clock_offset_seconds: Option<i64>,
}

#[derive(Clone, Serialize)]
struct Login {
    server_version: String,
    milliseconds: u128,
}

/// How one connection was found.
struct Finding {
    name: String,
    state: State,
    result: Result<Option<Login>, Failure>,
    /// In words, but for the hint.
    said: String,
    offset: Option<SignedDuration>,
}

pub(super) fn run(rotation: &Rotation, connect: bool, json: bool) -> Result<u8, Fault> {
    let outlook = Outlook::of(rotation, service::look(&rotation.config().environment).as_ref(), Whose::OfThisShell);
    let snapshot = rotation.snapshot()?;
    let connections = snapshot.connections();
    let now = Reading::now();
    let findings = block_on(async {
        let mut all = Vec::with_capacity(connections.len());
        for (index, (connection, status)) in connections.iter().zip(&snapshot.statuses).enumerate() {
            let last_error = snapshot.past(index).and_then(|past| past.last_error.as_ref());
            let clock = snapshot.record.clock(rotation.config().workspace_of(connection).host().origin());
            let offset = clock.and_then(|anchor| offset(&now, anchor));
            all.push(Finding { offset, ..look_at(connection, status, last_error, connect).await });
        }
        all
    })?;
    let remarks = |wanted: fn(Listing) -> bool| snapshot.service_file_remarks(wanted).unwrap_or_default();
    let service_file = remarks(|listing| listing != Listing::No);
    if json {
        let connections = findings.iter().map(row).collect();
        print::json(&Answer { version: 1, connections, service_file: &service_file, service: &outlook.remarks })?;
    } else {
        let origins = connections.iter().map(|connection| rotation.config().workspace_of(connection).host().origin());
        let offsets = findings.iter().map(|finding| finding.offset).zip(origins);
        let clocks: BTreeSet<String> = offsets.filter_map(|(offset, origin)| wrong_by(offset?, origin)).collect();
        let notes = rotation.config().notes().iter().chain(&clocks).map(|note| format!("note: {note}\n"));
        let remarks = service_file.iter().map(|remark| print::line(&format!("service file: {remark}")));
        let outlook = [outlook.text(Weight::Note)];
        print::out(&findings.iter().map(sentence).chain(remarks).chain(outlook).chain(notes).collect::<String>())?;
    }
    // A section that nobody asked for may be missing.
    let is_listed = remarks(|listing| listing == Listing::Asked).is_empty();
    Ok(if is_listed && !outlook.has_fault() && findings.iter().all(|finding| finding.result.is_ok()) {
        0
    } else {
        NOT_WELL
    })
}

async fn look_at(
    connection: &Connection,
    status: &ConnectionStatus,
    last_error: Option<&Failure>,
    connect: bool,
) -> Finding {
    let (name, state) = (connection.name().to_owned(), status.state);
    let until = status.token.as_ref().map(|token| print::relative(token.expires_at, status.now));
    let finding = |said: String, result| Finding { name, state, result, said, offset: None };
    let (Some(token), Some(_)) = (&status.token, status.left_to_clients()) else {
        let why = status.reason.clone().unwrap_or_else(|| "no credential is published".to_owned());
        let nobody = format!("nobody can log in: {why}");
        return match last_error {
            Some(failure) => finding(format!("{nobody}; last try failed: {failure}"), Err(failure.clone())),
            None => {
                let failure = Failure::permanent(Code::TryAgain, why).hint("run `dbx-rotator rotate`");
                finding(nobody, Err(failure))
            }
        };
    };
    let live = format!("live, expires {}", until.unwrap_or_default());
    let Some(target) = connection.login_target().filter(|_| connect) else { return finding(live, Ok(None)) };
    match postgres::login(&target, &token.password, LIMIT).await {
        Ok(session) => {
            let milliseconds = session.took.as_millis();
            let unproven = match (target.sslmode, target.root) {
                (postgres::SslMode::VerifyFull, _) => "",
                (postgres::SslMode::Require, Some(_)) => "; that it is this host is not checked (sslmode require)",
                (postgres::SslMode::Require, None) => "; whose server it is, is not checked (sslmode require)",
            };
            let what = format!(
                "{live}; logged in to {}:{} as {} in {milliseconds} ms (PostgreSQL {}){unproven}",
                target.host, target.port, target.user, session.server_version
            );
            finding(what, Ok(Some(Login { server_version: session.server_version, milliseconds })))
        }
        Err(failure) => finding(format!("{live}, but {failure}"), Err(failure)),
    }
}

fn row(finding: &Finding) -> Row<'_> {
    Row {
        name: &finding.name,
        state: finding.state,
        login: finding.result.as_ref().ok().cloned().flatten(),
        error: finding.result.as_ref().err().map(Error::from),
        clock_offset_seconds: finding.offset.map(|offset| offset.as_secs()),
    }
}

fn sentence(finding: &Finding) -> String {
    let Finding { name, said, result, .. } = finding;
    let hint = result.as_ref().err().and_then(|failure| failure.hint.as_deref());
    let hint = hint.map(|hint| print::line(&format!("hint: {hint}"))).unwrap_or_default();
    format!("{}{hint}", print::line(&format!("{name}: {said}")))
}
