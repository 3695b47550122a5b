//! Credentials for connections with known databases: minted together, and proved by a login if that is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lookup::{Lookups, locate};
use super::{AT_ONCE, ConnectionResult, NewCredential, Outbox, SignInJob, Supply};
use crate::auth::SignedIn;
use crate::failure::{Code, Failure};
use crate::lakebase::{self, Api, DatabaseInfo, Refused, State, Target};
use crate::model::token::Token;
use crate::model::{Connection, CredentialKind, Verify};
use crate::os::clock::Reading;
use crate::postgres;
use crate::rotation::backoff::Step;
use crate::rotation::record::{CachedLookup, Record};
use crate::rotation::schedule::Spread;
use crate::rotation::side_by_side::SideBySide;
use crate::rotation::status::survey;

use std::time::Duration;

/// How long a login to an idle endpoint may take (cold starts of more than 10 s have been seen).
const WAKING: Duration = Duration::from_secs(60);

/// How long a login may take if the API says that the database is up.
const UP: Duration = Duration::from_secs(10);

/// What was minted, for which database and how long.
type Minted = BTreeMap<(Target, Option<u32>), Result<Arc<Token>, Refused>>;

/// What one sign-in gets for its connections, one group after the other.
pub(super) struct Group<'a> {
    pub(super) job: &'a SignInJob,
    pub(super) api: &'a Api<'a>,
    pub(super) signed_in: &'a SignedIn,
    pub(super) may_sign_in_again: bool,
    /// Those for which the access token was refused, if a new sign-in may help.
    pub(super) dead: Vec<usize>,
}

impl Group<'_> {
    /// Mints and proves the credentials that these connections need, and puts the results into the outbox.
    pub(super) async fn supply(
        &mut self,
        wanted: &[usize],
        user: &Result<Option<String>, Failure>,
        lookups: &Lookups,
        outbox: &mut Outbox<'_>,
    ) {
        if wanted.is_empty() {
            return;
        }
        let connections = &self.job.config.connections;
        let mut located: BTreeMap<usize, Result<Option<Connection>, Refused>> = BTreeMap::new();
        for index in wanted {
            located.insert(*index, locate(&connections[*index], found(&connections[*index], lookups), user));
        }
        let present: Vec<usize> = wanted.iter().copied().filter(|index| self.is_present(*index, &located)).collect();
        let fresh: Vec<usize> = wanted.iter().copied().filter(|index| !present.contains(index)).collect();
        let minted = outbox.while_waiting(self.mint(&fresh, lookups)).await;
        let plain =
            NewCredential { token: Arc::new(self.signed_in.token.clone()), source: CredentialKind::WorkspaceToken };
        let mut proofs = SideBySide::new(AT_ONCE);
        for (index, located) in located {
            let connection = &connections[index];
            let supply = match located {
                Ok(_) if present.contains(&index) => Ok(Supply::Present),
                _ => credential(connection, lookups, &minted, &plain).map(Supply::New),
            };
            let is_found = found(connection, lookups).is_some() || connection.database_ref.is_none();
            let step = if is_found { Step::Mint } else { Step::Resolve };
            let acquired = match located {
                Ok(located) => ConnectionResult { index, located, supply, step },
                Err(refused) => {
                    ConnectionResult { index, located: None, supply: supply.and(Err(refused)), step: Step::Resolve }
                }
            };
            if self.may_sign_in_again && acquired.is_for_a_dead_token() {
                self.dead.push(index);
            } else if let (Verify::Login, Ok(Supply::New(fresh))) = (connection.verify, &acquired.supply) {
                let token = Arc::clone(&fresh.token);
                let one = acquired.located.as_ref().unwrap_or(connection).clone();
                let state = found(connection, lookups).map(|found| found.state);
                proofs.add(acquired, prove(one, token, state, self.job.limit));
            } else {
                outbox.put(acquired);
            }
        }
        while let Some((mut acquired, proof)) = outbox.while_waiting(proofs.next()).await {
            if let Err(failure) = proof {
                acquired.supply = Err(Refused { failure, shared: false });
                acquired.step = Step::Login;
            }
            outbox.put(acquired);
        }
    }

    /// A credential for each database that needs one; those that shall live equally long share one.
    async fn mint(&self, fresh: &[usize], lookups: &Lookups) -> Minted {
        let connections = &self.job.config.connections;
        let refused = self.job.refused.iter().filter_map(|index| minted_for(&connections[*index], lookups)).collect();
        let mut by_life: BTreeMap<Option<u32>, Vec<&Target>> = BTreeMap::new();
        for index in fresh {
            let target = minted_for(&connections[*index], lookups);
            by_life.entry(connections[*index].ttl).or_default().extend(target);
        }
        let mut all = Minted::new();
        for (ttl, targets) in by_life {
            let minted = lakebase::mint(self.api, self.signed_in.token.method, targets, ttl, &refused).await;
            all.extend(minted.into_iter().map(|(target, one)| ((target, ttl), one)));
        }
        all
    }

    /// Whether a connection that was just located already has a good credential in its entry.
    fn is_present(&self, index: usize, located: &BTreeMap<usize, Result<Option<Connection>, Refused>>) -> bool {
        let Some(Ok(Some(located))) = located.get(&index) else { return false };
        if !self.job.unlocated.contains(&index) {
            return false;
        }
        let (config, only, record) = (&self.job.config, std::slice::from_ref(located), Record::default());
        self.job.files.iter().any(|file| {
            let statuses = survey(config, only, &record, file, &Reading::now(), Spread::NONE);
            statuses.first().is_some_and(|status| !self.job.request.selects(status, None))
        })
    }
}

fn found<'l>(connection: &Connection, lookups: &'l Lookups) -> Option<&'l DatabaseInfo> {
    lookups.get(connection.database_ref.as_ref()?)?.as_ref().ok()?.found.as_ref()
}

fn minted_for<'l>(connection: &Connection, lookups: &'l Lookups) -> Option<&'l Target> {
    found(connection, lookups).filter(|_| connection.credential.is_minted()).map(|found| &found.target)
}

/// The credential for this connection.
fn credential(
    connection: &Connection,
    lookups: &Lookups,
    minted: &Minted,
    plain: &NewCredential,
) -> Result<NewCredential, Refused> {
    match connection.database_ref.as_ref().and_then(|database_ref| lookups.get(database_ref)) {
        Some(Err(refused)) if !connection.only_if_found => Err(refused.clone()),
        Some(Ok(CachedLookup { found: Some(found), .. })) if connection.credential.is_minted() => {
            let token = minted
                .get(&(found.target.clone(), connection.ttl))
                .cloned()
                .unwrap_or_else(|| Err(not_asked(found)))?;
            Ok(NewCredential { token, source: CredentialKind::DatabaseCredential })
        }
        _ => match plain.token.method.is_no_password() {
            Some(why) => Err(Refused { failure: no_password(connection, why), shared: false }),
            None => Ok(plain.clone()),
        },
    }
}

/// A token that opens the API alone.
fn no_password(connection: &Connection, why: &str) -> Failure {
    let message = format!("{why}, and the API knows no database for connection {}", connection.name);
    Failure::permanent(Code::Configuration, message)
        .hint("name the database by instance or endpoint: `dbx-rotator connections` lists them")
}

fn not_asked(found: &DatabaseInfo) -> Refused {
    let failure = Failure::transient(Code::Unavailable, format!("no credential came for {}", found.target));
    Refused { failure, shared: false }
}

/// Proves a credential by a login.
async fn prove(
    connection: Connection,
    token: Arc<Token>,
    state: Option<State>,
    limit: Duration,
) -> Result<(), Failure> {
    let limit = match state {
        Some(State::Available) => limit.min(UP),
        None => limit,
        Some(_) => limit.max(WAKING),
    };
    let Some(target) = connection.login_target() else { return Ok(()) };
    postgres::login(&target, &token.secret, limit).await.map(drop)
}
