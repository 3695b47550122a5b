//! One round: everything that is wished for and may be tried now, once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;

use super::due::{Live, Standing};
use super::record::{ConnectionRecord, Locked, PublishedRecord, Record};
use super::report::Outcome;
use super::retry::Retries;
use super::schedule::{ask_cli_again, attempt_limit, refresh_at};
use super::verify::{a_person_can_serve, could_be, verify};
use super::{Rotator, store_failure};
use crate::auth::token::fingerprint;
use crate::auth::{self, Needs, SignedIn};
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::logging::announce;
use crate::os::clock::NOTABLE_SKEW;
use crate::pgpass::{Entry, PasswordFile};

/// Which connections are to be rotated.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// Those that are due.
    Due,
    /// All of them, but those that another instance has rotated since.
    All {
        /// By the wall clock.
        since: Timestamp,
    },
    /// Those that are due or have less than this left.
    ValidFor(SignedDuration),
}

impl Wish {
    pub(super) fn covers(&self, standing: &Standing, known: Option<&ConnectionRecord>) -> bool {
        match self {
            Wish::Due => standing.is_due(),
            Wish::ValidFor(least) => standing.is_due() || standing.left().is_none_or(|left| left < *least),
            Wish::All { since } => {
                standing.is_due() || known.and_then(|known| known.last_rotation_at).is_none_or(|last| last < *since)
            }
        }
    }
}

type Outcomes = Vec<(usize, String, Outcome)>;

/// What one sign-in brought, for the connections that share it.
struct Obtained {
    leader: usize,
    connections: Vec<usize>,
    result: Result<SignedIn, Failure>,
}

/// The first workspace that shares a connection's identity stands for all of them.
pub(super) fn leader_of(config: &Config, connection: usize) -> usize {
    let workspace = config.connections.get(connection).map_or(0, |connection| connection.workspace);
    let Some(own) = config.workspaces.get(workspace) else { return workspace };
    config.workspaces.iter().position(|other| other.shares_identity_with(own)).unwrap_or(workspace)
}

impl Rotator {
    /// The workspace whose sign-in serves a connection.
    pub(crate) fn leader_of(&self, connection: usize) -> usize {
        leader_of(&self.config, connection)
    }

    /// One attempt for each connection that `wish` covers and whose workspace may be asked now, in one write. `only` narrows it
    /// to some connections; `limit` is for how long another instance is waited for.
    pub(crate) async fn round(
        &self,
        wish: &Wish,
        only: Option<&[usize]>,
        retries: &mut Retries,
        limit: Duration,
    ) -> Outcomes {
        let selected = self.selected(only);
        // A timer that finds nothing due must not wait for anybody.
        let _lock = match self.store.lock(limit, || self.outcomes_if_none_covered(wish, &selected)).await {
            Ok(Locked::Needless(outcomes)) => return outcomes,
            Ok(lock) => lock,
            Err(failure) => return self.all_failed(&selected, &failure, retries),
        };
        let mut record = self.record();
        let (due, standings) = match self.wanted(wish, &selected, &record) {
            Ok(found) => found,
            Err(failure) => return self.all_failed(&selected, &failure, retries),
        };
        let mut outcomes = self.outcomes_without_asking(&selected, &due, &standings, wish, &record);
        let now = Timestamp::now();
        let (asked, waiting): (Vec<usize>, Vec<usize>) =
            due.into_iter().partition(|index| retries.may_try(leader_of(&self.config, *index), now));
        outcomes.extend(waiting.iter().filter_map(|index| self.still_failed(*index, &record)));
        if !asked.is_empty() {
            if asked.iter().any(|index| retries.next_try(leader_of(&self.config, *index)).is_none()) {
                announce::start();
            }
            let obtained = self.obtain(&asked, &standings).await;
            outcomes.extend(self.publish(obtained, &standings, &mut record, retries));
            if let Err(error) = self.store.write(&record) {
                tracing::warn!("cannot keep a record in {}: {error}", self.config.state_dir.display());
            }
        }
        outcomes.sort_by_key(|(index, ..)| *index);
        outcomes
    }

    pub(super) fn selected(&self, only: Option<&[usize]>) -> Vec<usize> {
        only.map_or_else(|| (0..self.config.connections.len()).collect(), <[usize]>::to_vec)
    }

    /// The outcomes, where `wish` covers nothing of what is selected.
    pub(super) fn outcomes_if_none_covered(&self, wish: &Wish, selected: &[usize]) -> Option<Outcomes> {
        let (due, standings) = self.wanted(wish, selected, &self.record()).ok()?;
        due.is_empty().then(|| self.not_due(selected, &standings))
    }

    fn wanted(&self, wish: &Wish, selected: &[usize], record: &Record) -> Result<(Vec<usize>, Vec<Standing>), Failure> {
        let standings = self.standings(record)?;
        let due = selected.iter().copied().filter(|index| self.covers(wish, *index, &standings, record)).collect();
        Ok((due, standings))
    }

    fn covers(&self, wish: &Wish, index: usize, standings: &[Standing], record: &Record) -> bool {
        wish.covers(&standings[index], record.connection(&self.config, &self.config.connections[index]))
    }

    // ---- outcomes that need nobody ----

    fn outcome(&self, index: usize, outcome: Outcome) -> (usize, String, Outcome) {
        (index, self.config.connections[index].name.clone(), outcome)
    }

    fn not_due(&self, selected: &[usize], standings: &[Standing]) -> Outcomes {
        let expiry = |index: usize| standings[index].token.as_ref().map(|token| token.expires_at);
        selected.iter().map(|index| self.outcome(*index, Outcome::NotDue { expires_at: expiry(*index) })).collect()
    }

    fn all_failed(&self, selected: &[usize], failure: &Failure, retries: &mut Retries) -> Outcomes {
        let (now, mut news) = (Timestamp::now(), false);
        for leader in
            selected.iter().map(|index| leader_of(&self.config, *index)).collect::<std::collections::BTreeSet<_>>()
        {
            news |= retries.failed(leader, failure, None, now).1;
        }
        if news {
            announce::failed(failure, None);
        }
        selected.iter().map(|index| self.outcome(*index, Outcome::Failed(failure.clone()))).collect()
    }

    /// What is not due after all; for a wish for all of them, that is because another instance has just rotated it.
    fn outcomes_without_asking(
        &self,
        selected: &[usize],
        due: &[usize],
        standings: &[Standing],
        wish: &Wish,
        record: &Record,
    ) -> Outcomes {
        let rest: Vec<usize> = selected.iter().copied().filter(|index| !due.contains(index)).collect();
        let by_another = |index: usize| {
            let rotated = record.connection(&self.config, &self.config.connections[index])?.last_rotation_at;
            let recent = matches!(wish, Wish::All { since } if rotated.is_some_and(|at| at >= *since));
            let expires_at = standings[index].token.as_ref()?.expires_at;
            recent.then_some(Outcome::Rotated { expires_at })
        };
        let mut outcomes = self.not_due(&rest, standings);
        for (index, _, outcome) in &mut outcomes {
            if let Some(rotated) = by_another(*index) {
                tracing::debug!(
                    "connection {} was rotated by another dbx-rotator meanwhile",
                    self.config.connections[*index].name
                );
                *outcome = rotated;
            }
        }
        outcomes
    }

    fn still_failed(&self, index: usize, record: &Record) -> Option<(usize, String, Outcome)> {
        let failure = record.connection(&self.config, &self.config.connections[index])?.last_error.clone()?;
        Some(self.outcome(index, Outcome::Failed(failure)))
    }

    // ---- obtain ----

    /// Signs in once for each identity, all of them side by side.
    async fn obtain(&self, asked: &[usize], standings: &[Standing]) -> Vec<Obtained> {
        let mut groups: HashMap<usize, Vec<usize>> = HashMap::new();
        for index in asked {
            groups.entry(leader_of(&self.config, *index)).or_default().push(*index);
        }
        let mut tasks = tokio::task::JoinSet::new();
        for (leader, connections) in groups {
            let config = Arc::clone(&self.config);
            let left = connections.iter().filter_map(|index| standings[*index].left()).min();
            let now = connections.first().map_or_else(Timestamp::now, |index| standings[*index].now);
            let person_can_serve = self.a_person_can_serve(&connections);
            tasks.spawn(async move {
                let workspace = &config.workspaces[leader];
                let is_due = |issued, expires| refresh_at(issued, expires, config.interval) <= now;
                let needs = Needs { limit: attempt_limit(left), is_due: &is_due, person_can_serve, now };
                let result = auth::sign_in(workspace, &config.environment, &needs).await;
                Obtained { leader, connections, result }
            });
        }
        let mut obtained = Vec::new();
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok(one) => obtained.push(one),
                Err(fault) => tracing::error!("a sign-in ended unexpectedly: {fault}"),
            }
        }
        obtained.sort_by_key(|one| one.leader);
        obtained
    }

    fn a_person_can_serve(&self, connections: &[usize]) -> bool {
        connections.iter().any(|index| {
            let connection = &self.config.connections[*index];
            a_person_can_serve(connection, self.config.workspace_of(connection))
        })
    }

    // ---- verify, publish, record ----

    fn publish(
        &self,
        obtained: Vec<Obtained>,
        standings: &[Standing],
        record: &mut Record,
        retries: &mut Retries,
    ) -> Outcomes {
        let mut outcomes = Outcomes::new();
        let mut ready: Vec<(usize, Live, Option<PublishedRecord>)> = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        for one in obtained {
            let signed_in = match one.result {
                Ok(signed_in) => signed_in,
                Err(failure) => {
                    outcomes.extend(self.failed(&one.connections, &failure, standings, record, retries));
                    continue;
                }
            };
            self.heed_clock(one.leader, &signed_in, record);
            self.note_success(one.leader, &signed_in, standings, &one.connections, retries);
            for index in one.connections {
                match self.entry(index, &signed_in, &standings[index]) {
                    Ok((entry, live, published)) => {
                        entries.push(entry);
                        ready.push((index, live, published));
                    }
                    Err(failure) => outcomes.extend(self.failed(&[index], &failure, standings, record, retries)),
                }
            }
        }
        if entries.is_empty() {
            return outcomes;
        }
        match PasswordFile::new(&self.config.password_file).publish(&entries) {
            Ok(published) => {
                let is_news = published.changed || ready.iter().any(|(_, _, new)| new.is_some());
                announce::published(&self.config.password_file, &published, is_news);
                outcomes.extend(ready.into_iter().map(|(index, live, new)| self.rotated(index, &live, new, record)));
            }
            Err(error) => {
                let failure = store_failure(&error);
                for (index, ..) in ready {
                    outcomes.extend(self.failed(&[index], &failure, standings, record, retries));
                }
            }
        }
        outcomes
    }

    /// The entry to publish for one connection: the new token, or the present one where the new one is worse.
    fn entry(
        &self,
        index: usize,
        signed_in: &SignedIn,
        standing: &Standing,
    ) -> Result<(Entry, Live, Option<PublishedRecord>), Failure> {
        let connection = &self.config.connections[index];
        verify(connection, self.config.workspace_of(connection), signed_in)?;
        let token = &signed_in.token;
        let new = Live {
            password: token.secret.clone(),
            issued_at: token.issued_at,
            expires_at: token.expires_at,
            refresh_at: refresh_at(token.issued_at, token.expires_at, self.config.interval),
            subject: token.subject().map(str::to_owned),
        };
        let is_better = |present: &&Live| {
            let lives = standing.left().is_some() && could_be(connection, present.subject.as_deref());
            lives && new.refresh_at <= standing.now && present.expires_at >= new.expires_at
        };
        let (live, published) = match standing.token.as_ref().filter(is_better) {
            Some(present) => (present.clone(), None),
            None => {
                let fingerprint = fingerprint(new.password.expose_secret());
                let (issued_at, expires_at, subject) = (new.issued_at, new.expires_at, new.subject.clone());
                let published = PublishedRecord { fingerprint, issued_at, expires_at, subject, auth: token.method };
                (new, Some(published))
            }
        };
        let entry = Entry::new(connection.key.clone(), live.password.clone(), connection.last_copy)
            .map_err(|why| Failure::transient(Code::Unavailable, format!("the token cannot be published: {why}")))?;
        Ok((entry, live, published))
    }

    fn rotated(
        &self,
        index: usize,
        live: &Live,
        new: Option<PublishedRecord>,
        record: &mut Record,
    ) -> (usize, String, Outcome) {
        let connection = &self.config.connections[index];
        let known = record.connection_mut(&self.config, connection);
        let now = Timestamp::now();
        known.last_attempt_at = Some(now);
        known.last_error = None;
        known.next_attempt_at = None;
        let outcome = match new {
            Some(published) => {
                known.last_rotation_at = Some(now);
                known.published = Some(published);
                Outcome::Rotated { expires_at: live.expires_at }
            }
            None => Outcome::NotDue { expires_at: Some(live.expires_at) },
        };
        self.outcome(index, outcome)
    }

    fn failed(
        &self,
        connections: &[usize],
        failure: &Failure,
        standings: &[Standing],
        record: &mut Record,
        retries: &mut Retries,
    ) -> Outcomes {
        let Some(leader) = connections.first().map(|index| leader_of(&self.config, *index)) else {
            return Outcomes::new();
        };
        let now = Timestamp::now();
        let left = connections.iter().filter_map(|index| standings[*index].left()).min();
        let (next, is_news) = retries.failed(leader, failure, left, now);
        if is_news {
            announce::failed(failure, Some(next.duration_since(now)));
        } else {
            tracing::debug!("{failure} (still)");
        }
        for index in connections {
            let known = record.connection_mut(&self.config, &self.config.connections[*index]);
            known.last_attempt_at = Some(now);
            known.last_error = Some(failure.clone());
            known.next_attempt_at = Some(next);
        }
        connections.iter().map(|index| self.outcome(*index, Outcome::Failed(failure.clone()))).collect()
    }

    fn note_success(
        &self,
        leader: usize,
        signed_in: &SignedIn,
        standings: &[Standing],
        connections: &[usize],
        retries: &mut Retries,
    ) {
        for warning in &signed_in.warnings {
            tracing::warn!("{warning}");
        }
        let now = connections.first().map_or_else(Timestamp::now, |index| standings[*index].now);
        let now = signed_in.anchor.as_ref().map_or(now, |anchor| anchor.server);
        if !signed_in.repeated {
            announce::obtained(&signed_in.token, now);
            retries.succeeded(leader);
            return;
        }
        let expires_at = signed_in.token.expires_at;
        let left = expires_at.duration_since(now);
        if retries.repeated(leader, ask_cli_again(now, expires_at), left, Timestamp::now()) {
            announce::obtained(&signed_in.token, now);
            tracing::info!("The Databricks CLI has no newer token yet and will be asked again");
        }
    }

    fn heed_clock(&self, leader: usize, signed_in: &SignedIn, record: &mut Record) {
        let Some(anchor) = &signed_in.anchor else { return };
        let origin = self.config.workspaces[leader].host.origin();
        let skew = anchor.skew();
        if skew.abs() > NOTABLE_SKEW {
            let direction = if skew.is_positive() { "behind" } else { "ahead of" };
            tracing::warn!(
                "this machine's clock is {} s {direction} {origin}'s: corrected for, but set it right",
                skew.abs().as_secs()
            );
        }
        record.set_clock(origin, anchor.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::super::due::State;
    use super::*;

    fn standing(state: State) -> Standing {
        Standing { state, reason: None, token: None, now: Timestamp::UNIX_EPOCH }
    }

    #[test]
    fn a_wish_for_all_leaves_alone_what_another_instance_has_rotated_since() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let wish = Wish::All { since: at(100) };
        let rotated = |second| ConnectionRecord { last_rotation_at: Some(at(second)), ..ConnectionRecord::default() };
        assert!(wish.covers(&standing(State::Live), None));
        assert!(wish.covers(&standing(State::Live), Some(&rotated(99))));
        assert!(!wish.covers(&standing(State::Live), Some(&rotated(100))));
        assert!(wish.covers(&standing(State::Missing), Some(&rotated(100))));
    }
}
