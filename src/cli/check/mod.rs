//! `dbx-rotator check`.

mod beside;
mod kubernetes;
mod local_proxy;
mod surroundings;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use serde::Serialize;

use super::finding::{Finding, Id, Level};
use super::outlook::{Outlook, Whose};
use super::rotate::Error;
use super::{Fault, block_on, print};
use crate::failure::{Code, Failure};
use crate::model::Connection;
use crate::os::clock::{Reading, offset, wrong_by};
use crate::postgres;
use crate::rotation::{ConnectionStatus, Rotation, SideBySide, Snapshot, State};
use crate::service::{self, Account};
use beside::Beside;

/// Something is wrong.
const NOT_WELL: u8 = 1;

/// How long one login may take: an idle endpoint needs a while to wake.
const LIMIT: Duration = Duration::from_secs(60);

/// So many logins are tried at once: those that are refused or asleep keep no other waiting.
const AT_ONCE: usize = 8;

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    connections: Vec<Row<'a>>,
    /// What of the connection service file was left alone or cannot work.
    service_file: &'a [String],
    findings: &'a [Finding],
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
struct Checked {
    name: String,
    state: State,
    result: Result<Option<Login>, Failure>,
    findings: Vec<Finding>,
    offset: Option<SignedDuration>,
}

impl Checked {
    /// The same where some password file is not as the others.
    fn with_what_files_lack(mut self, lacks: Vec<String>) -> Self {
        const HINT: &str = "run `dbx-rotator rotate --if-due`, which writes it there again";
        for lack in lacks {
            self.result = self.result.and_then(|_| Err(Failure::permanent(Code::TryAgain, lack.clone()).hint(HINT)));
            let message = format!("{}: {lack}", self.name);
            self.findings.push(Finding::failed(Id::PasswordLive, message).hint(HINT));
        }
        self
    }
}

/// What is there, and beside it. A rotation writes the password file first: whoever has looked between the two looks once more.
fn settled(rotation: &Rotation) -> Result<(Snapshot, Beside), Failure> {
    const BETWEEN: Duration = Duration::from_secs(1);
    let look = || {
        let snapshot = rotation.snapshot()?;
        let beside = Beside::of(&snapshot);
        Ok::<_, Failure>((snapshot, beside))
    };
    let (snapshot, beside) = look()?;
    if beside.is_well() {
        return Ok((snapshot, beside));
    }
    std::thread::sleep(BETWEEN);
    look()
}

pub(super) fn run(rotation: &Rotation, connect: bool, json: bool) -> Result<u8, Fault> {
    let config = rotation.config();
    let outlook = Outlook::of(rotation, service::look(&config.environment).as_ref(), &Whose::Shell);
    let (snapshot, beside) = settled(rotation)?;
    if connect {
        print::waits("Logging in. A database that is asleep may need a minute.");
    }
    let all = check_each(rotation, &snapshot, connect)?;
    let mut findings: Vec<Finding> = all.iter().flat_map(|checked| checked.findings.iter().cloned()).collect();
    findings.extend(surroundings::of_each(&snapshot));
    findings.extend(beside.findings);
    findings.extend(outlook.findings);
    findings.extend(surroundings::of_all(config, Account::home_of_own().as_deref()));
    findings.extend(local_proxy::findings(config));
    findings.extend(block_on(kubernetes::findings(&snapshot))?);
    findings.extend(clocks(rotation, &snapshot, &all));
    findings.extend(config.ways().map(|way| Finding::ok(Id::Proxy, way)));
    findings.extend(config.notes().iter().map(|note| Finding::ok(Id::UnusedSetting, note)));
    if json {
        let connections = all.iter().map(row).collect();
        print::json(&Answer { version: 1, connections, service_file: &beside.service_file, findings: &findings })?;
    } else {
        let is_said = |finding: &&Finding| !print::is_quiet() || finding.level == Level::Failed;
        print::out(&findings.iter().filter(is_said).map(Finding::line).collect::<String>())?;
    }
    Ok(if findings.iter().any(|finding| finding.level == Level::Failed) { NOT_WELL } else { 0 })
}

fn check_each(rotation: &Rotation, snapshot: &Snapshot, connect: bool) -> Result<Vec<Checked>, Failure> {
    let (connections, now) = (snapshot.connections(), Reading::now());
    let mut looks = SideBySide::new(AT_ONCE);
    for (index, (connection, status)) in connections.iter().zip(&snapshot.statuses).enumerate() {
        let last_error = snapshot.past(index).and_then(|past| past.last_error.as_ref());
        let clock = snapshot.record.clock(rotation.config().workspace_of(connection).host().origin());
        let offset = clock.and_then(|anchor| offset(&now, anchor));
        let lacks = snapshot.what_files_lack(index);
        looks.add(index, async move {
            let checked = look_at(connection, status, last_error, connect).await;
            Checked { offset, ..checked.with_what_files_lack(lacks) }
        });
    }
    block_on(looks.all())
}

/// One for each workspace whose clock is another.
fn clocks(rotation: &Rotation, snapshot: &Snapshot, all: &[Checked]) -> Vec<Finding> {
    let connections = snapshot.connections().iter();
    let origins = connections.map(|connection| rotation.config().workspace_of(connection).host().origin());
    let offsets = all.iter().map(|checked| checked.offset).zip(origins);
    let clocks: BTreeSet<String> = offsets.filter_map(|(offset, origin)| wrong_by(offset?, origin)).collect();
    clocks.into_iter().map(|clock| Finding::warning(Id::Clock, clock)).collect()
}

async fn look_at(
    connection: &Connection,
    status: &ConnectionStatus,
    last_error: Option<&Failure>,
    connect: bool,
) -> Checked {
    let (name, state) = (connection.name().to_owned(), status.state);
    let until = status.token.as_ref().map(|token| print::relative(token.expires_at, status.now));
    let checked = |findings, result| Checked { name: name.clone(), state, result, findings, offset: None };
    let (Some(token), Some(_)) = (&status.token, status.left_to_clients()) else {
        let why = status.reason.clone().unwrap_or_else(|| "no credential is published".to_owned());
        let nobody = format!("{name}: nobody can log in: {why}");
        let (said, failure) = match last_error {
            Some(failure) => (format!("{nobody}; last try failed: {failure}"), failure.clone()),
            None => (nobody, Failure::permanent(Code::TryAgain, why).hint("run `dbx-rotator rotate`")),
        };
        return checked(vec![Finding::failed(Id::PasswordLive, said).hint_of(&failure)], Err(failure));
    };
    let live = format!("{name}: live, expires {}", until.unwrap_or_default());
    let mut findings = vec![match last_error {
        Some(failure) => {
            let said = format!("{live}, but the last try to renew it failed: {failure}");
            Finding::warning(Id::PasswordLive, said).hint_of(failure)
        }
        None => Finding::ok(Id::PasswordLive, live),
    }];
    let Some(target) = connection.login_target().filter(|_| connect) else { return checked(findings, Ok(None)) };
    match postgres::login(&target, &token.password, LIMIT).await {
        Ok(session) => {
            let milliseconds = session.took.as_millis();
            let unproven = match (target.sslmode, target.root) {
                (postgres::SslMode::VerifyFull, _) => "",
                (postgres::SslMode::Require, Some(_)) => "; that it is this host is not checked (sslmode require)",
                (postgres::SslMode::Require, None) => "; whose server it is, is not checked (sslmode require)",
            };
            let what = format!(
                "{name}: logged in to {}:{} as {} in {milliseconds} ms (PostgreSQL {}){unproven}",
                target.host, target.port, target.user, session.server_version
            );
            findings.push(Finding::ok(Id::Login, what));
            checked(findings, Ok(Some(Login { server_version: session.server_version, milliseconds })))
        }
        Err(failure) => {
            findings.push(Finding::failed(Id::Login, format!("{name}: {failure}")).hint_of(&failure));
            checked(findings, Err(failure))
        }
    }
}

fn row(checked: &Checked) -> Row<'_> {
    Row {
        name: &checked.name,
        state: checked.state,
        login: checked.result.as_ref().ok().cloned().flatten(),
        error: checked.result.as_ref().err().map(Error::from),
        clock_offset_seconds: checked.offset.map(|offset| offset.as_secs()),
    }
}
