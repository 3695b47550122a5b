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
use std::net::SocketAddr;
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
#[path = "workspace/builder.rs"]
mod builder;
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
#[path = "workspace/observing.rs"]
mod observing;
#[path = "workspace/scratch.rs"]
mod scratch;
#[path = "workspace/serving.rs"]
mod serving;
#[path = "workspace/tokens.rs"]
mod tokens;

use account::Account;
pub use account::{ACCOUNT_ID, CONSOLE};
use authority::{Authority, ServerCertificate};
pub use builder::{Builder, DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_USER};
use consent::Consents;
pub use consent::Decision;
use faults::Schedule;
pub use faults::{Endpoint, Fault, Faults};
pub use issuing::Holder;
use lakebase::Lakebase;
pub use lakebase::{Branch, ComputeEndpoint, Instance, Project, Upgraded};
pub use scratch::scratch_directory;
use serving::Mode;
use tokens::{Claims, Signer};

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

/// What clients need.
impl Workspace {
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

    /// The directory of its files, removed with it.
    pub fn directory(&self) -> &Path {
        self.files.path()
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
}

/// What a test changes while it runs.
impl Workspace {
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
