//! Acquired credentials are verified, published in one write, and recorded.
//!
//! Each wait belongs to what failed: a refused sign-in to its identity, an unacceptable token to its connection, a file that
//! cannot be written to the file.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};

use super::Rotation;
use super::acquire::{Arrival, ConnectionResult, NewCredential, SignInResult, Supply};
use super::backoff::{Backoff, RetryScope, Step};
use super::claim::{PresentPasswords, may_have};
use super::notify;
use super::record::{PublishedRecord, Untold};
use super::refusals;
use super::report::{Outcome, Outcomes};
use super::request::Patience;
use super::schedule::ask_cli_again;
use super::snapshot::Snapshot;
use super::status::{ConnectionStatus, Live};
use super::verify::{could_be, remark, subject_of, verify};
use crate::auth::SignedIn;
use crate::failure::{Code, Failure};
use crate::lakebase::Refused;
use crate::logging::announce;
use crate::model::AuthMethod;
use crate::model::CredentialKind;
use crate::model::token::fingerprint;
use crate::os::clock::{Anchor, Moment, wrong_by};
use crate::os::network;
use crate::pgpass::{Contents, Entry, Key};

/// One connection with an entry to publish.
struct Ready {
    index: usize,
    expires_at: Timestamp,
    /// None if the present credential stays.
    new: Option<PublishedRecord>,
    /// A failure of the sign-in despite its success.
    trouble: Option<Failure>,
    /// The source hands out the same token again for a while.
    repeats: bool,
    password: SecretString,
}

/// Works on what has arrived.
pub(super) struct Commit<'a> {
    pub(super) rotation: &'a Rotation,
    pub(super) snapshot: &'a mut Snapshot,
    pub(super) backoff: &'a mut Backoff,
    pub(super) patience: Patience,
    pub(super) outcomes: Outcomes,
}

impl Commit<'_> {
    /// Verifies, publishes in one write, and records. Returns whether the password file holds something new.
    pub(super) fn take(&mut self, arrivals: Vec<Arrival>) -> bool {
        self.take_locations(&arrivals);
        let mut ready: Vec<Ready> = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        // Two connections may be the same database.
        let mut keys: HashSet<Key> = HashSet::new();
        let files: Vec<Arc<Contents>> = self.snapshot.files.iter().flatten().cloned().collect();
        let present = PresentPasswords::in_files(&files);
        for arrival in arrivals {
            let result = match arrival {
                Arrival::SignInResult(result) => result,
                Arrival::Failed { identity, step, connections, failure, .. } => {
                    self.failed(RetryScope::Identity(identity), step, &connections, &failure);
                    continue;
                }
                Arrival::Ended { identity, well } => {
                    if well {
                        self.backoff.clear(RetryScope::Identity(identity));
                    }
                    continue;
                }
            };
            self.say_what_came(&result);
            self.refuse_together(&result);
            for ConnectionResult { index, supply, step, .. } in &result.connections {
                let prepared = match supply {
                    Ok(supply) => match (may_have(self.snapshot, *index, &present), supply) {
                        (Ok(()), Supply::Present) => {
                            self.keep_present(*index, &result.signed_in);
                            continue;
                        }
                        (Ok(()), Supply::New(fresh)) => self.prepare(*index, &result.signed_in, fresh),
                        (Err(failure), _) => Err(failure),
                    }
                    .map_err(|failure| (Step::Verify, failure)),
                    Err(refused) if refused.shared => continue,
                    Err(refused) => {
                        self.snapshot.past_mut(*index).refused_alone |= *step == Step::Mint;
                        Err((*step, refused.failure.clone()))
                    }
                };
                match prepared {
                    Ok((entry, one)) => {
                        if keys.insert(entry.key().clone()) {
                            entries.push(entry);
                        }
                        ready.push(one);
                    }
                    Err((step, failure)) => self.failed(RetryScope::Connection(*index), step, &[*index], &failure),
                }
            }
        }
        !entries.is_empty() && self.publish(&entries, ready)
    }

    /// Remembers the API's answers, and the connections' places.
    fn take_locations(&mut self, arrivals: &[Arrival]) {
        let mut located = Vec::new();
        for arrival in arrivals {
            let Arrival::SignInResult(result) = arrival else { continue };
            let workspace = &self.snapshot.config.workspaces[result.identity];
            if let Some(user) = &result.user {
                self.snapshot.record.set_user(workspace, user);
            }
            for (database, lookup) in &result.lookups {
                self.snapshot.record.set_lookup(workspace, database, lookup.clone());
            }
            located.extend(result.connections.iter().filter_map(|one| Some((one.index, one.located.clone()?))));
        }
        self.snapshot.relocate(located);
    }

    /// Counts a refusal that several connections share as one failure with one wait.
    fn refuse_together(&mut self, result: &SignInResult) {
        let mut together: BTreeMap<&str, (&Failure, Step, Vec<usize>)> = BTreeMap::new();
        for acquired in &result.connections {
            if let Err(Refused { failure, shared: true }) = &acquired.supply {
                together
                    .entry(&failure.message)
                    .or_insert_with(|| (failure, acquired.step, Vec::new()))
                    .2
                    .push(acquired.index);
            }
        }
        for (failure, step, connections) in together.into_values() {
            self.failed(RetryScope::Identity(result.identity), step, &connections, failure);
        }
    }

    /// Writes all entries. Returns whether anything changed for anybody.
    fn publish(&mut self, entries: &[Entry], ready: Vec<Ready>) -> bool {
        let connections: Vec<usize> = ready.iter().map(|one| one.index).collect();
        self.note_coming(&ready);
        match self.snapshot.publish(entries, &connections) {
            Ok(changed) => {
                self.backoff.clear(RetryScope::PasswordFile);
                let is_news = changed || ready.iter().any(|one| one.new.is_some());
                for one in ready {
                    self.done(one);
                }
                is_news
            }
            Err(failure) => {
                self.failed(RetryScope::PasswordFile, Step::Write, &connections, &failure);
                false
            }
        }
    }

    /// Keeps in the record what is about to be written, where that takes more than one write.
    fn note_coming(&mut self, ready: &[Ready]) {
        if self.snapshot.config.password_files.len() < 2 {
            return;
        }
        for one in ready {
            let coming = one.new.as_ref().map(|new| new.fingerprint.clone());
            self.snapshot.past_mut(one.index).coming = coming;
        }
        self.rotation.keep(&mut self.snapshot.record);
    }

    /// The entry to publish for one connection: the new token, or the present one where that lives longer.
    fn prepare(&self, index: usize, signed_in: &SignedIn, fresh: &NewCredential) -> Result<(Entry, Ready), Failure> {
        let connection = &self.snapshot.connections()[index];
        let (status, config) = (&self.snapshot.statuses[index], &self.snapshot.config);
        let NewCredential { token, source } = fresh;
        verify(connection, config.workspace_of(connection), signed_in, token).map_err(|unfit| {
            match &signed_in.instead_of {
                // The fallback did not help: the reason for needing it is what counts.
                Some(first) => Failure { message: format!("{first}; and {unfit}"), ..first.clone() },
                None => unfit,
            }
        })?;
        let stays = |present: &&Live| {
            let lives = status.left().is_some() && could_be(connection, present.subject.as_deref());
            let same = present.password.expose_secret() == token.secret.expose_secret();
            let lives_longer = present.expires_at > token.expires_at && !refusals::know(&present.password);
            lives && (same || lives_longer)
        };
        let (password, expires_at, new) = match status.token.as_ref().filter(stays) {
            Some(present) => (present.password.clone(), present.expires_at, None),
            None => {
                let new = PublishedRecord {
                    fingerprint: fingerprint(token.secret.expose_secret()),
                    issued_at: token.issued_at,
                    expires_at: token.expires_at,
                    subject: subject_of(signed_in, token).map(str::to_owned),
                    auth: Some(token.method),
                    source: *source,
                    origin: Some(config.workspace_of(connection).host.origin().to_owned()),
                };
                (token.secret.clone(), token.expires_at, Some(new))
            }
        };
        let unpublishable =
            |why: String| Failure::transient(Code::Unavailable, format!("the token cannot be published: {why}"));
        let key = connection.key.clone().ok_or_else(|| unpublishable("its host is not known".to_owned()))?;
        let entry =
            Entry::new(key, password.clone(), connection.last_copy).map_err(|why| unpublishable(why.to_string()))?;
        let trouble = signed_in.trouble.clone();
        let repeats = *source == CredentialKind::WorkspaceToken && token.method == AuthMethod::DatabricksCli;
        Ok((entry, Ready { index, expires_at, new, trouble, repeats, password }))
    }

    /// A connection whose entry was unknown turns out to have a live credential there.
    fn keep_present(&mut self, index: usize, signed_in: &SignedIn) {
        let connection = &self.snapshot.connections()[index];
        let source = connection.credential;
        let origin = self.snapshot.config.workspace_of(connection).host.origin().to_owned();
        let present = self.snapshot.statuses[index].token.clone();
        let past = self.snapshot.past_mut(index);
        past.succeeded(Timestamp::now(), None);
        if let (Some(present), None) = (&present, &past.published) {
            past.published = Some(PublishedRecord {
                fingerprint: fingerprint(present.password.expose_secret()),
                issued_at: present.issued_at,
                expires_at: present.expires_at,
                subject: present.subject.clone(),
                auth: Some(signed_in.token.method),
                source,
                origin: Some(origin),
            });
        }
        let left = self.snapshot.statuses[index].left();
        self.backoff.succeeded(RetryScope::Connection(index), left, Moment::now());
        self.outcomes.push((index, Outcome::NotDue { expires_at: present.map(|present| present.expires_at) }));
    }

    // ---- messages and the record ----

    /// The workspace's time now.
    fn now(&self, result: &SignInResult) -> Timestamp {
        let known = result.connections.first().map_or_else(Timestamp::now, |one| self.snapshot.statuses[one.index].now);
        result.anchor.as_ref().map_or(known, |anchor| anchor.server)
    }

    /// Reports what a sign-in got, only once if it keeps getting the same, and uses the clock that it showed.
    fn say_what_came(&mut self, result: &SignInResult) {
        let signed_in = &result.signed_in;
        let connections: Vec<usize> = result.connections.iter().map(|one| one.index).collect();
        let is_news = !connections.iter().all(|index| self.backoff.is_in_trouble(RetryScope::Connection(*index)));
        // A token that was not acceptable before still is not.
        let in_vain = connections.iter().all(|index| self.backoff.has_failed(RetryScope::Connection(*index)));
        let minted = result.connections.iter().find_map(|acquired| match &acquired.supply {
            Ok(Supply::New(fresh)) if fresh.source.is_minted() => Some(&*fresh.token),
            _ => None,
        });
        let is_failed = result.connections.iter().all(|acquired| acquired.supply.is_err());
        let is_same_failure = is_failed && self.backoff.has_failed(RetryScope::Identity(result.identity));
        if (is_news || !(signed_in.repeated || in_vain)) && !is_same_failure && (result.first || minted.is_some()) {
            for warning in signed_in.warnings.iter().filter(|_| result.first) {
                tracing::warn!("{warning}");
            }
            announce::obtained(&signed_in.token, minted, self.now(result));
        }
        self.heed_clock(result.identity, result.anchor.as_ref());
        if !result.first {
            return;
        }
        match (&signed_in.trouble, signed_in.repeated) {
            (Some(trouble), _) if is_news => announce::failed(trouble, None, &self.names(&connections)),
            (None, true) if is_news => {
                tracing::info!("The Databricks CLI has no newer token yet and will be asked again")
            }
            _ => {}
        }
    }

    fn heed_clock(&mut self, identity: usize, anchor: Option<&Anchor>) {
        let Some(anchor) = anchor else { return };
        let config = Arc::clone(&self.snapshot.config);
        let origin = config.workspaces[identity].host.origin();
        if let Some(sentence) = wrong_by(anchor.skew(), origin) {
            tracing::warn!("{sentence}");
        }
        self.snapshot.record.set_clock(origin, anchor.clone());
    }

    fn done(&mut self, one: Ready) {
        let Ready { index, expires_at, new, trouble, repeats, password } = one;
        let moment = Moment::now();
        let now = moment.wall;
        let who = RetryScope::Connection(index);
        let there = self.snapshot.statuses[index].now;
        let before = self.snapshot.past(index).and_then(|past| past.published.as_ref()?.subject.as_deref());
        let now_by = new.as_ref().map(|new| new.subject.as_deref());
        let remark = now_by.and_then(|by| remark(&self.snapshot.config.connections[index], by, before));
        if let Some(sentence) = remark {
            tracing::warn!("{sentence}");
        }
        if let Some(trouble) = trouble.as_ref().filter(|trouble| notify::is_news(self.snapshot.past(index), trouble)) {
            let config = &self.snapshot.config;
            notify::tell(config, config.workspace_of(&config.connections[index]), trouble);
        }
        let has_hook = self.snapshot.config.connections[index].outputs.on_rotate.is_some();
        let past = self.snapshot.past_mut(index);
        past.succeeded(now, trouble);
        past.refused_alone = false;
        let outcome = match new {
            Some(published) => {
                past.last_rotation_at = Some(now);
                past.untold = has_hook.then(|| Untold { fingerprint: published.fingerprint.clone(), started_at: None });
                let status = ConnectionStatus::of_new(
                    password,
                    &published,
                    (self.snapshot.config.interval, self.snapshot.spread),
                    there,
                );
                self.snapshot.past_mut(index).holds(published);
                self.snapshot.statuses[index] = status;
                self.backoff.succeeded(who, Some(expires_at.duration_since(there)), moment);
                announce::rotated(self.snapshot.name(index), expires_at);
                Outcome::Rotated { expires_at }
            }
            None => {
                let left = expires_at.duration_since(there);
                let renewed = repeats.then(|| ask_cli_again(there, expires_at)).flatten();
                // By this machine's clock, like all waits.
                let until = renewed.and_then(|at| now.checked_add(at.duration_since(there)).ok());
                self.backoff.repeated(who, until, left, moment);
                Outcome::NotDue { expires_at: Some(expires_at) }
            }
        };
        self.outcomes.push((index, outcome));
    }

    fn failed(&mut self, scope: RetryScope, step: Step, connections: &[usize], failure: &Failure) {
        let moment = Moment::now();
        let now = moment.wall;
        let statuses = || connections.iter().filter_map(|index| self.snapshot.statuses.get(*index));
        let left: Option<SignedDuration> = statuses().filter_map(ConnectionStatus::left).min();
        let (next, is_news) = self.backoff.failed(scope, step, failure, left, moment, fastrand::f64());
        let sooner = if self.is_without_network(scope, connections, failure) {
            self.backoff.without_network(scope, moment, fastrand::f64())
        } else {
            None
        };
        let next = sooner.unwrap_or(next);
        let wait = next.duration_since(now);
        let outlive = statuses().all(ConnectionStatus::outlives_next_run);
        let given_up = self.patience.gives_up(Duration::try_from(wait).unwrap_or_default(), outlive);
        // A command must not end without a message, however often it has tried.
        if is_news || (given_up && failure.is_transient()) {
            announce::failed(failure, (!given_up).then_some((next, wait)), &self.names(connections));
        } else {
            tracing::debug!("{failure} (still)");
        }
        let is_end = connections.iter().all(|index| notify::is_news(self.snapshot.past(*index), failure));
        if let Some(index) = connections.first().filter(|_| is_end) {
            let config = &self.snapshot.config;
            notify::tell(config, config.workspace_of(&config.connections[*index]), failure);
        }
        for index in connections {
            let expired = self.snapshot.statuses.get(*index).and_then(ConnectionStatus::expired_at);
            if let Some(at) = expired.filter(|at| self.backoff.expired(*index, *at)) {
                announce::expired(self.snapshot.name(*index), at, failure);
            }
            self.snapshot.past_mut(*index).failed(failure, now, next);
            self.outcomes.push((*index, Outcome::Failed(failure.clone())));
        }
    }

    /// Whether a try failed for want of a network on this machine. Behind a proxy the way out says nothing.
    fn is_without_network(&self, scope: RetryScope, connections: &[usize], failure: &Failure) -> bool {
        let can_be = failure.is_transient() && failure.code == Code::Unavailable && scope != RetryScope::PasswordFile;
        let config = &self.snapshot.config;
        let connection = connections.first().and_then(|index| config.connections.get(*index)).filter(|_| can_be);
        connection.is_some_and(|connection| {
            let workspace = config.workspace_of(connection);
            workspace.route().proxy().is_none() && !network::leads_to(workspace.host.name())
        })
    }

    fn names(&self, connections: &[usize]) -> Vec<&str> {
        connections.iter().map(|index| self.snapshot.name(*index)).collect()
    }
}
