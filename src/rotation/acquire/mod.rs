//! Gets credentials: each identity on its own, within a deadline. What is ready is handed over before the rest.
//!
//! One job signs in once and looks up, mints and proves for all connections of its identity. Nothing here writes anything.

mod lookup;
mod supply;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use self::supply::Group;
use super::backoff::Step;
use super::record::CachedLookup;
use super::request::RotateRequest;
use super::schedule::{Spread, dies_before_next_run, refresh_at};
use crate::auth::{self, KnownEndpoints, Needs, SignedIn};
use crate::config::Config;
use crate::failure::{Code, Failure};
use crate::http::WorkspaceClient;
use crate::lakebase::{Api, Refused};
use crate::model::token::Token;
use crate::model::{Connection, CredentialKind, DatabaseRef, Workspace};
use crate::os::clock::Anchor;
use crate::pgpass::Contents;

/// An access token that is only used for minting needs to live only until its requests have arrived.
pub(super) const ENOUGH_TO_MINT: SignedDuration = SignedDuration::from_secs(60);

/// How many requests or logins of one identity run at the same time.
const AT_ONCE: usize = 8;

/// So many identities sign in at the same moment where all goes well: each takes some memory for TLS, and a hundred at once would leave
/// the process as large as that for good.
static TURNS: Semaphore = Semaphore::const_new(16);

/// How long one waits for its turn, before it goes on without: the turns may be with those whose workspace does not answer.
const LONGEST_TURN: Duration = Duration::from_millis(250);

/// What is ready is handed over after this, even if something else is not.
const GRACE: Duration = Duration::from_millis(400);

/// The work for one identity.
pub(super) struct SignInJob {
    pub(super) config: Arc<Config>,
    /// The workspace that represents the identity, by its place in the configuration.
    pub(super) identity: usize,
    pub(super) connections: Vec<usize>,
    pub(super) request: RotateRequest,
    /// The last results of lookups.
    pub(super) lookups: BTreeMap<DatabaseRef, CachedLookup>,
    /// The password files, where connections are not located yet: they may hold a live credential for what those turn out to be.
    pub(super) files: Vec<Arc<Contents>>,
    /// These connections.
    pub(super) unlocated: BTreeSet<usize>,
    /// Those whose credential was refused to them alone when it was asked for last.
    pub(super) refused: BTreeSet<usize>,
    /// How long one request or child may take.
    pub(super) limit: Duration,
    /// When the whole job must be done.
    pub(super) deadline: Instant,
    pub(super) endpoints: KnownEndpoints,
    pub(super) person_can_serve: bool,
    /// The workspace's time, as far as known.
    pub(super) now: Timestamp,
    pub(super) spread: Spread,
}

/// What a job hands over, as soon as it is ready.
pub(super) enum Arrival {
    SignInResult(SignInResult),
    Failed {
        identity: usize,
        step: Step,
        connections: Vec<usize>,
        failure: Failure,
        /// Nothing follows.
        is_end: bool,
    },
    /// The job has ended.
    Ended {
        identity: usize,
        /// No failure concerned all connections of the identity.
        well: bool,
    },
}

impl Arrival {
    /// Stands for everything that a job has not handed over, because it panicked.
    pub(super) fn broken_off(identity: usize, connections: Vec<usize>) -> Self {
        let failure = Failure::broken_off("the sign-in");
        Arrival::Failed { identity, step: Step::SignIn, connections, failure, is_end: true }
    }

    /// The identity, if this ends its job.
    pub(super) fn ended(&self) -> Option<usize> {
        match self {
            Arrival::Ended { identity, .. } | Arrival::Failed { identity, is_end: true, .. } => Some(*identity),
            Arrival::SignInResult(_) | Arrival::Failed { .. } => None,
        }
    }
}

/// The results of a sign-in for some of its connections.
pub(super) struct SignInResult {
    pub(super) identity: usize,
    pub(super) signed_in: Arc<SignedIn>,
    /// The workspace's clock, if an answer showed it.
    pub(super) anchor: Option<Anchor>,
    /// The first result of this sign-in.
    pub(super) first: bool,
    /// Who signed in, if a connection needs to know.
    pub(super) user: Option<String>,
    pub(super) lookups: BTreeMap<DatabaseRef, CachedLookup>,
    pub(super) connections: Vec<ConnectionResult>,
}

/// The result for one connection.
pub(super) struct ConnectionResult {
    pub(super) index: usize,
    /// The connection with its key, if that had to be looked up.
    pub(super) located: Option<Connection>,
    pub(super) supply: Result<Supply, Refused>,
    /// The last step that was tried for it.
    pub(super) step: Step,
}

/// What the password file should hold.
#[derive(Clone)]
pub(super) enum Supply {
    New(NewCredential),
    /// What it already holds: only the entry's key was unknown.
    Present,
}

/// A new credential.
#[derive(Clone)]
pub(super) struct NewCredential {
    pub(super) token: Arc<Token>,
    pub(super) source: CredentialKind,
}

/// Results that are ready and not handed over yet.
struct Outbox<'l> {
    http: &'l WorkspaceClient<'l>,
    sender: UnboundedSender<Arrival>,
    identity: usize,
    signed_in: Option<Arc<SignedIn>>,
    first: bool,
    user: Option<String>,
    lookups: BTreeMap<DatabaseRef, CachedLookup>,
    connections: Vec<ConnectionResult>,
    /// How long the oldest of them has been here.
    since: Option<Instant>,
    outstanding: BTreeSet<usize>,
    well: bool,
}

impl Outbox<'_> {
    fn put(&mut self, acquired: ConnectionResult) {
        self.outstanding.remove(&acquired.index);
        self.well &= !matches!(&acquired.supply, Err(refused) if refused.shared);
        self.connections.push(acquired);
        self.since.get_or_insert_with(Instant::now);
    }

    fn hand_over(&mut self) {
        self.since = None;
        let Some(signed_in) = self.signed_in.clone().filter(|_| !self.connections.is_empty()) else { return };
        let result = SignInResult {
            identity: self.identity,
            // The API's answers show the clock later than the sign-in did.
            anchor: self.http.anchor().or_else(|| signed_in.anchor.clone()),
            signed_in,
            first: std::mem::take(&mut self.first),
            user: self.user.clone(),
            lookups: std::mem::take(&mut self.lookups),
            connections: std::mem::take(&mut self.connections),
        };
        // The receiver may be gone: then nobody needs the result.
        let _ = self.sender.send(Arrival::SignInResult(result));
    }

    /// Waits for `work`. Results that have been here for a moment are handed over meanwhile.
    async fn while_waiting<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        if let Some(since) = self.since {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep_until(since + GRACE) => self.hand_over(),
            }
        }
        work.await
    }

    fn end(mut self, rest: Option<Failure>) {
        self.hand_over();
        let (identity, well) = (self.identity, self.well && rest.is_none());
        if let Some(failure) = rest {
            let step = if self.signed_in.is_some() { Step::Mint } else { Step::SignIn };
            let connections = self.outstanding.into_iter().collect();
            let _ = self.sender.send(Arrival::Failed { identity, step, connections, failure, is_end: false });
        }
        let _ = self.sender.send(Arrival::Ended { identity, well });
    }
}

impl ConnectionResult {
    fn is_for_a_dead_token(&self) -> bool {
        let Err(refused) = &self.supply else { return false };
        refused.failure.is_transient() && refused.failure.code == Code::SignInRefused
    }
}

impl SignInJob {
    /// Runs the job, and sends results when they are ready.
    pub(super) async fn run(self, sender: UnboundedSender<Arrival>) {
        let config = Arc::clone(&self.config);
        let workspace = &config.workspaces[self.identity];
        let http = WorkspaceClient::new(&workspace.host, workspace.ca_file.as_deref(), workspace.route());
        let mut outbox = Outbox {
            http: &http,
            sender,
            identity: self.identity,
            signed_in: None,
            first: true,
            user: None,
            lookups: BTreeMap::new(),
            connections: Vec::new(),
            since: None,
            outstanding: self.connections.iter().copied().collect(),
            well: true,
        };
        // For as long as it works, and no longer waited for than this: nobody waits for one that hangs.
        let _turn = tokio::time::timeout(LONGEST_TURN, TURNS.acquire()).await;
        let started = Instant::now();
        let rest = match tokio::time::timeout_at(self.deadline, self.work(&http, &mut outbox)).await {
            Ok(done) => done.err(),
            Err(_) if outbox.outstanding.is_empty() => None,
            Err(_) => Some(self.too_slow(started.elapsed(), outbox.signed_in.is_some())),
        };
        outbox.end(rest);
    }

    /// Before it has signed in, another program may be what takes so long.
    fn too_slow(&self, after: Duration, is_signed_in: bool) -> Failure {
        let (origin, seconds) = (self.workspace().host.origin(), after.as_secs_f32().ceil());
        let workspace = self.workspace();
        if !is_signed_in && workspace.client.is_none() && workspace.may_ask_databricks_cli() {
            let message = format!("the sign-in to {origin} did not finish within {seconds} s");
            return Failure::transient(Code::Unavailable, message).hint(
                "it is tried again; if it stays so, run `databricks auth token` by hand to see whether the CLI hangs, and check network, VPN \
                 and proxy",
            );
        }
        Failure::transient(Code::Unavailable, format!("{origin} did not finish within {seconds} s"))
            .hint("it is tried again; if it stays so, check network, VPN and proxy")
    }

    fn workspace(&self) -> &Workspace {
        &self.config.workspaces[self.identity]
    }

    fn wanted(&self) -> impl Iterator<Item = (usize, &Connection)> {
        self.connections.iter().map(|index| (*index, &self.config.connections[*index]))
    }

    async fn work(&self, http: &WorkspaceClient<'_>, outbox: &mut Outbox<'_>) -> Result<(), Failure> {
        let signed_in = Arc::new(self.sign_in(http, false).await?);
        let all = self.connections.clone();
        let dead = self.bring(http, signed_in, &all, true, outbox).await;
        if !dead.is_empty() {
            // The API no longer accepts the token: the CLI may keep such a token, or the workspace may have revoked it.
            let signed_in = Arc::new(self.sign_in(http, true).await?);
            outbox.hand_over();
            self.bring(http, signed_in, &dead, false, outbox).await;
        }
        Ok(())
    }

    /// Signs in; `anew` rejects cached tokens.
    async fn sign_in(&self, http: &WorkspaceClient<'_>, anew: bool) -> Result<SignedIn, Failure> {
        let publishes_token = self.wanted().any(|(_, connection)| self.may_publish_token(connection));
        let (least, by_timer) = (self.request.least(), self.request.is_of_timer());
        let is_due = |issued, expires: Timestamp| {
            let left = expires.duration_since(self.now);
            if anew {
                true
            } else if publishes_token {
                refresh_at(issued, expires, self.config.interval, self.spread) <= self.now
                    || left < least
                    || (by_timer && dies_before_next_run(issued, expires, self.now))
            } else {
                left < ENOUGH_TO_MINT
            }
        };
        let (limit, now) = (self.limit, self.now);
        let (endpoints, person_can_serve) = (&self.endpoints, self.person_can_serve);
        let needs = Needs { limit, is_due: &is_due, endpoints, person_can_serve, now };
        auth::sign_in(self.workspace(), http, &self.config.environment, &needs).await
    }

    /// Whether the workspace's access token may become this connection's password.
    fn may_publish_token(&self, connection: &Connection) -> bool {
        let known = connection.database_ref.as_ref().and_then(|database_ref| self.lookups.get(database_ref));
        !connection.credential.is_minted()
            || (connection.only_if_found && known.is_none_or(|known| known.found.is_none()))
    }

    /// Gets what one sign-in can get for these connections. With `may_sign_in_again`, returns those for which the access token
    /// was refused.
    async fn bring(
        &self,
        http: &WorkspaceClient<'_>,
        signed_in: Arc<SignedIn>,
        wanted: &[usize],
        may_sign_in_again: bool,
        outbox: &mut Outbox<'_>,
    ) -> Vec<usize> {
        let secret = signed_in.token.secret.clone();
        let subject = signed_in.token.subject().map(str::to_owned);
        let workspace_id = self.workspace().workspace_id.as_deref();
        let headers = &signed_in.headers;
        let api = Api { http, workspace_id, token: &secret, headers, subject: subject.as_deref(), limit: self.limit };
        (outbox.signed_in, outbox.first) = (Some(Arc::clone(&signed_in)), true);
        let connection = |index: &usize| &self.config.connections[*index];
        // Connections that do not need the API do not wait for it.
        let (at_once, rest): (Vec<usize>, Vec<usize>) = wanted
            .iter()
            .partition(|index| connection(index).database_ref.is_none() && connection(index).address.user.is_some());
        let mut group = Group { job: self, api: &api, signed_in: &signed_in, may_sign_in_again, dead: Vec::new() };
        let (nobody, nowhere) = (Ok(None), BTreeMap::new());
        group.supply(&at_once, &nobody, &nowhere, outbox).await;
        if rest.is_empty() {
            return group.dead;
        }
        let user = outbox.while_waiting(self.user(&api, &rest)).await;
        outbox.user = user.as_ref().ok().cloned().flatten();
        let mut finding = self.start_lookups(&api, &rest);
        let mut left = rest;
        while !left.is_empty() {
            let found = self.next_lookups(&mut finding, outbox).await;
            let is_found = |index: &usize| match &connection(index).database_ref {
                Some(database_ref) => found.contains_key(database_ref),
                None => true,
            };
            let ready: Vec<usize> = left.extract_if(.., |index| is_found(index)).collect();
            for (database_ref, lookup) in &found {
                if let Ok(lookup) = lookup {
                    outbox.lookups.insert(database_ref.clone(), lookup.clone());
                }
            }
            group.supply(&ready, &user, &found, outbox).await;
        }
        group.dead
    }

    /// Who signed in: from the token, else from the API; none if nobody needs to know.
    async fn user(&self, api: &Api<'_>, wanted: &[usize]) -> Result<Option<String>, Failure> {
        if wanted.iter().all(|index| self.config.connections[*index].address.user.is_some()) {
            return Ok(None);
        }
        match api.subject {
            Some(subject) => Ok(Some(subject.to_owned())),
            None => api.me().await.map(Some),
        }
    }
}
