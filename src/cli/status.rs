//! `dbx-rotator status`.

use jiff::Timestamp;
use serde::Serialize;

use super::prometheus::{self, Sample};
use super::rotate::Error;
use super::{Fault, print};
use crate::config::Config;
use crate::failure::Failure;
use crate::lakebase::DatabaseInfo;
use crate::model::AuthMethod;
use crate::model::Connection;
use crate::pgpass::Key;
use crate::rotation::{ConnectionRecord, ConnectionStatus, Rotation, Snapshot, State as Stands};
use crate::service::{self, Scope, State, Way};

/// Not every connection is live.
const NOT_ALL_LIVE: u8 = 1;

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    host: Option<&'a str>,
    port: u16,
    database: &'a str,
    user: Option<&'a str>,
    password_file: String,
    state: Stands,
    expires_at: Option<Timestamp>,
    expires_in_seconds: Option<i64>,
    issued_at: Option<Timestamp>,
    source: Option<&'static str>,
    auth: Option<AuthMethod>,
    last_rotation_at: Option<Timestamp>,
    last_attempt_at: Option<Timestamp>,
    last_error: Option<Error<'a>>,
    next_rotation_at: Option<Timestamp>,
    /// What the API said last of how the database does.
    database_state: Option<&'static str>,
    hook_error: Option<Error<'a>>,
    #[serde(skip)]
    database_remark: Option<String>,
}

/// The whole answer as the contract's JSON has it.
#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    connections: Vec<Row<'a>>,
    service: Option<State>,
}

pub(super) fn run(rotation: &Rotation, json: bool, prometheus: bool) -> Result<u8, Fault> {
    let service = service::look(&rotation.config().environment);
    let view = View::of(rotation)?;
    let (rows, all_live) = (view.rows(), view.all_live());
    if prometheus {
        // The metrics say what is not live; whoever collects them must not lose them for it.
        print::out(&prometheus::text(&view.samples(&rows), service.as_ref())?)?;
        return Ok(0);
    }
    if json {
        print::json(&Answer { version: 1, connections: rows, service })?;
    } else {
        print::out(&text(&rows, &view.snapshot.statuses, service.as_ref()))?;
    }
    Ok(if all_live { 0 } else { NOT_ALL_LIVE })
}

/// Prints the table as `status` does; returns whether all are live.
pub(super) fn print_table(rotation: &Rotation, service: Option<&State>) -> Result<bool, Failure> {
    let view = View::of(rotation)?;
    print::out(&text(&view.rows(), &view.snapshot.statuses, service))?;
    Ok(view.all_live())
}

/// Whether each password is live, or a try since then has failed for a reason that needs a person.
pub(super) fn is_settled(rotation: &Rotation, since: Timestamp) -> Result<bool, Failure> {
    let view = View::of(rotation)?;
    Ok(view.all().all(|(index, (_, status))| {
        let known = view.past(index);
        let failed = || known.last_error.as_ref().is_some_and(|error| !error.is_transient());
        status.left_to_clients().is_some() || (known.last_attempt_at.is_some_and(|at| at >= since) && failed())
    }))
}

/// All connections as they stand, with what is known of their past.
struct View {
    snapshot: Snapshot,
    unknown: ConnectionRecord,
}

impl View {
    fn of(rotation: &Rotation) -> Result<Self, Failure> {
        Ok(View { snapshot: rotation.snapshot()?, unknown: ConnectionRecord::default() })
    }

    fn past(&self, index: usize) -> &ConnectionRecord {
        self.snapshot.past(index).unwrap_or(&self.unknown)
    }

    fn all(&self) -> impl Iterator<Item = (usize, (&Connection, &ConnectionStatus))> {
        self.snapshot.connections().iter().zip(&self.snapshot.statuses).enumerate()
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let config = &self.snapshot.config;
        let mut rows = Vec::with_capacity(self.snapshot.statuses.len());
        for (index, (connection, status)) in self.all() {
            let workspace = config.workspace_of(connection);
            let found = self.snapshot.record.lookup(workspace, connection).and_then(|known| known.found.as_ref());
            rows.push(row(config, connection, status, self.past(index), found));
        }
        rows
    }

    fn all_live(&self) -> bool {
        self.snapshot.statuses.iter().all(|status| status.left_to_clients().is_some())
    }

    fn samples<'a>(&'a self, rows: &[Row<'a>]) -> Vec<Sample<'a>> {
        let sample =
            |((index, (connection, status)), row): ((usize, (&'a Connection, &ConnectionStatus)), &Row<'a>)| {
                let known = self.past(index);
                Sample {
                    name: connection.name(),
                    live: status.left_to_clients().is_some(),
                    expires_at: row.expires_at,
                    last_success_at: row.last_rotation_at,
                    next_attempt_at: row.next_rotation_at,
                    transient_failures: known.failures.transient,
                    permanent_failures: known.failures.permanent,
                }
            };
        self.all().zip(rows).map(sample).collect()
    }
}

fn row<'a>(
    config: &Config,
    connection: &'a Connection,
    status: &ConnectionStatus,
    known: &'a ConnectionRecord,
    found: Option<&DatabaseInfo>,
) -> Row<'a> {
    let (key, address) = (connection.key(), &connection.address);
    let token = status.token.as_ref();
    Row {
        name: connection.name(),
        host: key.map(Key::host).or(address.host.as_deref()),
        port: address.port,
        database: &address.database,
        user: key.map(Key::user).or(address.user.as_deref()),
        password_file: config.password_file().display().to_string(),
        state: status.state,
        expires_at: token.map(|token| token.expires_at),
        expires_in_seconds: token.map(|token| token.expires_at.duration_since(status.now).as_secs()),
        issued_at: token.map(|token| token.issued_at),
        source: token.map(|_| known.published.as_ref().map_or(connection.credential, |p| p.source).word()),
        auth: token.and(known.published.as_ref()).map(|published| published.auth),
        last_rotation_at: known.last_rotation_at,
        last_attempt_at: known.last_attempt_at,
        last_error: known.last_error.as_ref().map(Error::from),
        // A retry that was planned by a run that has ended is no plan.
        next_rotation_at: known
            .next_attempt_at
            .filter(|at| *at > Timestamp::now())
            .or(token.map(|token| token.refresh_at)),
        hook_error: known.hook_error.as_ref().map(Error::from),
        database_state: found.map(|found| found.state.word()),
        database_remark: found.and_then(|found| Some(format!("{} {}", found.target, found.state.remark()?))),
    }
}

fn text(connections: &[Row<'_>], statuses: &[ConnectionStatus], service: Option<&State>) -> String {
    let head = ["CONNECTION", "STATE", "EXPIRES", "NEXT ROTATION", "ENTRY"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut remarks = String::new();
    for (row, status) in connections.iter().zip(statuses) {
        let state = match row.state {
            Stands::Live => "live",
            Stands::Due => "due",
            Stands::Expired => "expired",
            Stands::Missing => "missing",
        };
        let when = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| print::relative(at, status.now));
        let next =
            if status.is_due() && row.last_error.is_none() { "now".to_owned() } else { when(row.next_rotation_at) };
        let (host, user) = (row.host.unwrap_or("?"), row.user.unwrap_or("?"));
        let entry = format!("{host}:{}:{}:{user}", row.port, row.database);
        rows.push(vec![row.name.to_owned(), state.to_owned(), when(row.expires_at), next, entry]);
        if let Some(reason) = &status.reason {
            remarks.push_str(&print::line(&format!("{}: due, for {reason}", row.name)));
        }
        if let Some(remark) = &row.database_remark {
            remarks.push_str(&print::line(&format!("{}: {remark}", row.name)));
        }
        if let Some(error) = &row.hook_error {
            remarks.push_str(&print::line(&format!("{}: on_rotate failed: {}", row.name, error.sentence())));
        }
        if let Some(error) = &row.last_error {
            remarks.push_str(&print::line(&format!("{}: last try failed: {}", row.name, error.sentence())));
        }
    }
    let file = connections
        .first()
        .map(|row| print::line(&format!("password file: {}", row.password_file)))
        .unwrap_or_default();
    let service = service.map(|state| service_lines(state, Timestamp::now())).unwrap_or_default();
    format!("{}{file}{service}{remarks}", print::table(&rows))
}

/// How the service manager sees it, for people.
pub(super) fn service_lines(state: &State, now: Timestamp) -> String {
    let manager = match state.scope {
        Scope::User => format!("{}, yours", state.manager),
        Scope::System => format!("{}, the machine's", state.manager),
    };
    let mut parts = vec![format!("{} ({})", state.active_state, state.sub_state)];
    parts.extend((!state.enabled).then(|| "not enabled".to_owned()));
    parts.extend(state.next_run_at.map(|at| format!("next run {}", print::relative(at, now))));
    parts.extend(state.watchdog_seconds.map(|limit| format!("watchdog {limit:.0} s")));
    parts.extend((state.restarts > 0).then(|| format!("restarted {} times", state.restarts)));
    if let (Way::Timer, Some(at), Some(result)) = (state.kind, state.last_run_at, &state.last_result) {
        parts.push(format!("last run {}: {result}", print::relative(at, now)));
    } else if !state.is_up()
        && let Some(result) = &state.last_result
    {
        parts.push(format!("ended: {result}"));
    }
    let mut text = print::line(&format!("service: {} ({manager}): {}", state.unit, parts.join(", ")));
    if let Some(said) = &state.status_text {
        text.push_str(&print::line(&format!("service says: {said}")));
    }
    if state.lacks_namespaces() {
        text.push_str("the unit's sandbox needs user namespaces, which this machine forbids: dbx-rotator service install --relaxed\n");
    }
    text
}
