//! `dbx-rotator status`.

mod glance;
pub(super) mod watch;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::arguments::{Alive, StatusOptions};
use super::outlook::{Outlook, Whose};
use super::prometheus::{self, Sample};
use super::rotate::Error;
use super::screen::Screen;
use super::{Fault, choose, print};
use crate::failure::Failure;
use crate::lakebase::DatabaseInfo;
use crate::model::AuthMethod;
use crate::model::Connection;
use crate::model::token::fingerprint;
use crate::os::dirs::Environment;
use crate::pgpass::Key;
use crate::proxy::{Figures, told};
use crate::rotation::{
    ConnectionRecord, ConnectionStatus, PROXY, Rotation, Running, SecretState, Snapshot, State as Stands,
};
use crate::service::{Scope, State, Way};
use glance::Glance;

/// Not every password is live, or what is set up to renew them does not work.
const NOT_WELL: u8 = 1;

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    host: Option<&'a str>,
    port: u16,
    database: &'a str,
    user: Option<&'a str>,
    password_file: String,
    /// All of them; `password_file` is the first.
    password_files: Vec<File<'a>>,
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
    /// Whether anything will renew it.
    renewed: bool,
    /// What the API said last of how the database does.
    database_state: Option<&'static str>,
    hook_error: Option<Error<'a>>,
    /// The Secret of Kubernetes that it is written to, if there is one.
    kubernetes_secret: Option<Secret<'a>>,
    #[serde(skip)]
    database_remark: Option<String>,
}

/// How a connection stands in one password file.
#[derive(Serialize)]
struct File<'a> {
    path: String,
    state: Stands,
    reason: Option<&'a str>,
}

/// How the Secret of a connection stood when it was looked at last.
#[derive(Serialize)]
struct Secret<'a> {
    name: String,
    state: SecretState,
    seen_at: Option<Timestamp>,
    error: Option<Error<'a>>,
}

/// Who of several replicas writes Secrets.
#[derive(Serialize)]
struct Lease<'a> {
    name: &'a str,
    ours: bool,
    holder: Option<&'a str>,
}

/// The whole answer as the contract's JSON has it.
#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    connections: Vec<Row<'a>>,
    service: Option<&'a State>,
    /// What the local proxy tells, if there ever was one.
    proxy: Option<Proxy<'a>>,
    /// By which of several replicas one alone writes Secrets, if there is one.
    lease: Option<Lease<'a>>,
}

#[derive(Serialize)]
struct Proxy<'a> {
    running: bool,
    #[serde(flatten)]
    figures: &'a Figures,
}

/// Whether the loop of `run`, or of a proxy, comes round, whatever it has come to. A restart mends nothing else.
pub(super) fn alive(what: Alive, directory: &Path) -> Result<u8, Fault> {
    let beat = match what {
        Alive::Run => Running::last_beat(directory),
        // It marks itself when its sockets are open.
        Alive::Proxy => Running::last_beat_as(PROXY, directory),
    };
    let (line, code) = match beat {
        Some(Ok(since)) => (format!("alive: last seen {} s ago", since.as_secs()), 0),
        Some(Err(since)) => (format!("hangs: last seen {} s ago", since.as_secs()), NOT_WELL),
        None => (format!("nothing runs here that keeps its record in {}", directory.display()), NOT_WELL),
    };
    print::out(&print::line(&line))?;
    Ok(code)
}

pub(super) fn run(
    options: &StatusOptions,
    rotation: &Rotation,
    service: Option<&State>,
    whose: &Whose,
) -> Result<u8, Fault> {
    let only = options.connection.as_deref().map(|name| choose::by_name(rotation, name)).transpose()?;
    let view = View { only, ..View::of(rotation, service, whose)? };
    let (rows, is_well) = (view.rows(), view.all_live() && view.all_secrets() && !view.outlook.has_failed());
    if options.prometheus {
        // The metrics say what is not live; whoever collects them must not lose them for it.
        print::out(&prometheus::text(&view.samples(&rows), service, view.proxy.as_ref())?)?;
        return Ok(0);
    }
    if options.json {
        let proxy = view.proxy.as_ref().map(|(figures, running)| Proxy { running: *running, figures });
        let lease = view.lease();
        print::json(&Answer { version: 1, connections: rows, service, proxy, lease })?;
    } else {
        print_for_people(&rows, &view, service)?;
    }
    Ok(if is_well { 0 } else { NOT_WELL })
}

/// Prints the table as `status` does; returns whether all are live.
pub(super) fn print_table(rotation: &Rotation, service: Option<&State>) -> Result<bool, Failure> {
    let view = View::of(rotation, service, &Whose::Service)?;
    print_for_people(&view.rows(), &view, service)?;
    Ok(view.all_live())
}

fn print_for_people(rows: &[Row<'_>], view: &View, service: Option<&State>) -> Result<(), Failure> {
    let screen = Screen::of_stdout(&Environment::of_this_process());
    print::exactly(&Glance::of(rows, view, service, &screen).text(&screen))
}

/// Whether each password is live, or a try since `since` has failed for a reason that needs a person.
pub(super) fn is_settled(rotation: &Rotation, since: Timestamp) -> Result<bool, Failure> {
    let (snapshot, unknown) = (rotation.snapshot()?, ConnectionRecord::default());
    Ok(snapshot.statuses.iter().enumerate().all(|(index, status)| {
        let known = snapshot.past(index).unwrap_or(&unknown);
        let failed = || known.last_error.as_ref().is_some_and(|error| !error.is_transient());
        status.left_to_clients().is_some() || (known.last_attempt_at.is_some_and(|at| at >= since) && failed())
    }))
}

/// The state of all connections, with what is known of their past.
struct View {
    snapshot: Snapshot,
    /// As the clients see them that are worst off.
    statuses: Vec<ConnectionStatus>,
    unknown: ConnectionRecord,
    outlook: Outlook,
    /// What the proxy told, and whether it runs.
    proxy: Option<(Figures, bool)>,
    /// The only connection that is wanted, by its place in the configuration.
    only: Option<usize>,
}

impl View {
    fn of(rotation: &Rotation, service: Option<&State>, whose: &Whose) -> Result<Self, Failure> {
        let outlook = Outlook::of(rotation, service, whose);
        let snapshot = rotation.snapshot()?;
        let statuses = (0..snapshot.statuses.len()).map(|index| snapshot.worst_status(index)).collect();
        let proxy = told(&rotation.config().state_dir);
        Ok(View { snapshot, statuses, unknown: ConnectionRecord::default(), outlook, proxy, only: None })
    }

    fn past(&self, index: usize) -> &ConnectionRecord {
        self.snapshot.past(index).unwrap_or(&self.unknown)
    }

    fn all(&self) -> impl Iterator<Item = (usize, (&Connection, &ConnectionStatus))> {
        let all = self.snapshot.connections().iter().zip(&self.statuses).enumerate();
        all.filter(|(index, _)| self.only.is_none_or(|only| only == *index))
    }

    fn rows(&self) -> Vec<Row<'_>> {
        let config = &self.snapshot.config;
        let mut rows = Vec::with_capacity(self.statuses.len());
        for (index, (connection, status)) in self.all() {
            let workspace = config.workspace_of(connection);
            let found = self.snapshot.record.lookup(workspace, connection).and_then(|known| known.found.as_ref());
            let renewed = self.outlook.renews(index);
            rows.push(row(self.files(index), (connection, status), self.past(index), found, renewed));
        }
        rows
    }

    /// How a connection stands in each password file.
    fn files(&self, index: usize) -> Vec<File<'_>> {
        let one = |(file, path): (usize, &PathBuf)| {
            let status = self.snapshot.status_in(file, index);
            File { path: path.display().to_string(), state: status.state, reason: status.reason.as_deref() }
        };
        self.snapshot.config.password_files().iter().enumerate().map(one).collect()
    }

    fn all_live(&self) -> bool {
        self.all().all(|(_, (_, status))| status.left_to_clients().is_some())
    }

    /// Whether no Secret lacks what it should hold. One that is just being written holds the credential before, which lives as well.
    fn all_secrets(&self) -> bool {
        self.all().all(|(index, (connection, _))| {
            let secret = connection.outputs.kubernetes_secret.as_ref().map(|secret| secret.name.to_string());
            secret.is_none_or(|name| self.past(index).has_secret(&name))
        })
    }

    fn lease(&self) -> Option<Lease<'_>> {
        // What was noted for a configuration with Secrets is of no account without any.
        let lease = self.snapshot.record.lease.as_ref().filter(|_| self.snapshot.config.has_secrets())?;
        Some(Lease { name: &lease.name, ours: lease.is_ours, holder: lease.holder.as_deref() })
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
                    is_in_secret: row
                        .kubernetes_secret
                        .as_ref()
                        .map(|secret| secret.error.is_none() && matches!(secret.state, SecretState::Current)),
                }
            };
        self.all().zip(rows).map(sample).collect()
    }
}

fn row<'a>(
    password_files: Vec<File<'a>>,
    (connection, status): (&'a Connection, &ConnectionStatus),
    known: &'a ConnectionRecord,
    found: Option<&DatabaseInfo>,
    renewed: bool,
) -> Row<'a> {
    let (key, address) = (connection.key(), &connection.address);
    let token = status.token.as_ref();
    Row {
        name: connection.name(),
        host: key.map(Key::host).or(address.host.as_deref()),
        port: address.port,
        database: &address.database,
        user: key.map(Key::user).or(address.user.as_deref()),
        password_file: password_files.first().map(|file| file.path.clone()).unwrap_or_default(),
        password_files,
        state: status.state,
        expires_at: token.map(|token| token.expires_at),
        expires_in_seconds: token.map(|token| token.expires_at.duration_since(status.now).as_secs()),
        issued_at: token.map(|token| token.issued_at),
        source: token.map(|_| known.published.as_ref().map_or(connection.credential, |p| p.source).word()),
        auth: token.and(known.published.as_ref()).and_then(|published| published.auth),
        last_rotation_at: known.last_rotation_at,
        last_attempt_at: known.last_attempt_at,
        last_error: known.last_error.as_ref().map(Error::from),
        // A retry planned by a run that has ended does not count.
        next_rotation_at: known
            .next_attempt_at
            .filter(|at| *at > Timestamp::now())
            .or(token.map(|token| token.refresh_at))
            .filter(|_| renewed),
        renewed,
        hook_error: known.failure_of_hook(connection).map(Error::from),
        kubernetes_secret: secret(connection, status, known),
        database_state: found.map(|found| found.state.word()),
        database_remark: found.and_then(|found| Some(format!("{} {}", found.target, found.state.remark()?))),
    }
}

fn secret<'a>(connection: &Connection, status: &ConnectionStatus, known: &'a ConnectionRecord) -> Option<Secret<'a>> {
    let name = connection.outputs.kubernetes_secret.as_ref()?.name.to_string();
    let present = status.token.as_ref().map(|token| fingerprint(token.password.expose_secret()));
    let state = known.secret_state(&name, present.as_deref());
    let record = known.secret.as_ref().filter(|record| record.name == name);
    let (seen_at, error) = (record.and_then(|one| one.seen_at), record.and_then(|one| one.error.as_ref()));
    Some(Secret { name, state, seen_at, error: error.map(Error::from) })
}

/// Which replica writes, for people.
fn lease_line(lease: &Lease<'_>) -> String {
    let who = match (lease.ours, lease.holder) {
        (true, _) => "this replica writes".to_owned(),
        (false, Some(holder)) => format!("{holder} writes, and this replica stands by"),
        (false, None) => "nobody is known to write".to_owned(),
    };
    print::line(&format!("lease: {}: {who}", lease.name))
}

/// What the proxy does, for people.
fn proxy_line(figures: &Figures) -> String {
    let sessions = crate::words::count(figures.sessions, "session");
    let refused: u64 = figures.refused.values().sum();
    let refused = if refused == 0 { String::new() } else { format!(", {refused} refused since it was started") };
    let stopping = if figures.stopping { ", stopping" } else { "" };
    print::line(&format!("proxy: {sessions}{stopping}{refused}, at {}", figures.listening.join(", ")))
}

/// How the service manager sees the service, for people.
pub(super) fn service_lines(state: &State, now: Timestamp) -> String {
    let manager = match state.scope {
        Scope::User => format!("{}, yours", state.manager),
        Scope::System => format!("{}, the machine's", state.manager),
    };
    let manager = state.user.iter().fold(manager, |manager, user| format!("{manager}, for {user}"));
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
    if state.lacks_namespaces {
        text.push_str("the unit's sandbox needs user namespaces, which this machine forbids: dbx-rotator service install --relaxed\n");
    } else if state.lacks_sandbox() {
        let unit = state.worker();
        text.push_str(&print::line(&format!(
            "the unit's sandbox could not be set up: a path that the unit or a drop-in names may not exist; look at \
             `systemctl --user cat {unit}`"
        )));
    }
    text
}
