//! Issuers of tokens that sign in without a secret: another issuer whose token is exchanged, GitHub's and Azure DevOps' services for
//! jobs, Azure's and Google's sign-ins, the services beside a virtual machine or an app, and the vendor's metadata service.
//!
//! The workspace verifies what it is shown: signature, issuer, subject, audience, expiry, client.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use super::endpoints::{Refusal, oauth_error};
use super::http::{Request, Response, form_fields};
use super::tokens::{Claims, Signer, random_hex};
use super::{Shared, Workspace};

/// Azure's own names for what is asked for.
pub const AZURE_WORKSPACE: &str = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d";
pub const AZURE_MANAGEMENT: &str = "https://management.core.windows.net/";

/// An issuer that the workspace may trust.
#[derive(Clone)]
pub struct Issuer {
    pub url: String,
    signer: Arc<Signer>,
}

impl Issuer {
    pub fn new(url: &str) -> Self {
        Issuer { url: url.to_owned(), signer: Arc::new(Signer::new()) }
    }

    /// A token for this subject and audience; with a negative life it has expired.
    pub fn token(&self, subject: &str, audience: &str, life: i64) -> String {
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({"iss": self.url, "sub": subject, "aud": [audience], "iat": now - 60, "exp": now + life});
        self.signer.sign(claims, 700)
    }
}

/// Whose tokens are taken, and for whom they then are.
#[derive(Clone)]
pub struct Policy {
    pub issuer: Issuer,
    pub subject: String,
    pub audience: String,
    /// The service principal whose policy it is; none for that of the account.
    pub client: Option<String>,
    /// Who it is then.
    pub identity: String,
}

/// What is handed out beside the workspace, and to whom.
#[derive(Clone, Default)]
pub struct Beside {
    pub policies: Vec<Policy>,
    /// Of jobs: the token that asks, the issuer, the subject.
    pub job: Option<(String, Issuer, String)>,
    /// Of Azure: tenant, client, secret.
    pub azure: Option<(String, String, String)>,
    /// The workspace as Azure knows it: then each request must name it, with a token for Azure's management.
    pub azure_resource: Option<String>,
    /// The header by which an app shows that it is one.
    pub app_secret: Option<String>,
    /// Who the virtual machine, the app or the metadata service is.
    pub machine: Option<String>,
    /// Of Google: the account, and its public key (PKCS #1).
    pub google: Option<(String, Vec<u8>)>,
    /// A person at Google: client, its secret, refresh token.
    pub google_person: Option<(String, String, String)>,
    /// The account at Google for which whoever has an access token may act.
    pub google_target: Option<String>,
    /// Each answer beside the workspace has this status, and repeats all that it was sent.
    pub repeats: Option<u16>,
    google_tokens: Vec<String>,
    /// Groups whose rights may be asked for: by id, with the name of the role.
    pub groups: Vec<(String, String)>,
    azure_tokens: Vec<String>,
    management_tokens: Vec<String>,
    of_groups: Vec<String>,
}

impl Workspace {
    /// Changes what is handed out beside it.
    pub fn beside(&self, change: impl FnOnce(&mut Beside)) {
        change(&mut self.shared.state().beside);
    }

    /// Trusts an issuer as this policy says.
    pub fn trust(&self, policy: Policy) {
        self.beside(|beside| beside.policies.push(policy));
    }

    /// The tokens that open things at Google.
    pub fn google_tokens(&self) -> Vec<String> {
        self.shared.state().beside.google_tokens.clone()
    }

    /// A personal access token of this user.
    pub fn personal_token(&self, user: &str) -> String {
        self.shared.foreign(user, Duration::from_secs(90 * 24 * 3600))
    }
}

/// The form of a token exchange: who it is then.
pub(super) fn exchanged(
    shared: &Shared,
    request: &Request,
    field: &dyn Fn(&str) -> Option<String>,
) -> Result<String, Refusal> {
    if request.header("authorization").is_some() || field("client_secret").is_some() {
        return Err(Refusal(401, "invalid_client", "A token exchange has no client secret"));
    }
    if field("subject_token_type").as_deref() != Some("urn:ietf:params:oauth:token-type:jwt") {
        return Err(Refusal(400, "invalid_request", "subject_token_type must be a JWT's"));
    }
    if field("scope").as_deref() != Some("all-apis") {
        return Err(Refusal(400, "invalid_scope", "The requested scope is not allowed"));
    }
    let (token, now) = (field("subject_token").unwrap_or_default(), shared.now());
    let policies = shared.state().beside.policies.clone();
    let client = field("client_id");
    let mut why = "The token was issued by an issuer that no federation policy trusts";
    for policy in policies.iter().filter(|policy| policy.client == client) {
        let Ok(claims) = policy.issuer.signer.open(&token) else { continue };
        if claims["iss"] != json!(policy.issuer.url) {
            continue;
        }
        let audience = match &claims["aud"] {
            Value::Array(all) => all.contains(&json!(policy.audience)),
            one => *one == json!(policy.audience),
        };
        if claims["exp"].as_i64().is_none_or(|end| end <= now) {
            why = "The token has expired";
        } else if !audience {
            why = "The audience of the token is not one of the federation policy";
        } else if claims["sub"] != json!(policy.subject) {
            why = "The subject of the token is not that of the federation policy";
        } else {
            return Ok(policy.identity.clone());
        }
    }
    Err(Refusal(400, "invalid_grant", why))
}

/// The role of a group that is asked for, if its rights may be had.
pub(super) fn group_role(shared: &Shared, group: Option<&str>) -> Result<Option<String>, Refusal> {
    let Some(group) = group else { return Ok(None) };
    let groups = shared.state().beside.groups.clone();
    match groups.into_iter().find(|(id, _)| id == group) {
        Some((_, role)) => Ok(Some(role)),
        None => Err(Refusal(400, "invalid_request", "The principal may not assume this group")),
    }
}

pub(super) fn note_group(shared: &Shared, token: &str) {
    shared.state().beside.of_groups.push(token.to_owned());
}

pub(super) fn is_of_group(shared: &Shared, token: &str) -> bool {
    shared.state().beside.of_groups.iter().any(|known| known == token)
}

/// Why a token of Azure's is not let in, if it is one.
pub(super) fn refused_at_azure(shared: &Shared, request: &Request, token: &str) -> bool {
    let state = shared.state();
    let beside = &state.beside;
    let Some(resource) = beside.azure_resource.as_ref().filter(|_| beside.azure_tokens.iter().any(|one| one == token))
    else {
        return false;
    };
    let management = request.header("x-databricks-azure-sp-management-token");
    request.header("x-databricks-azure-workspace-resource-id") != Some(resource)
        || !management.is_some_and(|token| beside.management_tokens.iter().any(|one| one == token))
}

/// What answers at this path beside the workspace; none where nothing does.
pub(super) fn answer(shared: &Shared, request: &Request) -> Option<Response> {
    let beside = shared.state().beside.clone();
    let path = request.path.as_str();
    let host = request.header("host").unwrap_or_default();
    let is_beside =
        host.ends_with(".googleapis.com") || host == "login.microsoftonline.com" || !path.starts_with("/api/");
    if let Some(status) = beside.repeats.filter(|_| is_beside) {
        let sent =
            [path, request.header("authorization").unwrap_or_default(), request.body().unwrap_or_default()].join(" ");
        return Some(refused(status, &sent, &sent));
    }
    Some(match path {
        "/github/token" => of_job(&beside, request, "value"),
        "/metadata/identity/oauth2/token" if request.header("metadata") == Some("true") => {
            identity(shared, &beside, request)
        }
        "/msi/token" if request.header("x-identity-header") == beside.app_secret.as_deref() => {
            identity(shared, &beside, request)
        }
        "/metadata/identity/oauth2/token" | "/msi/token" => refused(400, "invalid_request", "a header is missing"),
        _ if path.starts_with("/metadata-service/") => metadata_service(shared, &beside, request),
        "/aad/auth" => {
            let tenant = beside.azure.as_ref().map_or("common", |(tenant, ..)| tenant);
            Response::html(302, "")
                .with("Location", format!("https://login.microsoftonline.com/{tenant}/oauth2/authorize?x=1"))
        }
        "/token" if host == "oauth2.googleapis.com" => google(shared, &beside, request),
        "/computeMetadata/v1/instance/service-accounts/default/token"
            if request.header("metadata-flavor") == Some("Google") && beside.machine.is_some() =>
        {
            access_at_google(shared)
        }
        _ if host == "iamcredentials.googleapis.com" => for_an_account(shared, &beside, request),
        _ if path.ends_with("/oidctoken") && path.starts_with("/ado/") => of_job(&beside, request, "oidcToken"),
        _ if path.ends_with("/oauth2/token") && host == "login.microsoftonline.com" => entra(shared, &beside, request),
        _ => return None,
    })
}

fn refused(status: u16, code: &str, why: &str) -> Response {
    Response::json(status, &oauth_error(code, why))
}

/// The token of a job, for the audience that it asks for.
fn of_job(beside: &Beside, request: &Request, name: &str) -> Response {
    let Some((asks, issuer, subject)) = &beside.job else { return refused(404, "not_found", "no job") };
    if request.header("authorization") != Some(&format!("Bearer {asks}")) {
        return Response::json(401, &json!({"message": "the token of the job is not valid"}));
    }
    let audience = request.query("audience").unwrap_or_else(|| "api://AzureADTokenExchange".to_owned());
    let mut body = json!({});
    body[name] = json!(issuer.token(subject, &audience, 300));
    Response::json(200, &body)
}

/// A token of Azure's for what is asked for.
fn of_azure(shared: &Shared, resource: &str, identity: &str) -> Response {
    let token = shared.foreign(identity, Duration::from_secs(3600));
    match resource {
        AZURE_WORKSPACE => shared.state().beside.azure_tokens.push(token.clone()),
        AZURE_MANAGEMENT => shared.state().beside.management_tokens.push(token.clone()),
        _ => return refused(400, "invalid_resource", "AADSTS500011: The resource principal was not found"),
    }
    let end = shared.now() + 3599;
    let body =
        json!({"token_type": "Bearer", "expires_in": "3599", "expires_on": end.to_string(), "access_token": token});
    Response::json(200, &body)
}

fn identity(shared: &Shared, beside: &Beside, request: &Request) -> Response {
    match &beside.machine {
        Some(machine) => of_azure(shared, &request.query("resource").unwrap_or_default(), machine),
        None => refused(400, "invalid_request", "Identity not found"),
    }
}

fn entra(shared: &Shared, beside: &Beside, request: &Request) -> Response {
    let fields = request.body().and_then(form_fields).unwrap_or_default();
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let Some((tenant, client, secret)) = &beside.azure else {
        return refused(400, "invalid_request", "AADSTS90002: no tenant");
    };
    if request.path != format!("/{tenant}/oauth2/token") {
        return refused(400, "invalid_request", "AADSTS90002: Tenant not found");
    }
    let is_client = field("client_id").as_ref() == Some(client) && field("client_secret").as_ref() == Some(secret);
    if field("grant_type").as_deref() != Some("client_credentials") || !is_client {
        return refused(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.");
    }
    of_azure(shared, &field("resource").unwrap_or_default(), client)
}

fn metadata_service(shared: &Shared, beside: &Beside, request: &Request) -> Response {
    let origin = format!("{}://{}", shared.scheme, shared.address);
    if request.header("x-databricks-metadata-version") != Some("1")
        || request.header("x-databricks-host") != Some(&origin)
    {
        return refused(400, "invalid_request", "this service is for another workspace");
    }
    let Some(machine) = &beside.machine else { return refused(404, "not_found", "nobody") };
    let (now, life) = (shared.now(), 3600);
    let token = shared.jwt(&Claims::of(machine).from(now).until(now + life));
    Response::json(200, &json!({"access_token": token, "token_type": "Bearer", "expires_on": now + life}))
}

/// The assertion of a service account's key (RFC 7523), for a token that names it.
fn google(shared: &Shared, beside: &Beside, request: &Request) -> Response {
    let fields = request.body().and_then(form_fields).unwrap_or_default();
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    if field("grant_type").as_deref() == Some("refresh_token") {
        let given = field("client_id").zip(field("client_secret")).zip(field("refresh_token"));
        let given = given.map(|((client, secret), token)| (client, secret, token));
        return match given.is_some() && given == beside.google_person {
            true => access_at_google(shared),
            false => refused(400, "invalid_grant", "Token has been expired or revoked."),
        };
    }
    let assertion =
        fields.iter().find(|(name, _)| name == "assertion").map(|(_, value)| value.clone()).unwrap_or_default();
    let Some((account, key)) = &beside.google else {
        return refused(400, "invalid_grant", "Invalid grant: account not found");
    };
    let verified = || -> Option<Value> {
        let (message, signature) = assertion.rsplit_once('.')?;
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key);
        key.verify(message.as_bytes(), &BASE64.decode(signature).ok()?).ok()?;
        serde_json::from_slice(&BASE64.decode(message.split_once('.')?.1).ok()?).ok()
    };
    let Some(claims) = verified() else { return refused(400, "invalid_grant", "Invalid JWT Signature.") };
    if claims["iss"] != json!(account) || claims["aud"] != json!("https://oauth2.googleapis.com/token") {
        return refused(400, "invalid_grant", "Invalid JWT");
    }
    if claims["scope"].is_string() {
        return access_at_google(shared);
    }
    let now = shared.now();
    let id_token = shared.jwt(&Claims::of(account).from(now).until(now + 3600));
    Response::json(200, &json!({"id_token": id_token}))
}

/// A token that opens things at Google.
fn access_at_google(shared: &Shared) -> Response {
    let token = format!("ya29.{}", random_hex(40));
    shared.state().beside.google_tokens.push(token.clone());
    Response::json(200, &json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}))
}

/// What somebody with such a token gets in the name of an account (IAM Service Account Credentials API).
fn for_an_account(shared: &Shared, beside: &Beside, request: &Request) -> Response {
    let denied = |status: u16, why: &str| Response::json(status, &json!({"error": {"code": status, "message": why}}));
    let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if !token.is_some_and(|token| beside.google_tokens.iter().any(|known| known == token)) {
        return denied(401, "Request had invalid authentication credentials.");
    }
    let place = request.path.strip_prefix("/v1/projects/-/serviceAccounts/").and_then(|rest| rest.rsplit_once(':'));
    let body: Value = request.body().and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default();
    match place {
        Some((account, "generateAccessToken")) if account.contains('@') && body["scope"].is_array() => {
            let made = access_at_google(shared);
            let token = shared.state().beside.google_tokens.last().cloned();
            drop(made);
            Response::json(200, &json!({"accessToken": token, "expireTime": "2999-01-01T00:00:00Z"}))
        }
        Some((account, "generateIdToken")) if Some(account) == beside.google_target.as_deref() => {
            let is_for_workspace = body["audience"].as_str().is_some_and(|audience| audience.starts_with("https://"));
            if !is_for_workspace || body["includeEmail"] != json!(true) {
                return denied(400, "audience and includeEmail are needed");
            }
            let now = shared.now();
            let id_token = shared.jwt(&Claims::of(account).from(now).until(now + 3600));
            Response::json(200, &json!({"token": id_token}))
        }
        _ => denied(403, "Permission 'iam.serviceAccounts.getOpenIdToken' denied on resource"),
    }
}
