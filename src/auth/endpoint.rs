//! Where a workspace's tokens are to be had: where its own discovery says, where the account has it that its host metadata names,
//! else at the usual place.
//!
//! Custom URLs and hosts of many workspaces have no discovery of their own: they answer with a page, or not at all
//! (databricks-sdk-go, config/host_metadata.go). Nothing here sends a secret; where one may go decides [`WorkspaceClient::request_to`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::http::{Answer, DISCOVERY, WorkspaceClient};
use crate::model::{NamedBy, OWN_ADDRESS, is_account_id};

/// What every host says of itself, custom URLs included.
const HOST_METADATA: &str = "/.well-known/databricks-config";

/// Below the root of a sign-in (RFC 8414, section 3).
const DISCOVERY_BELOW: &str = "/.well-known/oauth-authorization-server";
const TOKEN_BELOW: &str = "/v1/token";
const AUTHORIZE_BELOW: &str = "/v1/authorize";

/// The place of the usual sign-in.
const USUAL_ROOT: &str = "/oidc";

/// What stands for the account's id in host metadata.
const ACCOUNT: &str = "{account_id}";

/// For so long a workspace is not asked again where its token endpoint is: enough for the next tries of a sign-in whose token request
/// failed, and for other identities that sign in beside it.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// The token endpoints that a process has found lately. Each copy shares them.
#[derive(Clone, Default)]
pub(crate) struct KnownEndpoints(Arc<Mutex<Vec<Known>>>);

struct Known {
    host: String,
    account_id: Option<String>,
    endpoint: TokenEndpoint,
    found: Instant,
}

impl KnownEndpoints {
    /// The endpoint that was found a moment ago, else what [`TokenEndpoint::find`] finds.
    ///
    /// # Errors
    /// As [`TokenEndpoint::find`].
    pub(super) async fn find(
        &self,
        http: &WorkspaceClient<'_>,
        account_id: Option<&str>,
        limit: Duration,
    ) -> Result<TokenEndpoint, Failure> {
        let is_same = |known: &&Known| known.host == http.origin() && known.account_id.as_deref() == account_id;
        let known = {
            let mut all = self.all();
            all.retain(|known| known.found.elapsed() < KNOWN_FOR);
            all.iter().find(is_same).map(|known| known.endpoint.clone())
        };
        if let Some(endpoint) = known {
            return Ok(endpoint);
        }
        let endpoint = TokenEndpoint::find(http, account_id, limit).await?;
        // A guess is made anew each time: the host may say more by then.
        if !endpoint.is_guess {
            let (host, account_id) = (http.origin().to_owned(), account_id.map(str::to_owned));
            let mut all = self.all();
            all.retain(|known| !is_same(&known));
            all.push(Known { host, account_id, endpoint: endpoint.clone(), found: Instant::now() });
        }
        Ok(endpoint)
    }

    /// Lets the workspace be asked again the next time.
    pub(super) fn forget(&self, http: &WorkspaceClient<'_>) {
        self.all().retain(|known| known.host != http.origin());
    }

    fn all(&self) -> MutexGuard<'_, Vec<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token endpoint.
#[derive(Clone)]
pub(super) struct TokenEndpoint {
    url: Url,
    /// Where people sign in; none where the discovery document names no such place.
    authorize: Option<Url>,
    named_by: NamedBy,
    /// Nobody has named it.
    is_guess: bool,
    /// Why nobody has, where that may pass.
    doubt: Option<Failure>,
}

impl TokenEndpoint {
    /// Asks where it is; the account is the one that is set, else the one that the host names.
    ///
    /// # Errors
    /// Permanent: what answers names a place that gets no secret, or an account that nobody has named. Transient: nobody answers.
    pub(super) async fn find(
        http: &WorkspaceClient<'_>,
        account_id: Option<&str>,
        limit: Duration,
    ) -> Result<Self, Failure> {
        let guess = |doubt| {
            let url = http.url(&format!("{USUAL_ROOT}{TOKEN_BELOW}"))?;
            let authorize = Some(http.url(&format!("{USUAL_ROOT}{AUTHORIZE_BELOW}"))?);
            Ok(Self { url, authorize, named_by: NamedBy::Anybody, is_guess: true, doubt })
        };
        match document(http, http.url(DISCOVERY)?, NamedBy::Anybody, limit).await? {
            Document::Names { url, authorize } => {
                return Ok(Self { url, authorize, named_by: NamedBy::Anybody, is_guess: false, doubt: None });
            }
            Document::InTrouble(trouble) => return guess(Some(trouble)),
            Document::None => {}
        }
        let metadata = match HostMetadata::ask(http, limit).await {
            Ok(metadata) => metadata,
            Err(failure) if failure.is_transient() => return guess(Some(failure)),
            Err(failure) => return Err(failure),
        };
        let Some(root) = metadata.as_ref().and_then(|metadata| metadata.oidc_endpoint.as_deref()) else {
            return guess(None);
        };
        let account = account_id.or(metadata.as_ref().and_then(|one| one.account_id.as_deref()));
        let root = root_of(http.origin(), root, account)?;
        if root.path() == USUAL_ROOT && http.bars(&root, NamedBy::Anybody).is_none() {
            return guess(None);
        }
        Self::below(http, &root, limit).await
    }

    /// That of the sign-in with this root, which host metadata named.
    async fn below(http: &WorkspaceClient<'_>, root: &Url, limit: Duration) -> Result<Self, Failure> {
        let named_by = NamedBy::HostMetadata;
        match document(http, below(root, DISCOVERY_BELOW), named_by, limit).await? {
            Document::Names { url, authorize } => Ok(Self { url, authorize, named_by, is_guess: false, doubt: None }),
            Document::InTrouble(trouble) => Err(trouble),
            // Accounts have it there (databricks-sdk-go, u2m/endpoint_supplier.go).
            Document::None => {
                let (url, authorize) = (below(root, TOKEN_BELOW), Some(below(root, AUTHORIZE_BELOW)));
                Ok(Self { url, authorize, named_by, is_guess: true, doubt: None })
            }
        }
    }

    /// A well-known one, for tests.
    #[cfg(test)]
    pub(super) fn for_test(url: &str, authorize: &str) -> Self {
        let (url, authorize) = (Url::parse(url).unwrap(), Url::parse(authorize).ok());
        Self { url, authorize, named_by: NamedBy::Anybody, is_guess: false, doubt: None }
    }

    /// What it is called in messages: its scheme, host and port.
    pub(super) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// The page where people sign in, which keeps the same rule: what they type there is secret, too.
    ///
    /// # Errors
    /// Permanent: the discovery document names none.
    pub(super) fn authorize(&self) -> Result<&Url, Failure> {
        self.authorize.as_ref().ok_or_else(|| {
            let message = format!("{} does not say where people sign in", self.origin());
            Failure::permanent(Code::Configuration, message).hint(OWN_ADDRESS)
        })
    }

    /// Its whole address.
    pub(super) fn address(&self) -> String {
        self.url.to_string()
    }

    /// A request to it, which may carry the client's secret.
    ///
    /// # Errors
    /// As [`WorkspaceClient::request_to`].
    pub(super) fn request(&self, http: &WorkspaceClient<'_>) -> Result<RequestBuilder, Failure> {
        http.request_to(reqwest::Method::POST, self.url.clone(), self.named_by)
    }

    /// The failure that an answer led to; where there is no sign-in at a place that nobody named, which address would have one.
    pub(super) fn explained(&self, answer: &Answer, failure: Failure) -> Failure {
        let is_nothing = matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
            || (answer.status.is_redirection() && !answer.is_private_link_block())
            || (answer.is_html() && !answer.status.is_server_error());
        if !self.is_guess || !is_nothing {
            return failure;
        }
        self.doubt.clone().unwrap_or_else(|| {
            let message = format!("{}; nor does it say where else to sign in", failure.message);
            Failure::permanent(Code::Configuration, message).hint(OWN_ADDRESS)
        })
    }
}

fn below(root: &Url, path: &str) -> Url {
    let mut url = root.clone();
    url.set_path(&format!("{}{path}", root.path().trim_end_matches('/')));
    url
}

/// The root of a sign-in, with the account's id where it belongs.
fn root_of(origin: &str, named: &str, account: Option<&str>) -> Result<Url, Failure> {
    let account = match account {
        _ if !named.contains(ACCOUNT) => "",
        Some(account) if is_account_id(account) => account,
        Some(other) => {
            let message = format!("{origin} belongs to an account, and `{}` is no account's id", quoted(other));
            return Err(Failure::permanent(Code::Configuration, message).hint(
                "write the id as the account console shows it: account_id in the profile, or DATABRICKS_ACCOUNT_ID",
            ));
        }
        None => {
            let message = format!("{origin} signs in by its account, and does not say which one that is");
            let how = format!("or name the account: host = \"{origin}/?a=ACCOUNT_ID\", or account_id in the profile");
            return Err(Failure::permanent(Code::Configuration, message).hint(format!("{OWN_ADDRESS}; {how}")));
        }
    };
    let root = named.replace(ACCOUNT, account);
    let mut url = Url::parse(&root).map_err(|_| refused(origin, &format!("`{root}` is not an address")))?;
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

fn refused(origin: &str, why: &str) -> Failure {
    let message = format!("{origin} names a token endpoint to which no secret is sent: {}", quoted(why));
    Failure::permanent(Code::Configuration, message)
        .hint(format!("{OWN_ADDRESS}; if it is, then what answers there is not the workspace"))
}

/// What came where a discovery document should be.
enum Document {
    Names { url: Url, authorize: Option<Url> },
    None,
    InTrouble(Failure),
}

#[derive(Deserialize)]
struct Discovery {
    token_endpoint: String,
    authorization_endpoint: Option<String>,
}

/// Reads a discovery document (RFC 8414). Whoever answers may name another path, and no other origin than may get a secret.
async fn document(
    http: &WorkspaceClient<'_>,
    url: Url,
    named_by: NamedBy,
    limit: Duration,
) -> Result<Document, Failure> {
    let origin = http.origin();
    if let Some(why) = http.bars(&url, named_by) {
        return Err(refused(origin, &why));
    }
    let at = url.origin().ascii_serialization();
    let request = http.request_to(reqwest::Method::GET, url, named_by)?;
    let answer = http.exchange_with(&at, request, limit).await?;
    if let Some(trouble) = answer.trouble(&at) {
        return Ok(Document::InTrouble(trouble));
    }
    let found = (answer.status == StatusCode::OK).then(|| serde_json::from_slice::<Discovery>(&answer.body).ok());
    let Some(Discovery { token_endpoint, authorization_endpoint }) = found.flatten() else {
        return Ok(Document::None);
    };
    let url =
        Url::parse(&token_endpoint).map_err(|_| refused(origin, &format!("`{token_endpoint}` is not an address")))?;
    if let Some(why) = http.bars(&url, named_by) {
        return Err(refused(origin, &why));
    }
    // Only who logs in needs it, and is told that there is none.
    let authorize = authorization_endpoint.and_then(|named| Url::parse(&named).ok());
    let authorize = authorize.filter(|url| http.bars(url, named_by).is_none());
    Ok(Document::Names { url, authorize })
}

/// What a host says of itself: which account it belongs to, which workspace it is, and where to sign in. All of it may be missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HostMetadata {
    oidc_endpoint: Option<String>,
    account_id: Option<String>,
    workspace_id: Option<String>,
    /// For whom tokens of other issuers are expected to be.
    audiences: Vec<String>,
}

/// As it is sent; ids may be texts or numbers, as in the vendor's errors.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Sent {
    oidc_endpoint: Value,
    account_id: Value,
    workspace_id: Value,
    token_federation_default_oidc_audiences: Value,
}

impl HostMetadata {
    /// Asks a host, without any secret; none where it has nothing to say.
    ///
    /// # Errors
    /// Transient: nobody answers, or not now.
    pub(super) async fn ask(http: &WorkspaceClient<'_>, limit: Duration) -> Result<Option<Self>, Failure> {
        let request = http.request(reqwest::Method::GET, http.url(HOST_METADATA)?)?;
        let answer = http.exchange(request, limit).await?;
        if let Some(trouble) = answer.trouble(http.origin()) {
            return Err(trouble);
        }
        Ok((answer.status == StatusCode::OK).then(|| Self::read(&answer.body)).flatten())
    }

    fn read(body: &[u8]) -> Option<Self> {
        if !body.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        let Sent { oidc_endpoint, account_id, workspace_id, token_federation_default_oidc_audiences } =
            serde_json::from_slice(body).ok()?;
        let text = |value: Value| match value {
            Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let (oidc_endpoint, account_id, workspace_id) = (text(oidc_endpoint), text(account_id), text(workspace_id));
        let audiences = match token_federation_default_oidc_audiences {
            Value::Array(all) => all.into_iter().filter_map(text).collect(),
            _ => Vec::new(),
        };
        Some(HostMetadata { oidc_endpoint, account_id, workspace_id, audiences })
    }

    /// For whom a token of another issuer should be, where the host says so.
    pub(super) fn first_audience(&self) -> Option<String> {
        self.audiences.first().cloned()
    }

    /// The account of a host that is no single workspace: the one that is set, else the one that it names.
    pub(super) fn account_of_many(&self, set: Option<&str>) -> Option<String> {
        let account = set.or(self.account_id.as_deref());
        account.filter(|_| self.workspace_id.is_none() && self.oidc_endpoint.is_some()).map(str::to_owned)
    }

    /// Whether a token with this audience is for this host: for its workspace, or for the account that it belongs to.
    pub(super) fn is_meant_by(&self, audience: &[String]) -> bool {
        self.workspace_id.iter().chain(&self.account_id).any(|own| audience.contains(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_says_of_itself_is_read_whatever_is_missing() {
        let read = |text: &str| HostMetadata::read(text.as_bytes());
        let told =
            read(r#"{"oidc_endpoint":"https://x/oidc","account_id":"0b","workspace_id":7,"cloud":"AWS"}"#).unwrap();
        assert_eq!(told.oidc_endpoint.as_deref(), Some("https://x/oidc"));
        assert_eq!(told.workspace_id.as_deref(), Some("7"));
        assert!(told.is_meant_by(&["7".to_owned()]) && told.is_meant_by(&["8".to_owned(), "0b".to_owned()]));
        assert!(!told.is_meant_by(&[]) && !told.is_meant_by(&["8".to_owned()]));
        for nothing in ["{}", r#"{"oidc_endpoint":"","account_id":null,"workspace_id":[]}"#] {
            let told = read(nothing).unwrap();
            assert_eq!(told, HostMetadata::default(), "{nothing}");
            assert!(!told.is_meant_by(&[String::new()]), "{nothing}");
        }
        assert!(read("<html>").is_none() && read("[]").is_none());
    }

    #[test]
    fn the_root_of_a_sign_in_holds_the_account_and_nothing_that_could_lead_elsewhere() {
        let root = |named: &str, account| root_of("https://h.example", named, account).map(|url| url.to_string());
        let of_account = "https://accounts.cloud.databricks.com/oidc/accounts/{account_id}";
        let whole = "https://accounts.cloud.databricks.com/oidc/accounts/0b1c-2d";
        assert_eq!(root(of_account, Some("0b1c-2d")).as_deref(), Ok(whole));
        assert_eq!(root(&format!("{of_account}/?x=1#y"), Some("0b1c-2d")).as_deref(), Ok(whole));
        assert_eq!(root("https://h.example/oidc/", None).as_deref(), Ok("https://h.example/oidc"));
        for other in ["..", "a/b", "%2e%2e", "", "x?y", "x#y", "x\\y", "{account_id}", "\u{430}"] {
            assert!(root(of_account, Some(other)).unwrap_err().message.contains("no account's id"), "{other}");
        }
        let unknown = root(of_account, None).unwrap_err();
        assert!(unknown.hint.unwrap().contains("?a=ACCOUNT_ID"));
        for nowhere in ["/oidc", "oidc", "https://", "//x/oidc"] {
            assert!(root(nowhere, None).unwrap_err().message.contains("is not an address"), "{nowhere}");
        }
    }
}
