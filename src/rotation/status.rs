//! Which connections are due: decided by what clients would read, without any request.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::record::{PublishedRecord, Record};
use super::schedule::{NEXT_RUN, Spread, dies_before_next_run, refresh_at};
use super::verify::could_be;
use crate::config::Config;
use crate::foreign::secrets;
use crate::model::Connection;
use crate::model::token::{Claims, fingerprint};
use crate::os::clock::{Reading, workspace_time};
use crate::pgpass::{Contents, Current, Reading as FileReading};

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// A live credential is published, and is not due for replacement.
    Live,
    /// A live credential is published, and it is past the refresh point.
    Due,
    /// The published credential has expired.
    Expired,
    /// Clients read no credential for this connection.
    Missing,
}

/// A published token with a known expiry.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) password: SecretString,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) refresh_at: Timestamp,
    pub(crate) subject: Option<String>,
    /// It is the one that was published last, or was to be.
    pub(super) is_recorded: bool,
    /// It came from a workspace that the connection does not use any more.
    is_of_other_workspace: bool,
}

/// The status of one connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionStatus {
    pub(crate) state: State,
    /// Why it is due, if it is.
    pub(crate) reason: Option<String>,
    /// The published token, if its expiry is known.
    pub(crate) token: Option<Live>,
    /// The workspace's time at which this was found.
    pub(crate) now: Timestamp,
}

impl ConnectionStatus {
    /// The status after publishing a new credential; `now` is the workspace's time.
    pub(super) fn of_new(
        password: SecretString,
        published: &PublishedRecord,
        (interval, spread): (Option<Duration>, Spread),
        now: Timestamp,
    ) -> Self {
        let (issued_at, expires_at) = (published.issued_at, published.expires_at);
        let refresh_at = refresh_at(issued_at, expires_at, interval, spread);
        let subject = published.subject.clone();
        let (is_recorded, is_of_other_workspace) = (true, false);
        let token = Live { password, issued_at, expires_at, refresh_at, subject, is_recorded, is_of_other_workspace };
        let state = if refresh_at > now { State::Live } else { State::Due };
        ConnectionStatus { state, reason: None, token: Some(token), now }
    }

    /// The time until the published credential expires; none if there is no live one.
    pub(crate) fn left(&self) -> Option<SignedDuration> {
        let token = self.token.as_ref()?;
        Some(token.expires_at.duration_since(self.now)).filter(|left| left.is_positive())
    }

    /// How long the published credential lives in all; none if there is no live one.
    pub(crate) fn life(&self) -> Option<SignedDuration> {
        self.left().and(self.token.as_ref()).map(|token| token.expires_at.duration_since(token.issued_at))
    }

    /// The same as [`ConnectionStatus::left`], but only if clients really read that credential.
    pub(crate) fn left_to_clients(&self) -> Option<SignedDuration> {
        self.left().filter(|_| matches!(self.state, State::Live | State::Due))
    }

    /// The time until the refresh point of the published credential.
    pub(crate) fn until_refresh(&self) -> Option<SignedDuration> {
        Some(self.token.as_ref()?.refresh_at.duration_since(self.now))
    }

    pub(crate) fn is_due(&self) -> bool {
        self.state != State::Live
    }

    /// See [`dies_before_next_run`].
    pub(crate) fn dies_before_next_run(&self) -> bool {
        self.token.as_ref().is_some_and(|token| dies_before_next_run(token.issued_at, token.expires_at, self.now))
    }

    /// Whether clients can go on with what they read until a timer's next run has had its time.
    pub(crate) fn outlives_next_run(&self) -> bool {
        self.left_to_clients().is_some_and(|left| left >= NEXT_RUN)
    }

    /// When the published credential expired, if it has.
    pub(crate) fn expired_at(&self) -> Option<Timestamp> {
        self.token.as_ref().map(|token| token.expires_at).filter(|_| self.state == State::Expired)
    }
}

/// The status of all connections, in the order of the configuration.
pub(super) fn survey(
    config: &Config,
    connections: &[Connection],
    record: &Record,
    file: &Contents,
    clock: &Reading,
    spread: Spread,
) -> Vec<ConnectionStatus> {
    let reading = FileReading::new(&file.bytes);
    let times: Vec<Timestamp> = config
        .workspaces
        .iter()
        .map(|workspace| workspace_time(clock, record.clock(workspace.host.origin())))
        .collect();
    let stand = |connection: &Connection| {
        let now = times.get(connection.workspace).copied().unwrap_or(clock.wall);
        let missing =
            |reason: String| ConnectionStatus { state: State::Missing, reason: Some(reason), token: None, now };
        let Some(key) = &connection.key else {
            return missing("never rotated yet: its host or user is looked up at the first rotation".to_owned());
        };
        match reading.current(key) {
            _ if !file.exists => missing("the password file does not exist".to_owned()),
            Current::Missing => missing("the password file has no entry for it".to_owned()),
            Current::Shadowed { line, fields } => {
                missing(format!("line {line} of the password file ({fields}) wins over its entry"))
            }
            Current::Ours { password, .. } => {
                let mut status = judge(config, record, connection, password, now, spread);
                // What no rotation can change is no reason for one.
                if file.is_ignored_by_libpq() && record.fixed_mode != Some(file.mode) {
                    status.state = State::Missing;
                    status.reason =
                        Some(format!("clients ignore the password file, because its mode is {:04o}", file.mode));
                }
                status
            }
        }
    };
    connections.iter().map(stand).collect()
}

fn judge(
    config: &Config,
    record: &Record,
    connection: &Connection,
    password: Option<SecretString>,
    now: Timestamp,
    spread: Spread,
) -> ConnectionStatus {
    let stands = |state, reason: &str, token| ConnectionStatus { state, reason: Some(reason.to_owned()), token, now };
    let Some(token) = password.and_then(|password| known(config, record, connection, password, spread)) else {
        return stands(State::Due, "its entry holds no token whose expiry is known", None);
    };
    if token.is_of_other_workspace {
        return stands(State::Missing, "its entry holds another workspace's token", None);
    }
    if !could_be(connection, token.subject.as_deref()) {
        return stands(State::Missing, "its entry holds another identity's token", None);
    }
    if token.expires_at <= now {
        return stands(State::Expired, "its credential has expired", Some(token));
    }
    if token.refresh_at <= now {
        return stands(State::Due, "its credential is past the refresh point", Some(token));
    }
    ConnectionStatus { state: State::Live, reason: None, token: Some(token), now }
}

/// When a token was issued, as far as it says so: one that does not is assumed to live for the usual hour.
pub(super) fn issued_at(claims: &Claims, expires_at: Timestamp) -> Timestamp {
    let usual = || expires_at.saturating_sub(SignedDuration::from_hours(1)).unwrap_or(expires_at);
    claims.issued_at.unwrap_or_else(usual)
}

/// A token's times: from its own claims, and from the record if that is about the same token.
fn known(
    config: &Config,
    record: &Record,
    connection: &Connection,
    password: SecretString,
    spread: Spread,
) -> Option<Live> {
    let claims = Claims::of(password.expose_secret()).unwrap_or_default();
    let past = record.connection(config, connection);
    let name = fingerprint(password.expose_secret());
    let told = past.and_then(|past| past.published.as_ref()).filter(|published| published.fingerprint == name);
    let is_coming = past.is_some_and(|past| past.coming.as_ref() == Some(&name));
    secrets::keep_until(&password, claims.expires_at.unwrap_or_else(Timestamp::now));
    let origin = config.workspace_of(connection).host.origin();
    // Without a record, the token's own issuer counts. If the workspace has another name too, that costs one rotation, and then
    // the record knows. The issuer in a database credential is not documented.
    let by_itself = || claims.issuer_origin().filter(|_| !connection.credential.is_minted());
    let came_from = told.map_or_else(by_itself, |told| told.origin.clone());
    let is_of_other_workspace = came_from.is_some_and(|from| from != origin);
    // The workspace may have reported an earlier expiry than the token has.
    let expires_at = claims.expires_at.into_iter().chain(told.map(|told| told.expires_at)).min()?;
    let told_issue = || told.map(|told| told.issued_at).unwrap_or_else(|| issued_at(&claims, expires_at));
    let issued_at = claims.issued_at.unwrap_or_else(told_issue);
    Some(Live {
        password,
        issued_at,
        expires_at,
        refresh_at: refresh_at(issued_at, expires_at, config.interval, spread),
        // The subject of a database credential is not documented, but it is known who signed in for it.
        subject: told.and_then(|told| told.subject.clone()).or(claims.subject),
        is_recorded: told.is_some() || is_coming,
        is_of_other_workspace,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_read_outlives_a_timers_next_run_where_enough_of_it_is_left() {
        let with_left = |state, left: SignedDuration| {
            let (now, at) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + left);
            let password = SecretString::from("x");
            let token = Live {
                password,
                issued_at: now,
                expires_at: at,
                refresh_at: at,
                subject: None,
                is_recorded: true,
                is_of_other_workspace: false,
            };
            ConnectionStatus { state, reason: None, token: Some(token), now }
        };
        let second = SignedDuration::from_secs(1);
        assert!(with_left(State::Due, NEXT_RUN).outlives_next_run());
        assert!(!with_left(State::Due, NEXT_RUN - second).outlives_next_run());
        assert!(!with_left(State::Missing, NEXT_RUN).outlives_next_run());
        assert!(!ConnectionStatus { token: None, ..with_left(State::Live, NEXT_RUN) }.outlives_next_run());
    }
}
