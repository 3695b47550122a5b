//! The stand-in API server of a Kubernetes cluster, on loopback and over TLS, with an authority of its own.
//!
//! It checks each body against the API's own schemas (`cluster/schemas.py`, by PyPI's `kubernetes-validate`), knows Secrets and Leases,
//! who owns which field, roles and tokens, and fails on demand. Its service account is a directory as the kubelet projects it.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::sync::watch;

use super::workspace::authority::Authority;
use super::workspace::scratch_directory;

#[path = "cluster/apply.rs"]
mod apply;
#[path = "cluster/objects.rs"]
mod objects;
#[path = "cluster/schemas.rs"]
pub mod schemas;
#[path = "cluster/serving.rs"]
mod serving;

use schemas::Schemas;

/// The namespace of the pod.
pub const NAMESPACE: &str = "shop";

/// One way for one request to fail.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// This status, with a body as the API has it.
    Status(u16),
    /// 429 with `Retry-After`.
    RetryAfter(u64),
    /// No answer, until one side goes away.
    Silence,
    /// The connection is closed instead.
    HangUp,
    /// The request is carried out, and its answer is lost.
    LostAnswer,
    /// 409, as where somebody else was faster.
    Conflict,
    /// This status, and as its message what the request held: the token of who asks, and the body.
    Repeats(u16),
}

/// A rule of RBAC: verb, resource, and the only name where there is one.
type Rule = (&'static str, &'static str, Option<&'static str>);

/// A running API server.
pub struct Cluster {
    shared: Arc<Shared>,
    address: SocketAddr,
    files: tempfile::TempDir,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    happened: Condvar,
    schemas: Mutex<Schemas>,
}

#[derive(Default)]
struct State {
    /// By resource, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    namespaces: BTreeSet<String>,
    version: u64,
    tokens: BTreeSet<String>,
    rules: Option<Vec<Rule>>,
    queue: VecDeque<Trouble>,
    every: Option<(usize, Vec<Trouble>)>,
    seen: usize,
    requests: Vec<String>,
    /// What was no object of the API.
    invalid: Vec<String>,
    /// A webhook changes this key of whatever is written.
    webhook: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cluster {
    /// A cluster with the namespace `shop`, whose pod may do everything; or why the schemas are not to be had here.
    pub fn start() -> Result<Self, String> {
        let schemas = Schemas::start()?;
        let files = scratch_directory(0o755);
        let authority = Authority::new("stand-in Kubernetes CA");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = listener.local_addr().expect("the port just bound");
        let tls = authority.certify(&["127.0.0.1", "kubernetes.default.svc"]).server_config(b"http/1.1");
        let state = State { namespaces: [NAMESPACE.to_owned()].into_iter().collect(), ..State::default() };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), happened: Condvar::new(), schemas: Mutex::new(schemas) });
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("stand-in API server".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || serving::serve(listener, tls, &shared, stopped)
            })
            .expect("a thread");
        let cluster = Cluster { shared, address, files, stop, thread: Some(thread) };
        cluster.write("ca.crt", authority.pem());
        cluster.write("namespace", NAMESPACE);
        cluster.new_token();
        Ok(cluster)
    }

    // What a pod is given.

    /// The directory of the service account.
    pub fn account(&self) -> PathBuf {
        self.files.path().to_owned()
    }

    /// What the kubelet sets in each container.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("KUBERNETES_SERVICE_HOST", self.address.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", self.address.port().to_string()),
        ]
    }

    /// A new token is projected, as the kubelet does: a link to a directory is replaced. The old one stays good until
    /// [`Cluster::old_tokens_expire`].
    pub fn new_token(&self) -> String {
        let token = format!("stand-in-service-account-token-{:016x}", fastrand::u64(..));
        self.shared.state().tokens.insert(token.clone());
        self.write("token", &token);
        token
    }

    pub fn old_tokens_expire(&self) {
        let now = fs::read_to_string(self.files.path().join("token")).expect("the token");
        self.shared.state().tokens.retain(|token| *token == now);
    }

    /// All tokens so far, which must never be printed.
    pub fn tokens(&self) -> Vec<String> {
        self.shared.state().tokens.iter().cloned().collect()
    }

    fn write(&self, name: &str, text: &str) {
        let data = format!("..{:016x}", fastrand::u64(..));
        let at = |inside: &str| self.files.path().join(inside);
        fs::create_dir_all(at(&data)).expect("a directory");
        fs::write(at(&data).join(name), text).expect("a file");
        let next = at(&format!("{name}.next"));
        symlink(Path::new(&data).join(name), &next).expect("a link");
        fs::rename(next, at(name)).expect("take its place");
    }

    // Changes while it runs.

    /// From now on the pod may do only this.
    pub fn allow_only(&self, rules: &[Rule]) {
        self.shared.state().rules = Some(rules.to_vec());
    }

    pub fn allow_all(&self) {
        self.shared.state().rules = None;
    }

    pub fn fail_next(&self, troubles: impl IntoIterator<Item = Trouble>) {
        self.shared.state().queue.extend(troubles);
    }

    /// Every `n`-th request fails, with each of these in turn.
    pub fn fail_every(&self, n: usize, troubles: Vec<Trouble>) {
        let mut state = self.shared.state();
        (state.every, state.seen) = (Some((n, troubles)), 0);
    }

    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.queue.clear();
        state.every = None;
    }

    pub fn webhook_changes(&self, key: Option<&str>) {
        self.shared.state().webhook = key.map(str::to_owned);
    }

    /// Creates a Secret without data, as the manifest has it.
    pub fn create_secret(&self, name: &str) {
        self.create_secret_of(name, "Opaque");
    }

    /// Creates an object as a manifest has it.
    pub fn create(&self, object: &Value) {
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let resource = if object["kind"] == "Lease" { "leases" } else { "secrets" };
        let mut state = self.shared.state();
        state.version += 1;
        let version = state.version;
        state.put(resource, NAMESPACE, &name, object.clone(), version);
    }

    pub fn create_secret_of(&self, name: &str, kind: &str) {
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": {"name": name, "namespace": NAMESPACE},
        });
        let mut state = self.shared.state();
        state.version += 1;
        let version = state.version;
        state.put("secrets", NAMESPACE, name, secret, version);
    }

    /// Somebody writes a key of a Secret by hand (`kubectl edit`), or by applying it.
    pub fn set(&self, name: &str, key: &str, value: &str, manager: &str, applies: bool) {
        let mut state = self.shared.state();
        let value = STANDARD.encode(value);
        state.set_by_hand(("secrets", NAMESPACE, name), &["data", key], &value, manager, applies);
        drop(state);
        self.shared.happened.notify_all();
    }

    /// Somebody else takes a Lease.
    pub fn set_holder(&self, lease: &str, holder: &str) {
        self.shared.state().set_by_hand(
            ("leases", NAMESPACE, lease),
            &["spec", "holderIdentity"],
            holder,
            "other",
            false,
        );
        self.shared.happened.notify_all();
    }

    pub fn delete_secret(&self, name: &str) {
        self.shared.state().objects.remove(&("secrets".to_owned(), NAMESPACE.to_owned(), name.to_owned()));
        self.shared.happened.notify_all();
    }

    // Observations.

    /// The value of a key of a Secret.
    pub fn value(&self, name: &str, key: &str) -> Option<String> {
        let encoded = self.secret(name)?["data"][key].as_str()?.to_owned();
        Some(String::from_utf8(STANDARD.decode(encoded).expect("base64")).expect("text"))
    }

    pub fn secret(&self, name: &str) -> Option<Value> {
        self.object("secrets", name)
    }

    pub fn lease(&self, name: &str) -> Option<Value> {
        self.object("leases", name)
    }

    pub fn holder(&self, lease: &str) -> String {
        let lease = self.lease(lease).unwrap_or_default();
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    fn object(&self, resource: &str, name: &str) -> Option<Value> {
        self.shared.state().objects.get(&(resource.to_owned(), NAMESPACE.to_owned(), name.to_owned())).cloned()
    }

    /// Method and path of every request, in order.
    pub fn requests(&self) -> Vec<String> {
        self.shared.state().requests.clone()
    }

    /// What the schemas said of bodies that are none of theirs.
    pub fn invalid(&self) -> Vec<String> {
        self.shared.state().invalid.clone()
    }

    /// Waits until this is so; false if the time runs out first.
    pub fn wait_until(&self, limit: Duration, is_so: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if is_so(self) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let state = self.shared.state();
            let step = left.min(Duration::from_millis(50));
            drop(self.shared.happened.wait_timeout(state, step).unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the stand-in API server's thread panicked");
        }
    }
}
