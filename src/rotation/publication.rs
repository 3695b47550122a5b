//! The second half of a round: what was obtained is verified, published in one write, and recorded.
//!
//! Waits are noted where the trouble is: a refused sign-in with its workspace, a token that does not pass with its connection,
//! a file that cannot be written with the file.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;

use super::due::{Live, Standing};
use super::obtain::{Brought, Fresh, Obtained, Parcel};
use super::record::{PublishedRecord, Record};
use super::report::Outcome;
use super::retry::{Retries, Who};
use super::round::Outcomes;
use super::schedule::ask_cli_again;
use super::store_failure;
use super::verify::{could_be, subject_of, verify};
use crate::auth::{Method, SignedIn};
use crate::config::{Config, Source};
use crate::failure::{Code, Failure};
use crate::lakebase::Refused;
use crate::logging::announce;
use crate::os::clock::NOTABLE_SKEW;
use crate::pgpass::{Entry, Key, PasswordFile};
use crate::token::fingerprint;

/// One connection that has its entry.
struct Ready {
    index: usize,
    expires_at: Timestamp,
    /// None where the present credential is kept.
    new: Option<PublishedRecord>,
    /// What the sign-in said beside its success.
    trouble: Option<Failure>,
    /// The source hands out the same token again until it will have another.
    repeats: bool,
}

/// A round's results in the making.
pub(super) struct Publication<'a> {
    config: &'a Config,
    standings: &'a [Standing],
    record: &'a mut Record,
    retries: &'a mut Retries,
    outcomes: Outcomes,
}

impl<'a> Publication<'a> {
    pub(super) fn new(
        config: &'a Config,
        standings: &'a [Standing],
        record: &'a mut Record,
        retries: &'a mut Retries,
    ) -> Self {
        Publication { config, standings, record, retries, outcomes: Outcomes::new() }
    }

    pub(super) fn into_outcomes(self) -> Outcomes {
        self.outcomes
    }

    /// Verifies, publishes in one write, and records; returns whether there is something new in the password file.
    pub(super) fn settle(&mut self, obtained: Vec<Obtained>) -> bool {
        let mut ready: Vec<Ready> = Vec::new();
        let mut entries: Vec<Entry> = Vec::new();
        // Two connections may turn out to be the same database.
        let mut keys: HashSet<Key> = HashSet::new();
        for Obtained { leader, connections, result } in obtained {
            let brought = match result {
                Ok(brought) => brought,
                Err(failure) => {
                    self.failed(Who::Workspace(leader), &connections, &failure);
                    continue;
                }
            };
            self.heed(leader, &connections, &brought);
            self.refuse_together(leader, &brought);
            for Parcel { index, fresh, .. } in brought.parcels {
                let prepared = match fresh {
                    Ok(fresh) => self.prepare(index, &brought.signed_in, &fresh),
                    Err(refused) if refused.shared => continue,
                    Err(refused) => Err(refused.failure),
                };
                match prepared {
                    Ok((entry, one)) => {
                        if keys.insert(entry.key().clone()) {
                            entries.push(entry);
                        }
                        ready.push(one);
                    }
                    Err(failure) => self.failed(Who::Connection(index), &[index], &failure),
                }
            }
        }
        !entries.is_empty() && self.publish(&entries, ready)
    }

    /// What was refused to several for one reason is one failure, and is waited for once.
    fn refuse_together(&mut self, leader: usize, brought: &Brought) {
        let mut together: BTreeMap<&str, (&Failure, Vec<usize>)> = BTreeMap::new();
        for parcel in &brought.parcels {
            if let Err(Refused { failure, shared: true }) = &parcel.fresh {
                together.entry(&failure.message).or_insert_with(|| (failure, Vec::new())).1.push(parcel.index);
            }
        }
        if together.is_empty() {
            self.retries.forget(Who::Workspace(leader));
        }
        for (failure, connections) in together.into_values() {
            self.failed(Who::Workspace(leader), &connections, failure);
        }
    }

    /// Writes all of them; returns whether that changed anything for anybody.
    fn publish(&mut self, entries: &[Entry], ready: Vec<Ready>) -> bool {
        match PasswordFile::new(&self.config.password_file).publish(entries) {
            Ok(published) => {
                self.retries.forget(Who::File);
                let is_news = published.changed || ready.iter().any(|one| one.new.is_some());
                announce::published(&self.config.password_file, &published);
                for one in ready {
                    self.done(one);
                }
                is_news
            }
            Err(error) => {
                let connections: Vec<usize> = ready.iter().map(|one| one.index).collect();
                self.failed(Who::File, &connections, &store_failure(&error));
                false
            }
        }
    }

    /// The entry to publish for one connection: the new token, or the present one where that lives longer.
    fn prepare(&self, index: usize, signed_in: &SignedIn, fresh: &Fresh) -> Result<(Entry, Ready), Failure> {
        let (connection, standing) = (&self.config.connections[index], &self.standings[index]);
        let Fresh { token, source } = fresh;
        verify(connection, self.config.workspace_of(connection), signed_in, token).map_err(|unfit| {
            match &signed_in.instead_of {
                // The fallback was of no use: what counts is why there had to be one.
                Some(first) => Failure { message: format!("{first}; and {unfit}"), ..first.clone() },
                None => unfit,
            }
        })?;
        let stays = |present: &&Live| {
            let lives = standing.left().is_some() && could_be(connection, present.subject.as_deref());
            let same = present.password.expose_secret() == token.secret.expose_secret();
            lives && (same || present.expires_at > token.expires_at)
        };
        let (password, expires_at, new) = match standing.token.as_ref().filter(stays) {
            Some(present) => (present.password.clone(), present.expires_at, None),
            None => {
                let new = PublishedRecord {
                    fingerprint: fingerprint(token.secret.expose_secret()),
                    issued_at: token.issued_at,
                    expires_at: token.expires_at,
                    subject: subject_of(signed_in, token).map(str::to_owned),
                    auth: token.method,
                    source: *source,
                };
                (token.secret.clone(), token.expires_at, Some(new))
            }
        };
        let unpublishable =
            |why: String| Failure::transient(Code::Unavailable, format!("the token cannot be published: {why}"));
        let key = connection.key.clone().ok_or_else(|| unpublishable("its host is not known".to_owned()))?;
        let entry = Entry::new(key, password, connection.last_copy).map_err(|why| unpublishable(why.to_string()))?;
        let trouble = signed_in.trouble.clone();
        let repeats = *source == Source::WorkspaceToken && token.method == Method::DatabricksCli;
        Ok((entry, Ready { index, expires_at, new, trouble, repeats }))
    }

    // ---- what is said and remembered ----

    /// The workspace's time now.
    fn now(&self, connections: &[usize], signed_in: &SignedIn) -> Timestamp {
        let known = connections.first().map_or_else(Timestamp::now, |index| self.standings[*index].now);
        signed_in.anchor.as_ref().map_or(known, |anchor| anchor.server)
    }

    /// Says what a sign-in brought, once where it keeps bringing the same, and heeds the clock that it told.
    fn heed(&mut self, leader: usize, connections: &[usize], brought: &Brought) {
        let signed_in = &brought.signed_in;
        let is_news = !connections.iter().all(|index| self.retries.is_in_trouble(Who::Connection(*index)));
        // A token that did not pass before will not pass now.
        let in_vain = connections.iter().all(|index| self.retries.has_failed(Who::Connection(*index)));
        if is_news || !(signed_in.repeated || in_vain) {
            for warning in &signed_in.warnings {
                tracing::warn!("{warning}");
            }
            let minted = brought.parcels.iter().filter_map(|parcel| parcel.fresh.as_ref().ok());
            let minted = minted.filter(|fresh| fresh.source.is_minted()).map(|fresh| &*fresh.token).next();
            announce::obtained(&signed_in.token, minted, self.now(connections, signed_in));
        }
        match (&signed_in.trouble, signed_in.repeated) {
            (Some(trouble), _) if is_news => announce::failed(trouble, None, &self.names(connections)),
            (None, true) if is_news => {
                tracing::info!("The Databricks CLI has no newer token yet and will be asked again")
            }
            _ => {}
        }
        self.heed_clock(leader, signed_in);
    }

    fn heed_clock(&mut self, leader: usize, signed_in: &SignedIn) {
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
        self.record.set_clock(origin, anchor.clone());
    }

    fn done(&mut self, one: Ready) {
        let Ready { index, expires_at, new, trouble, repeats } = one;
        let now = Timestamp::now();
        let who = Who::Connection(index);
        let known = self.record.connection_mut(self.config, &self.config.connections[index]);
        known.last_attempt_at = Some(now);
        known.last_error = trouble;
        known.next_attempt_at = None;
        let outcome = match new {
            Some(published) => {
                known.last_rotation_at = Some(now);
                // The files beside the entry still hold the one before.
                let before = known.published.take().map(|before| before.fingerprint);
                known.beside = known.beside.take().or(before);
                known.published = Some(published);
                self.retries.succeeded(who, now);
                announce::rotated(&self.config.connections[index].name, expires_at);
                Outcome::Rotated { expires_at }
            }
            None => {
                let there = self.standings[index].now;
                let left = expires_at.duration_since(there);
                let renewed = repeats.then(|| ask_cli_again(there, expires_at)).flatten();
                // By this machine's clock, as all waits are.
                let until = renewed.and_then(|at| now.checked_add(at.duration_since(there)).ok());
                self.retries.repeated(who, until, left, now);
                Outcome::NotDue { expires_at: Some(expires_at) }
            }
        };
        self.outcomes.push((index, self.config.connections[index].name.clone(), outcome));
    }

    fn failed(&mut self, who: Who, connections: &[usize], failure: &Failure) {
        let now = Timestamp::now();
        let left: Option<SignedDuration> = connections.iter().filter_map(|index| self.standings[*index].left()).min();
        let (next, is_news) = self.retries.failed(who, failure, left, now);
        let wait = next.duration_since(now);
        let outlive = connections.iter().all(|index| self.standings[*index].outlives_next_run());
        let given_up = self.retries.gives_up(Duration::try_from(wait).unwrap_or_default(), outlive);
        // A command must not end in silence, however often it has tried.
        if is_news || (given_up && failure.is_transient()) {
            announce::failed(failure, (!given_up).then_some((next, wait)), &self.names(connections));
        } else {
            tracing::debug!("{failure} (still)");
        }
        for index in connections {
            let name = &self.config.connections[*index].name;
            if let Some(at) = self.standings[*index].expired_at().filter(|at| self.retries.expired(*index, *at)) {
                announce::expired(name, at, failure);
            }
            let known = self.record.connection_mut(self.config, &self.config.connections[*index]);
            known.failed(failure, now, next);
            self.outcomes.push((*index, name.clone(), Outcome::Failed(failure.clone())));
        }
    }

    fn names(&self, connections: &[usize]) -> Vec<&'a str> {
        connections.iter().map(|index| self.config.connections[*index].name.as_str()).collect()
    }
}
