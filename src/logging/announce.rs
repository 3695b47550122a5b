//! The messages about rotations, in the words that the Python original documented and that people's scripts look for.
//!
//! In the journal, the four events that matter have a MESSAGE_ID, for which `journalctl -x` shows what to do
//! (dist/systemd/dbx-rotator.catalog), and fields that `journalctl` can select by (`DBX_CONNECTION=prod`).

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use tracing::span::EnteredSpan;

use super::PRIVATE;
use crate::failure::{Code, Failure, Kind};
use crate::lakebase::{DatabaseInfo, Target};
use crate::model::DatabaseRef;
use crate::model::token::{Token, fingerprint};
use crate::os::zone;
use crate::pgpass::{Published, Severity};
use secrecy::ExposeSecret;

/// A connection has a new credential.
const ROTATED: &str = "ce79da91aa1b4021862743484309ecf3";
/// A rotation failed and will be tried again.
const FAILED: &str = "8b56375e0b7d46d391b8819f45eda73e";
/// A rotation fails until a person does something.
const NEEDS_PERSON: &str = "1c414086903a4e71a162c5d125523a12";
/// A credential expired before there was a new one.
const EXPIRED: &str = "fb4837c583004d7a97433282fda35dac";

/// How many of the connections that share a failure are named in the journal.
const LONGEST_LIST: usize = 64;

pub(crate) fn start() {
    tracing::info!("Starting OAuth token rotation cycle");
}

/// Reports a sign-in, and the database credential if one was minted with it; `now` is the workspace's time.
pub(crate) fn obtained(token: &Token, minted: Option<&Token>, now: Timestamp) {
    tracing::info!("Successfully obtained token via {}", token.method);
    let (what, published) = match minted {
        Some(minted) => ("New database credential's details:", minted),
        None => ("New token details:", token),
    };
    tracing::info!("{what}");
    tracing::info!(target: PRIVATE, "  - Subject: {}", token.subject().unwrap_or("unknown"));
    let local = published.expires_at.to_zoned_datetime(zone::local());
    tracing::info!("  - Expires at: {}", local.strftime("%Y-%m-%dT%H:%M:%S"));
    tracing::info!("  - Valid for: {}", valid_for(published.expires_at.duration_since(now)));
    tracing::debug!("  - SHA-256 begins with: {}", fingerprint(published.secret.expose_secret()));
}

/// Reports where a database is and its state, if that is news.
pub(crate) fn found(database_ref: &DatabaseRef, before: Option<&DatabaseInfo>, now: &DatabaseInfo) {
    let was_endpoint = before.is_some_and(|before| matches!(before.target, Target::Endpoint(_)));
    if let (DatabaseRef::Instance(_), Target::Endpoint(endpoint), false) = (database_ref, &now.target, was_endpoint) {
        tracing::warn!(
            "{database_ref} has become the autoscaling endpoint {endpoint}, which is followed from now on; \
             write endpoint = \"{endpoint}\" in config.toml"
        );
    }
    if before.is_some_and(|before| before.host != now.host) {
        tracing::warn!("{} has another host now: {}", now.target, now.host.as_deref().unwrap_or("none"));
    }
    if before.map(|before| before.state) == Some(now.state) {
        return;
    }
    match now.state.remark() {
        Some(remark) if now.state.needs_person() => tracing::warn!("{} {remark}", now.target),
        Some(remark) => tracing::info!("{} {remark}", now.target),
        None if before.is_some() => tracing::info!("{} is {} again", now.target, now.state.word()),
        None => {}
    }
}

fn valid_for(left: SignedDuration) -> String {
    match left.as_secs() {
        seconds if seconds < 120 => format!("{} seconds", seconds.max(0)),
        // Rounded, so that the answer's travel time does not turn 60 minutes into 59.
        seconds => format!("{} minutes", (seconds + 30) / 60),
    }
}

pub(crate) fn published(path: &Path, published: &Published) {
    for warning in &published.warnings {
        match warning.severity() {
            Severity::Warning => tracing::warn!("{}: {warning}", path.display()),
            Severity::Detail => tracing::debug!("{}: {warning}", path.display()),
        }
    }
    for note in &published.notes {
        tracing::warn!("{}: {note}", path.display());
    }
    if published.changed {
        tracing::info!("Successfully updated {}", path.display());
    } else {
        tracing::debug!("{} already holds it: nothing to write", path.display());
    }
}

pub(crate) fn rotated(connection: &str, expires_at: Timestamp) {
    tracing::info!(
        message_id = ROTATED,
        dbx_outcome = "rotated",
        dbx_connection = connection,
        dbx_expires_at = %expires_at,
        "{connection} is valid until {}",
        local(expires_at)
    );
}

pub(crate) fn completed() {
    tracing::info!("Token rotation completed successfully");
}

/// `next` is the time of the next try and how long until then, if this run will try again; `connections` are the names of
/// the affected connections.
pub(crate) fn failed(failure: &Failure, next: Option<(Timestamp, SignedDuration)>, connections: &[&str]) {
    let _concerned = concerning(connections);
    let hint = hint(failure);
    let (code, next_try) = (failure.code.word(), next.map(|(at, _)| tracing::field::display(at)));
    match next {
        Some((_, wait)) if failure.is_transient() => tracing::warn!(
            message_id = FAILED,
            dbx_outcome = "failed",
            dbx_error_kind = failure.kind.word(),
            dbx_error_code = code,
            dbx_next_try_at = next_try,
            dbx_hint = failure.hint.as_deref(),
            "{failure} (next try in {:.1} s){hint}",
            wait.as_secs_f64()
        ),
        _ => tracing::error!(
            message_id = if failure.kind == Kind::Permanent { NEEDS_PERSON } else { FAILED },
            dbx_outcome = "failed",
            dbx_error_kind = failure.kind.word(),
            dbx_error_code = code,
            dbx_next_try_at = next_try,
            dbx_hint = failure.hint.as_deref(),
            "{failure}{hint}"
        ),
    }
}

/// A credential expired, because `failure` prevented a new one.
pub(crate) fn expired(connection: &str, at: Timestamp, failure: &Failure) {
    tracing::error!(
        message_id = EXPIRED,
        dbx_outcome = "expired",
        dbx_connection = connection,
        dbx_expires_at = %at,
        dbx_error_code = failure.code.word(),
        dbx_hint = failure.hint.as_deref(),
        "{connection} expired at {}, and there is no new credential yet: {}",
        local(at),
        failure.sentence()
    );
}

/// The program that should be told of a connection's rotation failed.
pub(crate) fn hook_failed(connection: &str, failure: &Failure) {
    tracing::warn!(
        dbx_connection = connection,
        dbx_error_kind = failure.kind.word(),
        dbx_error_code = failure.code.word(),
        dbx_hint = failure.hint.as_deref(),
        "{connection} is rotated, but on_rotate failed: {}",
        failure.sentence()
    );
}

/// A command ended with an error before any rotation.
pub(crate) fn refused(message: &str, hint: Option<&str>, code: Code, kind: Kind) {
    let shown = hint.map(|hint| format!(" - {hint}")).unwrap_or_default();
    tracing::error!(
        message_id = if kind == Kind::Permanent { NEEDS_PERSON } else { FAILED },
        dbx_outcome = "failed",
        dbx_error_kind = kind.word(),
        dbx_error_code = code.word(),
        dbx_hint = hint,
        "{message}{shown}"
    );
}

/// A journal entry can have a field several times, an event cannot. Messages inside these spans concern all of the
/// connections.
fn concerning(connections: &[&str]) -> Vec<EnteredSpan> {
    let span = |name: &&str| tracing::error_span!("concerning", dbx_connection = name).entered();
    connections.iter().take(LONGEST_LIST).map(span).collect()
}

fn hint(failure: &Failure) -> String {
    failure.hint.as_deref().map(|hint| format!(" - {hint}")).unwrap_or_default()
}

fn local(at: Timestamp) -> String {
    at.to_zoned_datetime(zone::local()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_hour_is_60_minutes() {
        assert_eq!(valid_for(SignedDuration::from_secs(3_599)), "60 minutes");
        assert_eq!(valid_for(SignedDuration::from_secs(20)), "20 seconds");
        assert_eq!(valid_for(SignedDuration::from_secs(-4)), "0 seconds");
    }

    #[test]
    fn every_event_that_matters_is_explained_in_the_catalog() {
        let catalog = include_str!("../../dist/systemd/dbx-rotator.catalog");
        for id in [ROTATED, FAILED, NEEDS_PERSON, EXPIRED] {
            assert!(catalog.contains(&format!("\n-- {id}\nSubject: ")), "{id}");
        }
        assert_eq!(catalog.matches("\n-- ").count(), 4);
    }
}
