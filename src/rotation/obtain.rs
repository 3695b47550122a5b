//! What one identity brings for the connections that share it: it signs in, finds their databases, mints credentials, and
//! proves them by a login where that is wished for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::locate::Known;
use super::schedule::{dies_before_next_run, refresh_at};
use crate::auth::{self, Method, Needs, SignedIn};
use crate::config::{Config, Connection, Place, Source, Verify, Workspace};
use crate::failure::{Code, Failure};
use crate::http::Line;
use crate::lakebase::{self, Api, Found, Refused, State, Target};
use crate::logging::{announce, secrets};
use crate::postgres;
use crate::token::Token;

/// For minting, an access token need only live until its request has arrived.
pub(super) const ENOUGH_TO_MINT: SignedDuration = SignedDuration::from_secs(60);

/// Of more places than these only those are asked for again that may have changed.
const FEW_PLACES: usize = 20;

/// A place is not taken to be where it was for longer.
const LONGEST_TRUST: SignedDuration = SignedDuration::from_hours(6);

/// How long a host that the API does not know is not asked for again.
const LONGEST_DOUBT: SignedDuration = SignedDuration::from_hours(24);

/// What an endpoint that was idle may take to wake (cold starts of more than 10 s were seen).
const WAKING: Duration = Duration::from_secs(60);

/// What a login may take where the API says that the database is up.
const UP: Duration = Duration::from_secs(10);

/// So many logins are made side by side.
const LOGINS_AT_ONCE: usize = 8;

/// What is to be brought, and what is known already.
pub(super) struct Errand {
    pub(super) config: Arc<Config>,
    pub(super) leader: usize,
    pub(super) connections: Vec<usize>,
    /// What was found last, by place.
    pub(super) known: BTreeMap<Place, Known>,
    /// How long one request or child may take.
    pub(super) limit: Duration,
    pub(super) person_can_serve: bool,
    pub(super) by_timer: bool,
    pub(super) least: SignedDuration,
    /// The workspace's time, as far as it is known.
    pub(super) now: Timestamp,
}

/// What one identity brought.
pub(super) struct Obtained {
    pub(super) leader: usize,
    pub(super) connections: Vec<usize>,
    pub(super) result: Result<Brought, Failure>,
}

/// What a sign-in led to.
pub(super) struct Brought {
    pub(super) signed_in: SignedIn,
    /// Who signed in, where a connection needed to know.
    pub(super) user: Option<String>,
    pub(super) known: BTreeMap<Place, Known>,
    pub(super) parcels: Vec<Parcel>,
}

/// What there is for one connection.
pub(super) struct Parcel {
    pub(super) index: usize,
    /// The connection with its key, where that had to be found.
    pub(super) located: Option<Connection>,
    pub(super) fresh: Result<Fresh, Refused>,
}

/// A credential to be published.
#[derive(Clone)]
pub(super) struct Fresh {
    pub(super) token: Arc<Token>,
    pub(super) source: Source,
}

impl Parcel {
    fn is_for_a_dead_token(&self) -> bool {
        let Err(refused) = &self.fresh else { return false };
        refused.failure.is_transient() && refused.failure.code == Code::SignInRefused
    }
}

impl Errand {
    pub(super) async fn run(self) -> Obtained {
        let config = Arc::clone(&self.config);
        let line = Line::to(&config.workspaces[self.leader]);
        let result = self.signed_in_and_brought(&line).await;
        Obtained { leader: self.leader, connections: self.connections, result }
    }

    fn wanted(&self) -> impl Iterator<Item = (usize, &Connection)> {
        self.connections.iter().map(|index| (*index, &self.config.connections[*index]))
    }

    async fn signed_in_and_brought(&self, line: &Line<'_>) -> Result<Brought, Failure> {
        let signed_in = self.sign_in(line, false).await?;
        let method = signed_in.token.method;
        let brought = self.bring(line, signed_in).await;
        // The vendor's CLI goes on handing out a token that the workspace does not take any more.
        if method != Method::DatabricksCli || !brought.parcels.iter().any(Parcel::is_for_a_dead_token) {
            return Ok(brought);
        }
        Ok(self.bring(line, self.sign_in(line, true).await?).await)
    }

    /// Signs in; with `anew`, what was handed out before will not do.
    async fn sign_in(&self, line: &Line<'_>, anew: bool) -> Result<SignedIn, Failure> {
        let publishes_token = self.wanted().any(|(_, connection)| self.may_publish_token(connection));
        let is_due = |issued, expires: Timestamp| {
            let left = expires.duration_since(self.now);
            if anew {
                true
            } else if publishes_token {
                refresh_at(issued, expires, self.config.interval) <= self.now
                    || left < self.least
                    || (self.by_timer && dies_before_next_run(issued, expires, self.now))
            } else {
                left < ENOUGH_TO_MINT
            }
        };
        let (limit, now) = (self.limit, self.now);
        let needs = Needs { limit, is_due: &is_due, person_can_serve: self.person_can_serve, now };
        auth::sign_in(line, &self.config.environment, &needs).await
    }

    /// Whether the workspace's own token may become this connection's password.
    fn may_publish_token(&self, connection: &Connection) -> bool {
        let known = connection.place.as_ref().and_then(|place| self.known.get(place));
        !connection.credential.is_minted()
            || (connection.only_if_found && known.is_none_or(|known| known.found.is_none()))
    }

    async fn bring(&self, line: &Line<'_>, signed_in: SignedIn) -> Brought {
        let secret = signed_in.token.secret.clone();
        let subject = signed_in.token.subject().map(str::to_owned);
        let api = Api { line, token: &secret, subject: subject.as_deref(), limit: self.limit };
        let user = self.user(&api).await;
        let found = self.find(&api).await;
        let targets: Vec<&Target> = self.wanted().filter_map(|(_, one)| minted_for(one, &found)).collect();
        let minted = lakebase::mint(&api, signed_in.token.method, targets).await;
        let plain = Fresh { token: Arc::new(signed_in.token.clone()), source: Source::WorkspaceToken };
        let fresh = |connection: &Connection| -> Result<Fresh, Refused> {
            match connection.place.as_ref().and_then(|place| found.get(place)) {
                Some(Err(refused)) => Err(refused.clone()),
                Some(Ok(Known { found: Some(found), .. })) if connection.credential.is_minted() => {
                    let token = minted.get(&found.target).cloned().unwrap_or_else(|| Err(not_asked(found)))?;
                    Ok(Fresh { token, source: Source::DatabaseCredential })
                }
                _ => Ok(plain.clone()),
            }
        };
        let mut parcels = Vec::with_capacity(self.connections.len());
        for (index, connection) in self.wanted() {
            let at = connection.place.as_ref().and_then(|place| found.get(place)?.as_ref().ok()?.found.as_ref());
            let (located, fresh) = match locate(connection, at, &user) {
                Ok(located) => (located, fresh(connection)),
                Err(refused) => (None, fresh(connection).and(Err(refused))),
            };
            parcels.push(Parcel { index, located, fresh });
        }
        prove(&self.config, &mut parcels, &found, self.limit).await;
        let known = found.into_iter().filter_map(|(place, known)| Some((place, known.ok()?))).collect();
        Brought { signed_in, user: user.ok().flatten(), known, parcels }
    }

    /// Who signed in: by the token, else by the API; none where nobody needs to know.
    async fn user(&self, api: &Api<'_>) -> Result<Option<String>, Failure> {
        if self.wanted().all(|(_, connection)| connection.address.user.is_some()) {
            return Ok(None);
        }
        match api.subject {
            Some(subject) => Ok(Some(subject.to_owned())),
            None => api.me().await.map(Some),
        }
    }

    /// Every place of these connections: as the API has it now, or as it was last where it cannot be asked.
    async fn find(&self, api: &Api<'_>) -> BTreeMap<Place, Result<Known, Refused>> {
        let mut all = BTreeMap::new();
        let places: BTreeMap<&Place, &Connection> =
            self.wanted().filter_map(|(_, connection)| Some((connection.place.as_ref()?, connection))).collect();
        let few = places.len() <= FEW_PLACES;
        for (place, connection) in places {
            let known = self.known.get(place);
            let answer = match known {
                Some(known) if !known.may_have_changed(few, connection.only_if_found) => Ok(known.clone()),
                _ => find_one(api, place, known, connection.only_if_found).await,
            };
            all.insert(place.clone(), answer);
        }
        all
    }
}

impl Known {
    fn may_have_changed(&self, few: bool, only_if_found: bool) -> bool {
        let age = Timestamp::now().duration_since(self.asked_at);
        match &self.found {
            None => !only_if_found || age.abs() > LONGEST_DOUBT,
            Some(found) => few || found.state != State::Available || age.abs() > LONGEST_TRUST,
        }
    }
}

async fn find_one(api: &Api<'_>, place: &Place, known: Option<&Known>, only_if_found: bool) -> Result<Known, Refused> {
    let before = known.and_then(|known| known.found.as_ref());
    match api.find(place, before).await {
        Ok(found) => {
            announce::found(place, before, &found);
            Ok(Known { found: Some(found), asked_at: Timestamp::now() })
        }
        // It is gone only where the API says so; an outage of the API takes nothing away.
        Err(failure) if before.is_some() && failure.code != Code::Configuration => {
            tracing::debug!("{place} is taken to be where it was: {failure}");
            Ok(known.cloned().unwrap_or_else(Known::nothing))
        }
        Err(failure) if only_if_found => {
            tracing::debug!("{place}: the workspace's token serves, since {failure}");
            let asked_at = if failure.is_transient() { Timestamp::MIN } else { Timestamp::now() };
            Ok(Known { found: None, asked_at })
        }
        Err(failure) => Err(Refused { shared: failure.is_transient(), failure }),
    }
}

fn minted_for<'f>(connection: &Connection, found: &'f BTreeMap<Place, Result<Known, Refused>>) -> Option<&'f Target> {
    let known = found.get(connection.place.as_ref()?)?.as_ref().ok()?;
    known.found.as_ref().filter(|_| connection.credential.is_minted()).map(|found| &found.target)
}

fn not_asked(found: &Found) -> Refused {
    let failure = Failure::transient(Code::Unavailable, format!("no credential came for {}", found.target));
    Refused { failure, shared: false }
}

/// A connection with its key, where host or user are not set.
///
/// # Errors
/// There is no such host, or nobody knows who signed in.
fn locate(
    connection: &Connection,
    at: Option<&Found>,
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
    // Some servers repeat whatever they are sent: that must not become a name that is written and shown everywhere.
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

fn no_host(found: &Found, read_only: bool) -> Failure {
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

// ---- proof by login ----

/// Logs in with each credential that is to be proved so; what PostgreSQL does not take is refused.
async fn prove(
    config: &Config,
    parcels: &mut [Parcel],
    found: &BTreeMap<Place, Result<Known, Refused>>,
    limit: Duration,
) {
    let is_wanted = |parcel: &Parcel| config.connections[parcel.index].verify == Verify::Login && parcel.fresh.is_ok();
    let wanted: Vec<usize> = (0..parcels.len()).filter(|at| is_wanted(&parcels[*at])).collect();
    for few in wanted.chunks(LOGINS_AT_ONCE) {
        let mut logins = tokio::task::JoinSet::new();
        for at in few {
            let parcel = &parcels[*at];
            let Ok(fresh) = &parcel.fresh else { continue };
            let connection = parcel.located.as_ref().unwrap_or(&config.connections[parcel.index]).clone();
            let (at, token) = (*at, Arc::clone(&fresh.token));
            let place = connection.place.as_ref();
            let state = place.and_then(|place| Some(found.get(place)?.as_ref().ok()?.found.as_ref()?.state));
            let limit = match state {
                Some(State::Available) => limit.min(UP),
                None => limit,
                Some(_) => limit.max(WAKING),
            };
            logins.spawn(async move {
                let Some(target) = connection.login_target() else { return (at, Ok(())) };
                (at, postgres::login(&target, &token.secret, limit).await.map(|_| ()))
            });
        }
        while let Some(done) = logins.join_next().await {
            if let Ok((at, Err(failure))) = done {
                parcels[at].fresh = Err(Refused { failure, shared: false });
            }
        }
    }
}

/// Whether a connection of this workspace could be told from here who it signs in as.
pub(super) fn sign_in_name(workspace: &Workspace) -> String {
    let by = workspace.client.as_ref().map(|client| client.id.as_str()).or(workspace.profile.as_deref());
    format!("{} {}", workspace.host.origin(), by.unwrap_or("databricks-cli"))
}
