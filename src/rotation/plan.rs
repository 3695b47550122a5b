//! What to do, as a pure function of the snapshot, the request, the waits and the time.

use std::collections::BTreeMap;

use super::backoff::{Backoff, RetryScope};
use super::request::RotateRequest;
use super::snapshot::Snapshot;
use crate::config::Config;
use crate::os::clock::Moment;

/// What to do for the selected connections, each by its place in the configuration.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Those that need no new credential.
    pub(super) not_due: Vec<usize>,
    /// Those that do, by the identity that must sign in for them.
    pub(super) sign_ins: BTreeMap<usize, Vec<usize>>,
}

/// Identities that are already signing in (`is_in_flight`) are skipped: their connections are checked again when they
/// are done.
pub(super) fn plan(
    snapshot: &Snapshot,
    request: &RotateRequest,
    selected: &[usize],
    backoff: &Backoff,
    is_in_flight: impl Fn(usize) -> bool,
    now: Moment,
) -> Plan {
    let mut plan = Plan::default();
    for index in selected {
        let status = &snapshot.statuses[*index];
        let identity = identity_of(&snapshot.config, *index);
        if is_in_flight(identity) {
            continue;
        }
        if !request.selects(status, snapshot.past(*index)) {
            plan.not_due.push(*index);
        } else if backoff.next_try(&scopes(&snapshot.config, *index), status.left_to_clients().is_some(), now).is_none()
        {
            plan.sign_ins.entry(identity).or_default().push(*index);
        }
    }
    plan
}

/// The first workspace with the same identity represents it.
pub(super) fn identity_of(config: &Config, connection: usize) -> usize {
    let workspace = config.connections.get(connection).map_or(0, |connection| connection.workspace);
    let Some(own) = config.workspaces.get(workspace) else { return workspace };
    config.workspaces.iter().position(|other| other.shares_identity_with(own)).unwrap_or(workspace)
}

/// The scopes that can make a connection wait.
pub(super) fn scopes(config: &Config, connection: usize) -> [RetryScope; 3] {
    [
        RetryScope::Identity(identity_of(config, connection)),
        RetryScope::Connection(connection),
        RetryScope::PasswordFile,
    ]
}
