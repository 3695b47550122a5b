//! Asks the API where the databases of one identity are, several at a time, and fills in the connections' hosts.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{AT_ONCE, GRACE, Outbox, SignInJob};
use crate::failure::{Code, Failure};
use crate::foreign::secrets;
use crate::lakebase::{Api, DatabaseInfo, Refused, State};
use crate::logging::announce;
use crate::model::{Connection, DatabaseRef};
use crate::rotation::record::CachedLookup;
use crate::rotation::side_by_side::SideBySide;

/// With more databases than this, only those that may have changed are looked up again.
const FEW_DATABASES: usize = 20;

/// How long a place may be used without asking the API again.
const LONGEST_TRUST: SignedDuration = SignedDuration::from_hours(6);

/// How long the API is not asked again for a host that it does not know.
const LONGEST_DOUBT: SignedDuration = SignedDuration::from_hours(24);

/// The answers, by database.
pub(super) type Lookups = BTreeMap<DatabaseRef, Result<CachedLookup, Refused>>;

/// An answer, and the failure if the API did not answer within the time limit.
pub(super) struct Answered {
    lookup: Result<CachedLookup, Refused>,
    silence: Option<Failure>,
}

impl SignInJob {
    /// Looks up each database of these connections. If the API cannot be asked, the last result is used.
    pub(super) fn start_lookups<'a>(
        &'a self,
        api: &'a Api<'a>,
        wanted: &[usize],
    ) -> SideBySide<'a, &'a DatabaseRef, Answered> {
        let databases: BTreeSet<&DatabaseRef> =
            wanted.iter().filter_map(|index| self.config.connections[*index].database_ref.as_ref()).collect();
        let few = databases.len() <= FEW_DATABASES;
        let mut lookups = SideBySide::new(AT_ONCE);
        for database in databases {
            let (before, wanted) = (self.lookups.get(database), self.wanted_of(database));
            lookups.add(database, async move {
                match before {
                    Some(before) if !before.may_have_changed(few, wanted.only_if_found) => {
                        Answered { lookup: Ok(before.clone()), silence: None }
                    }
                    _ => look_up(api, database, before, wanted).await,
                }
            });
        }
        lookups
    }

    /// The next results: all of them, or those that are ready after a moment. Once the API does not answer one request in time, the
    /// others are not awaited.
    pub(super) async fn next_lookups(
        &self,
        lookups: &mut SideBySide<'_, &DatabaseRef, Answered>,
        outbox: &mut Outbox<'_>,
    ) -> Lookups {
        let mut all = Lookups::new();
        let mut end: Option<Instant> = None;
        loop {
            let next = async {
                match end {
                    Some(end) => tokio::time::timeout_at(end, lookups.next()).await.ok().flatten(),
                    None => lookups.next().await,
                }
            };
            let Some((database, answered)) = outbox.while_waiting(next).await else { return all };
            end.get_or_insert_with(|| Instant::now() + GRACE);
            all.insert(database.clone(), answered.lookup);
            let Some(failure) = answered.silence else { continue };
            for database in lookups.give_up() {
                let (before, wanted) = (self.lookups.get(database), self.wanted_of(database));
                all.insert(database.clone(), without_answer(database, before, wanted, failure.clone()));
            }
        }
    }

    fn wanted_of(&self, database: &DatabaseRef) -> Wanted {
        let all = self.connections.iter().map(|index| &self.config.connections[*index]);
        let mut of_it = all.filter(|one| one.database_ref.as_ref() == Some(database));
        Wanted {
            host: of_it.clone().any(|one| one.address.host.is_none()),
            only_if_found: of_it.all(|one| one.only_if_found),
        }
    }
}

/// What the connections of a database want of it.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// One of them does not know its host otherwise.
    host: bool,
    /// All of them can do without it. Where one cannot, its failure is told, and costs the others nothing.
    only_if_found: bool,
}

impl CachedLookup {
    fn may_have_changed(&self, few: bool, only_if_found: bool) -> bool {
        let age = Timestamp::now().duration_since(self.asked_at);
        match &self.found {
            None => !only_if_found || age.abs() > LONGEST_DOUBT,
            Some(found) => few || found.state != State::Available || age.abs() > LONGEST_TRUST,
        }
    }
}

async fn look_up(api: &Api<'_>, database: &DatabaseRef, before: Option<&CachedLookup>, wanted: Wanted) -> Answered {
    let started = Instant::now();
    let known = before.and_then(|before| before.found.as_ref());
    match api.find(database, known).await {
        Ok(found) => {
            announce::found(database, known, &found);
            Answered { lookup: Ok(CachedLookup { found: Some(found), asked_at: Timestamp::now() }), silence: None }
        }
        Err(failure) => {
            let silence = (failure.is_transient() && started.elapsed() >= api.limit).then(|| failure.clone());
            Answered { lookup: without_answer(database, before, wanted, failure), silence }
        }
    }
}

/// The result for a database that the API did not find, or could not be asked about.
fn without_answer(
    database: &DatabaseRef,
    before: Option<&CachedLookup>,
    wanted: Wanted,
    failure: Failure,
) -> Result<CachedLookup, Refused> {
    // That it had no host yet is no answer, and would hide for ever why there is none now.
    let is_of_use = |found: &DatabaseInfo| !wanted.host || found.host.is_some() || found.read_only_host.is_some();
    match before.filter(|before| before.found.as_ref().is_some_and(is_of_use)) {
        // Only the API's own word means that it is gone; an outage does not.
        Some(before) if failure.code != Code::Configuration => {
            tracing::debug!("{database} is taken to be where it was: {failure}");
            Ok(before.clone())
        }
        _ if wanted.only_if_found => {
            tracing::debug!("{database}: the workspace's token serves, since {failure}");
            let asked_at = if failure.is_transient() { Timestamp::MIN } else { Timestamp::now() };
            Ok(CachedLookup { found: None, asked_at })
        }
        _ => Err(Refused { shared: failure.is_transient(), failure }),
    }
}

/// The connection with its key, if its host or user is not set.
///
/// # Errors
/// There is no such host, or it is unknown who signed in.
pub(super) fn locate(
    connection: &Connection,
    at: Option<&DatabaseInfo>,
    user: &Result<Option<String>, Failure>,
) -> Result<Option<Connection>, Refused> {
    if !connection.is_open() {
        return Ok(None);
    }
    let alone = |failure: Failure| Refused { failure, shared: false };
    let host = at.and_then(|found| found.host_for(connection.read_only));
    if let (None, None, Some(found)) = (&connection.address.host, host, at) {
        return Err(alone(no_host(found, connection.read_only)));
    }
    let user = match user {
        Ok(user) => user.as_deref(),
        Err(_) if connection.address.user.is_some() => None,
        Err(failure) => return Err(Refused { failure: failure.clone(), shared: failure.is_transient() }),
    };
    // Some servers echo whatever they are sent. A secret must not become a name that is written and shown everywhere.
    if host.into_iter().chain(user).any(secrets::are_in) {
        let message = format!("what was found for connection {} holds a secret of this program", connection.name);
        return Err(alone(Failure::permanent(Code::Configuration, message).hint("set host and user in config.toml")));
    }
    let mut located = connection.clone();
    located.locate(host, user);
    if located.key.is_none() {
        let message = format!("what was found for connection {} cannot stand in a password file", connection.name);
        return Err(alone(Failure::permanent(Code::Configuration, message).hint("set host and user in config.toml")));
    }
    Ok(Some(located))
}

fn no_host(found: &DatabaseInfo, read_only: bool) -> Failure {
    let target = &found.target;
    match (read_only, found.state.remark()) {
        (true, _) => Failure::permanent(Code::Configuration, format!("{target} has no read-only host"))
            .hint("give it readable secondaries, or leave out read_only"),
        (false, Some(remark)) => {
            Failure::transient(Code::Unavailable, format!("{target} {remark}: it has no host yet"))
        }
        (false, None) => Failure::transient(Code::Unavailable, format!("{target} has no host yet"))
            .hint("it is asked for again; a database that was just made takes some minutes"),
    }
}
