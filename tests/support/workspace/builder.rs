//! The settings of a workspace, and its start.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::sync::watch;

use super::account::Account;
use super::authority::Authority;
use super::lakebase::Lakebase;
use super::serving::{self, Mode};
use super::tokens::Signer;
use super::{Endpoint, Fault, Shared, State, Workspace, scratch_directory};

/// The service principal and the person that a workspace knows by default.
pub const DEFAULT_CLIENT_ID: &str = "6b1f0c52-8c3e-4a57-9d0e-2f4a7c91d3e8";
/// Like a real one in length and alphabet, but with another prefix, so that secret scanners do not report it.
pub const DEFAULT_CLIENT_SECRET: &str = "stand-in-d053c0ffee5eed1f2e3d4c5b6a7988";
pub const DEFAULT_USER: &str = "ada@example.com";

/// As long as a real RS256 token with one scope set.
const TOKEN_LENGTH: usize = 850;

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
    pub(super) account: Account,
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
        let (listener, address) = loopback();
        let tls = (self.scheme == "https").then(|| self.tls(&authority));
        let shared = Arc::new(Shared {
            signer: Signer::new(),
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
            let (listener, address) = loopback();
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

    /// For every name at which a test may reach it.
    fn tls(&self, authority: &Authority) -> Arc<ServerConfig> {
        let elsewhere = ["login.microsoftonline.com", "oauth2.googleapis.com", "iamcredentials.googleapis.com"];
        let names = ["localhost", "127.0.0.1", "::1", "workspace.test"]
            .into_iter()
            .chain(elsewhere)
            .chain(self.account.names())
            .chain(self.names.iter().map(String::as_str));
        authority.certify(&names.collect::<Vec<_>>()).server_config(b"http/1.1")
    }
}

fn loopback() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
    let address = listener.local_addr().expect("the port just bound");
    (listener, address)
}
