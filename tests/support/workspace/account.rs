//! The account that a workspace belongs to, and names of the account at which many workspaces answer: custom URLs.
//!
//! Such a name has no sign-in of its own. `/.well-known/databricks-config` says where the account has it, which may be another
//! host (databricks-sdk-go, config/host_metadata.go).

use serde_json::{Value, json};

use super::http::{Request, Response};
use super::{Builder, Endpoint, Shared};

pub const ACCOUNT_ID: &str = "2f1c0d9e-4b7a-4e55-8d21-90a6c3b7e412";
/// Where accounts sign in on AWS.
pub const CONSOLE: &str = "accounts.cloud.databricks.com";

/// What the stand-in answers for besides the workspace's own names.
#[derive(Clone, Default)]
pub struct Account {
    custom_urls: Vec<String>,
}

impl Account {
    /// All names, for the certificate.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let console = (!self.custom_urls.is_empty()).then_some(CONSOLE);
        self.custom_urls.iter().map(String::as_str).chain(console)
    }
}

impl Builder {
    /// The workspace also answers at this name of its account, to those who reach it there (see [`crate::support::Relay`]).
    pub fn custom_url(mut self, name: &str) -> Self {
        self.account.custom_urls.push(name.to_owned());
        self
    }
}

pub fn endpoint_at(path: &str) -> Option<Endpoint> {
    match path.strip_prefix("/oidc/accounts/")?.strip_prefix(ACCOUNT_ID)? {
        "/.well-known/oauth-authorization-server" => Some(Endpoint::AccountDiscovery),
        "/v1/token" => Some(Endpoint::Token),
        "/v1/authorize" => Some(Endpoint::Authorize),
        _ => None,
    }
}

fn is_custom_url(shared: &Shared, request: &Request) -> bool {
    let host = request.header("host").unwrap_or_default();
    let name = host.split(':').next().unwrap_or_default();
    shared.account.custom_urls.iter().any(|known| known == name)
}

/// Whether there is a page for people instead: a name of the account lacks what a workspace has.
pub fn has_nothing(shared: &Shared, request: &Request) -> bool {
    let of_workspace = ["/oidc/.well-known/oauth-authorization-server", "/oidc/v1/token"];
    of_workspace.contains(&request.path.as_str()) && is_custom_url(shared, request)
}

pub fn discovery(origin: &str) -> Response {
    let root = format!("{origin}/oidc/accounts/{ACCOUNT_ID}");
    Response::json(
        200,
        &json!({
            "issuer": root,
            "authorization_endpoint": format!("{root}/v1/authorize"),
            "token_endpoint": format!("{root}/v1/token"),
        }),
    )
}

/// What a name of the account says of itself; none for the workspace's own names.
pub fn metadata(shared: &Shared, request: &Request) -> Option<Value> {
    is_custom_url(shared, request).then(|| {
        json!({
            "oidc_endpoint": format!("https://{CONSOLE}/oidc/accounts/{{account_id}}"),
            "account_id": ACCOUNT_ID,
            "cloud": "AWS",
            "host_type": "unified",
        })
    })
}
