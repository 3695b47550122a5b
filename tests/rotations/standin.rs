//! The stand-ins are what they claim to be: they refuse what the real ones refuse, and fail as they are told to.
//!
//! All other tests rely on them, so here they are tested with clients that do not know them: reqwest, the vendor's own
//! Python client, psql.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests: a surprise should stop them loudly"
)]

mod cli;
mod faults;
mod lakebase;
mod postgres;
mod refusing;
mod session;
mod vendor;
mod workspace;

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::support::Workspace;

const HOUR: Duration = Duration::from_secs(3600);
/// Enough for anything immediate, even on a busy machine.
const SOON: Duration = Duration::from_secs(20);

const FORM: &str = "application/x-www-form-urlencoded";
const GRANT: &str = "grant_type=client_credentials&scope=all-apis";

/// A client that trusts only the workspace's authority.
fn client(workspace: &Workspace) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let authority = reqwest::Certificate::from_pem(&fs::read(workspace.ca_file()).unwrap()).unwrap();
    reqwest::Client::builder()
        .tls_certs_only([authority])
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

/// A service principal's request for a token.
fn token_request(http: &reqwest::Client, workspace: &Workspace) -> reqwest::RequestBuilder {
    http.post(workspace.token_url())
        .basic_auth(workspace.client_id(), Some(workspace.client_secret()))
        .header("Content-Type", FORM)
        .body(GRANT)
}

async fn json(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    body(answer).await
}

async fn body(answer: reqwest::Response) -> Value {
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

/// Header and claims of a token.
fn opened(token: &str) -> (Value, Value) {
    let part = |at: usize| {
        let part = URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap();
        serde_json::from_slice(&part).unwrap()
    };
    (part(0), part(1))
}

/// The token with one bit of its signature flipped.
fn flipped(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    signature[40] ^= 1;
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Seconds since 1970 by this machine's clock.
fn local_time() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}
