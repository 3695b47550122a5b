//! The stand-in workspace: a Databricks host on loopback for which nobody needs an account.
//!
//! It answers like a real one (discovery, token endpoint with real client checks, SCIM Me, both of Lakebase's APIs), signs real
//! JWTs with an adjustable life, and fails on demand in every way in which a workspace, a proxy or a network can fail. Tests, the
//! demo and the benchmarks use it; `tests/rotations/standin.rs` calls each of its endpoints with the vendor's own client, which
//! is why we may trust it.
//!
//! It has its own thread and runtime, so that tests may be synchronous or not. Dropping it closes every connection,
//! ends the thread and removes its files.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

// Explicit paths, so that this file may itself be included by path.
#[path = "workspace/account.rs"]
mod account;
#[path = "workspace/authority.rs"]
pub mod authority;
#[path = "workspace/canned.rs"]
mod canned;
#[path = "workspace/consent.rs"]
mod consent;
#[path = "workspace/endpoints.rs"]
mod endpoints;
#[path = "workspace/faults.rs"]
mod faults;
#[path = "workspace/http.rs"]
pub mod http;
#[path = "workspace/issuers.rs"]
pub mod issuers;
#[path = "workspace/issuing.rs"]
mod issuing;
#[path = "workspace/lakebase.rs"]
mod lakebase;
#[path = "workspace/scratch.rs"]
mod scratch;
#[path = "workspace/serving.rs"]
mod serving;
#[path = "workspace/tokens.rs"]
mod tokens;

use account::Account;
pub use account::{ACCOUNT_ID, CONSOLE};
use authority::{Authority, ServerCertificate};
use consent::Consents;
pub use consent::Decision;
use faults::Schedule;
pub use faults::{Endpoint, Fault};
pub use issuing::Holder;
use lakebase::Lakebase;
pub use lakebase::{Branch, ComputeEndpoint, Instance, Project, Upgraded};
pub use scratch::scratch_directory;
use serving::Mode;
use tokens::{Claims, Signer};

/// The service principal and the person that a workspace knows by default.
pub const DEFAULT_CLIENT_ID: &str = "6b1f0c52-8c3e-4a57-9d0e-2f4a7c91d3e8";
/// Like a real one in length and alphabet, but with another prefix, so that secret scanners do not report it.
pub const DEFAULT_CLIENT_SECRET: &str = "stand-in-d053c0ffee5eed1f2e3d4c5b6a7988";
pub const DEFAULT_USER: &str = "ada@example.com";

/// As long as a real RS256 token with one scope set.
const TOKEN_LENGTH: usize = 850;
/// How many issued tokens are remembered for leak checks; a benchmark issues more than anyone will look for.
const TOKENS_REMEMBERED: usize = 4096;

/// A running stand-in workspace.
pub struct Workspace {
    shared: Arc<Shared>,
    address: SocketAddr,
    scheme: &'static str,
    first_client: (String, String),
    user: String,
    authority: Authority,
    files: tempfile::TempDir,
    mode: watch::Sender<Mode>,
    thread: Option<JoinHandle<()>>,
    /// Where the services of this machine answer, without TLS.
    beside: Option<(SocketAddr, JoinHandle<()>)>,
}

/// Shared by the test's thread and the server's thread.
struct Shared {
    signer: Signer,
    /// Who opens the page where people sign in.
    user: String,
    workspace_id: String,
    /// A host of many workspaces, of which this is one.
    unified: bool,
    account: Account,
    token_length: usize,
    scheme: &'static str,
    address: SocketAddr,
    state: Mutex<State>,
    happened: Condvar,
}

#[derive(Default)]
struct State {
    token_life: Duration,
    clock_skew: i64,
    clients: HashMap<String, String>,
    /// The live refresh token of each user.
    refresh_tokens: HashMap<String, String>,
    /// Refresh tokens are replaced at each use (`enable_single_use_refresh_tokens`).
    single_use_refresh_tokens: bool,
    /// Who asks for consent, and what was agreed to.
    consents: Consents,
    /// Tokens that are not JWTs, with the identity and expiry that only the server knows.
    opaque: HashMap<String, Holder>,
    beside: issuers::Beside,
    issued: VecDeque<String>,
    lakebase: Lakebase,
    faults: HashMap<Endpoint, Schedule>,
    requests: Vec<String>,
    arrived: HashMap<Endpoint, usize>,
    tokens_issued: usize,
    connections: usize,
    listening: bool,
}

impl State {
    fn arrived(&self, endpoint: Endpoint) -> usize {
        self.arrived.get(&endpoint).copied().unwrap_or(0)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // If a test panicked while it held the lock, it has failed already; the others may go on.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Seconds since 1970 by the workspace's clock.
    fn now(&self) -> i64 {
        let local = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970").as_secs();
        i64::try_from(local).expect("a clock before the year 292 billion") + self.state().clock_skew
    }

    fn wait_until(&self, limit: Duration, mut reached: impl FnMut(&State) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        while !reached(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.happened.wait_timeout(state, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        true
    }
}

/// Settings of a workspace that is not started yet.
pub struct Builder {
    token_life: Duration,
    token_length: usize,
    clock_skew: i64,
    clients: Vec<(String, String)>,
    user: String,
    workspace_id: String,
    unified: bool,
    account: Account,
    names: Vec<String>,
    scheme: &'static str,
    discovery: bool,
    beside: bool,
    lakebase: Lakebase,
}

impl Builder {
    /// With the services that a job, a virtual machine or an app has beside it, without TLS.
    pub fn with_services(mut self) -> Self {
        self.beside = true;
        self
    }

    pub fn token_life(mut self, life: Duration) -> Self {
        self.token_life = life;
        self
    }

    /// The total length of the JWTs, reached with a padding claim.
    pub fn token_length(mut self, length: usize) -> Self {
        self.token_length = length;
        self
    }

    /// The server's clock is the local one plus this many seconds.
    pub fn clock_skew(mut self, seconds: i64) -> Self {
        self.clock_skew = seconds;
        self
    }

    /// Adds a service principal; the first one replaces the default one.
    pub fn client(mut self, id: &str, secret: &str) -> Self {
        self.clients.push((id.to_owned(), secret.to_owned()));
        self
    }

    /// The person who is signed in with the stand-in CLI.
    pub fn user(mut self, email: &str) -> Self {
        email.clone_into(&mut self.user);
        self
    }

    pub fn workspace_id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.workspace_id);
        self
    }

    /// Its certificate is also valid for this host name; can be repeated.
    pub fn known_as(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    /// Plain http, which is only allowed to loopback.
    pub fn http(mut self) -> Self {
        self.scheme = "http";
        self
    }

    /// The discovery document is 404, as on hosts that never had one: clients must fall back to `/oidc/v1/token`.
    pub fn without_discovery(mut self) -> Self {
        self.discovery = false;
        self
    }

    /// A host of many workspaces: its API redirects requests that do not name one to a login page.
    pub fn unified(mut self) -> Self {
        self.unified = true;
        self
    }

    pub fn credential_life(mut self, life: Duration) -> Self {
        self.lakebase.credential_life = life;
        self
    }

    /// Lakebase's lists have pages of at most this size, whatever is asked for.
    pub fn page_size(mut self, most: usize) -> Self {
        assert!(most > 0, "a page holds something");
        self.lakebase.page_size = most;
        self
    }

    /// As where Provisioned is retired: the API is not found.
    pub fn without_database_api(mut self) -> Self {
        self.lakebase.database_api = false;
        self
    }

    /// As where Autoscaling is not available yet: the API is not found.
    pub fn without_postgres_api(mut self) -> Self {
        self.lakebase.postgres_api = false;
        self
    }

    pub fn without_lakebase(self) -> Self {
        self.without_database_api().without_postgres_api()
    }

    pub fn start(mut self) -> Workspace {
        if self.clients.is_empty() {
            self.clients.push((DEFAULT_CLIENT_ID.to_owned(), DEFAULT_CLIENT_SECRET.to_owned()));
        }
        let files = scratch_directory(0o700);
        let authority = Authority::new("dbx-rotator stand-in workspace CA");
        std::fs::write(files.path().join("ca.pem"), authority.pem()).expect("write the CA");
        let signer = Signer::new();

        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = listener.local_addr().expect("the port just bound");
        let tls = (self.scheme == "https").then(|| {
            let elsewhere = ["login.microsoftonline.com", "oauth2.googleapis.com", "iamcredentials.googleapis.com"];
            let names = ["localhost", "127.0.0.1", "::1", "workspace.test"]
                .into_iter()
                .chain(elsewhere)
                .chain(self.account.names())
                .chain(self.names.iter().map(String::as_str));
            authority.certify(&names.collect::<Vec<_>>()).server_config(b"http/1.1")
        });

        let shared = Arc::new(Shared {
            signer,
            user: self.user.clone(),
            workspace_id: self.workspace_id,
            unified: self.unified,
            account: self.account,
            token_length: self.token_length,
            scheme: self.scheme,
            address,
            state: Mutex::new(State {
                token_life: self.token_life,
                clock_skew: self.clock_skew,
                clients: self.clients.iter().cloned().collect(),
                lakebase: self.lakebase,
                listening: true,
                ..State::default()
            }),
            happened: Condvar::new(),
        });
        let (mode, orders) = watch::channel(Mode::Serving);
        let thread = std::thread::Builder::new()
            .name("stand-in workspace".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || serving::serve(listener, tls, &shared, orders)
            })
            .expect("a thread");
        let beside = self.beside.then(|| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
            let address = listener.local_addr().expect("the port just bound");
            let (shared, orders) = (Arc::clone(&shared), mode.subscribe());
            (address, std::thread::spawn(move || serving::serve_beside(listener, &shared, orders)))
        });
        let workspace = Workspace {
            shared,
            address,
            scheme: self.scheme,
            first_client: self.clients.swap_remove(0),
            user: self.user,
            authority,
            files,
            mode,
            thread: Some(thread),
            beside,
        };
        if !self.discovery {
            workspace.faults_on(Endpoint::Discovery).always(Fault::Status(404));
        }
        workspace
    }
}

impl Workspace {
    pub fn start() -> Self {
        Self::builder().start()
    }

    pub fn builder() -> Builder {
        Builder {
            token_life: Duration::from_secs(3600),
            token_length: TOKEN_LENGTH,
            clock_skew: 0,
            clients: Vec::new(),
            user: DEFAULT_USER.to_owned(),
            workspace_id: "1444828305810485".to_owned(),
            unified: false,
            account: Account::default(),
            names: Vec::new(),
            scheme: "https",
            discovery: true,
            beside: false,
            lakebase: Lakebase::default(),
        }
    }

    // What clients need.

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The same workspace by another of its names: `localhost`, or `workspace.test` for clients that resolve that
    /// themselves.
    pub fn url_as(&self, name: &str) -> String {
        format!("{}://{name}:{}", self.scheme, self.port())
    }

    /// Where the services beside it answer.
    pub fn services_url(&self) -> String {
        format!("http://{}", self.beside.as_ref().expect("a workspace with services").0)
    }

    pub fn token_url(&self) -> String {
        self.url() + "/oidc/v1/token"
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// PEM of the authority that signed the server's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.files.path().join("ca.pem")
    }

    /// A certificate for another server, from the same authority.
    pub fn certify(&self, names: &[&str]) -> ServerCertificate {
        self.authority.certify(names)
    }

    /// Looks up the identity of a token, live or expired, or why it has none; also works after the workspace is gone.
    pub fn holders(&self) -> impl Fn(&str) -> Result<Holder, &'static str> + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |token| shared.holder(token)
    }

    pub fn client_id(&self) -> &str {
        &self.first_client.0
    }

    pub fn client_secret(&self) -> &str {
        &self.first_client.1
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    pub fn workspace_id(&self) -> &str {
        &self.shared.workspace_id
    }

    // Changes while it runs.

    pub fn set_token_life(&self, life: Duration) {
        self.shared.state().token_life = life;
    }

    pub fn set_clock_skew(&self, seconds: i64) {
        self.shared.state().clock_skew = seconds;
    }

    pub fn clock_skew(&self) -> i64 {
        self.shared.state().clock_skew
    }

    /// Adds a service principal, or gives a known one a new secret (the old one is refused from then on).
    pub fn set_client(&self, id: &str, secret: &str) {
        self.shared.state().clients.insert(id.to_owned(), secret.to_owned());
    }

    pub fn remove_client(&self, id: &str) {
        self.shared.state().clients.remove(id);
    }

    /// Signs the user in: the refresh token lives until [`Workspace::sign_out`].
    pub fn sign_in(&self, user: &str) -> String {
        let token = format!("stand-in-refresh-{}", tokens::random_hex(24));
        self.shared.state().refresh_tokens.insert(user.to_owned(), token.clone());
        token
    }

    /// The user's refresh token becomes invalid: `Refresh token is invalid`.
    pub fn sign_out(&self, user: &str) {
        self.shared.state().refresh_tokens.remove(user);
    }

    pub fn set_single_use_refresh_tokens(&self, single_use: bool) {
        self.shared.state().single_use_refresh_tokens = single_use;
    }

    /// Issues a token without a request: for `subject`, from now for `life`; with a life of zero it has just expired.
    pub fn issue(&self, subject: &str, life: Duration) -> String {
        let issued_at = self.shared.now();
        let seconds = i64::try_from(life.as_secs()).expect("a life within reason");
        self.shared.jwt(&Claims::of(subject).from(issued_at).until(issued_at + seconds))
    }

    // Faults.

    /// The next token request fails like this; called again, the one after it like that.
    pub fn fail_next(&self, fault: Fault) {
        self.faults_on(Endpoint::Token).next(fault);
    }

    /// From now on every `n`-th token request fails, with each of the faults in turn.
    pub fn fail_every(&self, n: usize, faults: Vec<Fault>) {
        self.faults_on(Endpoint::Token).every(n, faults);
    }

    pub fn faults_on(&self, endpoint: Endpoint) -> Faults<'_> {
        Faults { shared: &self.shared, endpoint }
    }

    /// Removes the planned faults of all endpoints (a stalled request stays stalled).
    pub fn heal(&self) {
        self.shared.state().faults.clear();
    }

    /// The workspace is down: open connections are dropped, new ones refused, until [`Workspace::outage_ends`].
    pub fn outage_begins(&self) {
        self.order(Mode::Outage, false);
    }

    pub fn outage_ends(&self) {
        self.order(Mode::Serving, true);
    }

    fn order(&self, mode: Mode, listening: bool) {
        self.mode.send_replace(mode);
        let obeyed = self.shared.wait_until(Duration::from_secs(10), |state| state.listening == listening);
        assert!(obeyed, "the stand-in workspace did not obey {mode:?}");
    }

    // Observations.

    /// Requests to the token endpoint that have arrived, answered or not.
    pub fn token_requests(&self) -> usize {
        self.requests_to(Endpoint::Token)
    }

    /// Requests to this endpoint that have arrived, answered or not.
    pub fn requests_to(&self, endpoint: Endpoint) -> usize {
        self.shared.state().arrived(endpoint)
    }

    /// Waits until `n` requests to this endpoint have arrived since the start; false if the time runs out first.
    pub fn wait_for_requests_to(&self, endpoint: Endpoint, n: usize, limit: Duration) -> bool {
        self.shared.wait_until(limit, |state| state.arrived(endpoint) >= n)
    }

    /// Tokens that the token endpoint issued.
    pub fn tokens_issued(&self) -> usize {
        self.shared.state().tokens_issued
    }

    /// Method and path of every request, in order; no query, no header, no body.
    pub fn requests(&self) -> Vec<String> {
        self.shared.state().requests.clone()
    }

    /// TCP connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// Waits until `n` token requests have arrived since the start; false if the time runs out first.
    pub fn wait_for_token_requests(&self, n: usize, limit: Duration) -> bool {
        self.wait_for_requests_to(Endpoint::Token, n, limit)
    }

    /// Waits until the token endpoint has issued `n` tokens since the start; false if the time runs out first.
    pub fn wait_for_tokens_issued(&self, n: usize, limit: Duration) -> bool {
        self.shared.wait_until(limit, |state| state.tokens_issued >= n)
    }

    /// All that must never appear in any output: client secrets, refresh tokens, the newest few thousand tokens.
    pub fn secrets(&self) -> Vec<String> {
        self.secret_source()()
    }

    /// The same for later use, perhaps after the workspace is gone.
    pub fn secret_source(&self) -> impl Fn() -> Vec<String> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let state = shared.state();
            state.clients.values().chain(state.refresh_tokens.values()).chain(&state.issued).cloned().collect()
        }
    }

    /// The directory of its files, removed with it.
    pub fn directory(&self) -> &Path {
        self.files.path()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.mode.send_replace(Mode::Stopped);
        if let Some((_, thread)) = self.beside.take() {
            let _ = thread.join();
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the stand-in workspace's thread panicked");
        }
    }
}

/// The faults planned for one endpoint.
pub struct Faults<'a> {
    shared: &'a Shared,
    endpoint: Endpoint,
}

impl Faults<'_> {
    pub fn next(&self, fault: Fault) -> &Self {
        self.change(|schedule| schedule.queue(fault))
    }

    pub fn every(&self, n: usize, faults: Vec<Fault>) -> &Self {
        self.change(|schedule| schedule.repeat(n, faults))
    }

    pub fn always(&self, fault: Fault) -> &Self {
        self.every(1, vec![fault])
    }

    pub fn clear(&self) -> &Self {
        self.change(|schedule| *schedule = Schedule::default())
    }

    fn change(&self, with: impl FnOnce(&mut Schedule)) -> &Self {
        with(self.shared.state().faults.entry(self.endpoint).or_default());
        self
    }
}
