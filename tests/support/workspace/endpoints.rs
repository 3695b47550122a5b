//! What each endpoint answers to whom, and the faults that are HTTP answers.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::account::{self, ACCOUNT_ID};
use super::consent;
use super::http::{Request, Response, form_decoded, form_fields};
use super::issuers;
use super::issuing::Holder;
use super::lakebase::answers as lakebase;
use super::tokens::{Claims, random_hex};
use super::{Endpoint, Fault, Shared};

/// A response, and how it reaches the client or does not.
pub enum Answer {
    Send(Response),
    Dribble { response: Response, bytes: usize, pause: Duration },
    CutShort(Response),
    Reset,
    Stall,
}

/// The OAuth client of the vendor's CLI: public, so its id is in the body and it has no secret.
pub const CLI_CLIENT_ID: &str = "databricks-cli";
const HUGE: usize = 2 << 20;

pub const LOGIN_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Databricks - Sign In</title></head>\n\
                              <body><form action=\"/login.html\" method=\"post\"></form></body></html>\n";

impl Endpoint {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/oidc/.well-known/oauth-authorization-server" => Some(Self::Discovery),
            "/oidc/v1/token" => Some(Self::Token),
            "/oidc/v1/authorize" | consent::DECISION => Some(Self::Authorize),
            "/api/2.0/preview/scim/v2/Me" => Some(Self::Me),
            "/.well-known/databricks-config" => Some(Self::HostMetadata),
            _ => account::endpoint_at(path).or_else(|| lakebase::endpoint_at(path)),
        }
    }
}

pub fn answer(shared: &Shared, request: &Request) -> Answer {
    let endpoint = Endpoint::at(&request.path);
    let fault = arrival(shared, endpoint, request);
    if let Some(answer) = fault.as_ref().and_then(|fault| instead_of_looking(shared, request, fault)) {
        return answer;
    }
    let response = match endpoint {
        _ if account::has_nothing(shared, request) => Response::html(200, LOGIN_PAGE),
        _ if leaves_workspace_open(shared, request) => Response::html(200, LOGIN_PAGE),
        Some(Endpoint::AccountDiscovery) => account::discovery(&origin(shared, request)),
        Some(Endpoint::Discovery) => discovery(shared, request),
        Some(Endpoint::Token) => token(shared, request, fault.as_ref()),
        Some(Endpoint::Me) => me(shared, request),
        Some(Endpoint::Authorize) => consent::answer(shared, request),
        Some(Endpoint::HostMetadata) => host_metadata(shared, request),
        Some(of_lakebase) => lakebase::answer(shared, of_lakebase, request, fault.as_ref()),
        // The target of redirects to it.
        None if request.path == "/login.html" => Response::html(200, LOGIN_PAGE),
        None => issuers::answer(shared, request).unwrap_or_else(|| not_found(request)),
    };
    match fault {
        Some(Fault::SlowBytes { bytes, pause }) => Answer::Dribble { response: dated(shared, response), bytes, pause },
        Some(Fault::TruncatedBody) => Answer::CutShort(dated(shared, response)),
        Some(Fault::TruncatedJson) => {
            let half = response.body.len() / 2;
            Answer::Send(dated(shared, Response { body: response.body[..half].to_vec(), ..response }))
        }
        Some(Fault::HugeBody) => {
            let mut body: Value = serde_json::from_slice(&response.body).expect("our own JSON");
            body["padding"] = json!("x".repeat(HUGE));
            Answer::Send(dated(shared, Response { body: body.to_string().into_bytes(), ..response }))
        }
        _ => Answer::Send(dated(shared, response)),
    }
}

/// Logs the request and returns the fault that it meets.
fn arrival(shared: &Shared, endpoint: Option<Endpoint>, request: &Request) -> Option<Fault> {
    let mut state = shared.state();
    state.requests.push(format!("{} {}", request.method, request.path));
    if let Some(endpoint) = endpoint {
        *state.arrived.entry(endpoint).or_default() += 1;
    }
    shared.happened.notify_all();
    state.faults.get_mut(&endpoint?)?.take()
}

/// A host of many workspaces must be told which one is meant, whoever asks.
fn leaves_workspace_open(shared: &Shared, request: &Request) -> bool {
    let told = request.header("x-databricks-workspace-id").or_else(|| request.header("x-databricks-org-id"));
    shared.unified && request.path.starts_with("/api/") && told != Some(&shared.workspace_id)
}

fn instead_of_looking(shared: &Shared, request: &Request, fault: &Fault) -> Option<Answer> {
    let response = match fault {
        Fault::Reset => return Some(Answer::Reset),
        Fault::Stall => return Some(Answer::Stall),
        Fault::Status(status) => plausible(*status, request),
        Fault::StatusWith { status, body, headers } => {
            Response { status: *status, headers: headers.clone(), body: body.clone().into_bytes() }
        }
        Fault::RetryAfterSeconds(seconds) => plausible(429, request).with("Retry-After", seconds.to_string()),
        Fault::RetryAfterDate(ahead) => plausible(503, request).with("Retry-After", http_date(shared.now() + ahead)),
        Fault::Html => Response::html(200, LOGIN_PAGE),
        Fault::Redirect(to) => Response::html(302, "<html><body>Moved</body></html>\n").with("Location", to.clone()),
        Fault::ErrorIn200(code) => Response::json(200, &oauth_error(code, "The request could not be granted")),
        _ => return None,
    };
    Some(Answer::Send(dated(shared, response)))
}

/// A typical body for a status.
fn plausible(status: u16, request: &Request) -> Response {
    let body = match status {
        400 if request.path.starts_with("/api/") => api_error(json!("BAD_REQUEST"), "The request is malformed."),
        401 if request.path.starts_with("/api/") => api_error(json!(401), "Unable to authenticate the request."),
        400 => oauth_error("invalid_request", "The request is malformed"),
        401 => oauth_error("invalid_client", "Client authentication failed"),
        403 => api_error(json!("PERMISSION_DENIED"), "User does not have permission to use this endpoint."),
        404 => api_error(json!("ENDPOINT_NOT_FOUND"), "No API found for this path"),
        429 => api_error(json!("REQUEST_LIMIT_EXCEEDED"), "Too many requests. Please wait a moment and try again."),
        500 => api_error(json!("INTERNAL_ERROR"), "There was an unexpected internal error."),
        502 | 504 => {
            return Response::html(status, "<html><body><h1>Bad Gateway</h1></body></html>\n");
        }
        503 => api_error(json!("TEMPORARILY_UNAVAILABLE"), "The service is temporarily unavailable."),
        _ => api_error(json!(status), "Stand-in answer"),
    };
    Response::json(status, &body)
}

pub fn oauth_error(code: &str, description: &str) -> Value {
    json!({"error": code, "error_description": description})
}

pub fn api_error(code: Value, message: &str) -> Value {
    json!({"error_code": code, "message": message})
}

pub fn not_found(request: &Request) -> Response {
    let message = format!("No API found for '{} {}'", request.method, request.path);
    Response::json(404, &api_error(json!("ENDPOINT_NOT_FOUND"), &message))
}

/// Every response carries the server's time.
fn dated(shared: &Shared, response: Response) -> Response {
    response.with("Date", http_date(shared.now()))
}

fn http_date(at: i64) -> String {
    let since_1970 = Duration::from_secs(u64::try_from(at).expect("a date past 1970"));
    httpdate::fmt_http_date(UNIX_EPOCH + since_1970)
}

/// The workspace's address with the name that the client used, as a real one does with its vanity names.
pub fn origin(shared: &Shared, request: &Request) -> String {
    match request.header("host") {
        Some(host) => format!("{}://{host}", shared.scheme),
        None => format!("{}://{}", shared.scheme, shared.address),
    }
}

fn discovery(shared: &Shared, request: &Request) -> Response {
    if request.method != "GET" {
        return wrong_method("GET");
    }
    let origin = origin(shared, request);
    Response::json(
        200,
        &json!({
            "issuer": format!("{origin}/oidc"),
            "authorization_endpoint": format!("{origin}/oidc/v1/authorize"),
            "token_endpoint": format!("{origin}/oidc/v1/token"),
            "jwks_uri": format!("{origin}/oidc/jwks.json"),
            "scopes_supported": ["all-apis", "sql", "offline_access", "openid", "profile", "email"],
            "response_types_supported": ["code", "id_token"],
            "grant_types_supported": ["client_credentials", "authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        }),
    )
}

fn host_metadata(shared: &Shared, request: &Request) -> Response {
    if request.method != "GET" {
        return wrong_method("GET");
    }
    if let Some(of_account) = account::metadata(shared, request) {
        return Response::json(200, &of_account);
    }
    let mut body = json!({
        "oidc_endpoint": format!("{}/oidc", origin(shared, request)),
        "account_id": ACCOUNT_ID,
        "cloud": "AWS",
        "host_type": if shared.unified { "unified" } else { "workspace" },
        "token_federation_default_oidc_audiences": [],
    });
    if !shared.unified {
        body["workspace_id"] = json!(shared.workspace_id);
    }
    Response::json(200, &body)
}

pub fn wrong_method(allowed: &str) -> Response {
    Response::json(405, &api_error(json!("METHOD_NOT_ALLOWED"), "Method not allowed")).with("Allow", allowed)
}

/// Why a grant is refused (RFC 6749 section 5.2).
pub struct Refusal(pub u16, pub &'static str, pub &'static str);

fn token(shared: &Shared, request: &Request, twist: Option<&Fault>) -> Response {
    if request.method != "POST" {
        return wrong_method("POST");
    }
    match grant(shared, request) {
        Ok((subject, refresh_token)) => token_response(shared, request, &subject, refresh_token, twist),
        Err(Refusal(status, code, description)) => {
            let refused = Response::json(status, &oauth_error(code, description));
            if status == 401 { refused.with("WWW-Authenticate", "Basic realm=\"OAuth\"") } else { refused }
        }
    }
}

/// The subject, and the new refresh token if it was replaced.
fn grant(shared: &Shared, request: &Request) -> Result<(String, Option<String>), Refusal> {
    let content_type = request.header("content-type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Refusal(400, "invalid_request", "The content type must be application/x-www-form-urlencoded"));
    }
    let fields =
        request.body().and_then(form_fields).ok_or(Refusal(400, "invalid_request", "The body is not a form"))?;
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    if fields.iter().enumerate().any(|(at, (name, _))| fields[..at].iter().any(|(before, _)| before == name)) {
        return Err(Refusal(400, "invalid_request", "A parameter is repeated"));
    }
    match field("grant_type") {
        Some("client_credentials") => {
            let client = client_of(shared, request)?;
            if !matches!(field("scope"), Some("all-apis" | "postgres sql")) {
                return Err(Refusal(400, "invalid_scope", "The requested scope is not one of this client's"));
            }
            Ok((issuers::group_role(shared, field("assume_group"))?.unwrap_or(client), None))
        }
        Some("urn:ietf:params:oauth:grant-type:token-exchange") => {
            let identity = issuers::exchanged(shared, request, &|name| field(name).map(str::to_owned))?;
            Ok((issuers::group_role(shared, field("assume_group"))?.unwrap_or(identity), None))
        }
        Some(kind @ ("refresh_token" | "authorization_code")) => {
            if field("client_id") != Some(CLI_CLIENT_ID) {
                return Err(Refusal(401, "invalid_client", "Client authentication failed"));
            }
            if kind == "refresh_token" {
                return refreshed(shared, field("refresh_token").unwrap_or_default());
            }
            let user = consent::redeemed(shared, &field).map_err(|why| Refusal(400, "invalid_grant", why))?;
            let refresh_token = format!("stand-in-refresh-{}", random_hex(24));
            shared.state().refresh_tokens.insert(user.clone(), refresh_token.clone());
            Ok((user, Some(refresh_token)))
        }
        Some(_) => Err(Refusal(400, "unsupported_grant_type", "This grant type is not supported")),
        None => Err(Refusal(400, "invalid_request", "grant_type is missing")),
    }
}

/// HTTP Basic, id and secret form-encoded before they are joined (RFC 6749 section 2.3.1).
fn client_of(shared: &Shared, request: &Request) -> Result<String, Refusal> {
    let unknown = || Refusal(401, "invalid_client", "Client authentication failed");
    let (scheme, credentials) =
        request.header("authorization").and_then(|value| value.split_once(' ')).ok_or_else(unknown)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(unknown());
    }
    let decoded = BASE64.decode(credentials.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.ok_or_else(unknown)?;
    let (id, secret) = decoded.split_once(':').ok_or_else(unknown)?;
    let (id, secret) = form_decoded(id).zip(form_decoded(secret)).ok_or_else(unknown)?;
    if shared.state().clients.get(&id) == Some(&secret) { Ok(id) } else { Err(unknown()) }
}

fn refreshed(shared: &Shared, refresh_token: &str) -> Result<(String, Option<String>), Refusal> {
    let mut state = shared.state();
    let user = state.refresh_tokens.iter().find(|(_, live)| *live == refresh_token).map(|(user, _)| user.clone());
    // The vendor's SDK recognises a lost login by exactly these words.
    let user = user.ok_or(Refusal(400, "invalid_request", "Refresh token is invalid"))?;
    let replacement = state.single_use_refresh_tokens.then(|| format!("stand-in-refresh-{}", random_hex(24)));
    if let Some(replacement) = &replacement {
        state.refresh_tokens.insert(user.clone(), replacement.clone());
    }
    Ok((user, replacement))
}

fn token_response(
    shared: &Shared,
    request: &Request,
    subject: &str,
    refresh_token: Option<String>,
    twist: Option<&Fault>,
) -> Response {
    let life = shared.state().token_life;
    let claims = Claims::of(subject);
    let mut body = json!({"token_type": "Bearer", "scope": claims.scope});
    let granted = shared.grant(request, claims, life, twist);
    if let Some(token) = granted.token {
        if request.body().is_some_and(|body| body.contains("assume_group=")) {
            issuers::note_group(shared, &token);
        }
        body["access_token"] = json!(token);
    }
    if granted.told_expiry.is_some() {
        body["expires_in"] = json!(life.as_secs());
    }
    if let Some(refresh_token) = refresh_token {
        body["refresh_token"] = json!(refresh_token);
    }
    shared.state().tokens_issued += 1;
    shared.happened.notify_all();
    Response::json(200, &body).with("Cache-Control", "no-store")
}

/// The identity that asks, from a token that opens the API; or the refusal for anybody else.
pub fn bearer(shared: &Shared, request: &Request) -> Result<String, Response> {
    let refused = |status: u16, message: &str| {
        Response::json(status, &api_error(json!(status), message)).with("X-Databricks-Reason-Phrase", message)
    };
    let bearer = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let Some(bearer) = bearer else {
        return Err(refused(401, "Credential was not sent or was of an unsupported type for this API."));
    };
    match shared.holder(bearer) {
        Ok(_) if issuers::refused_at_azure(shared, request, bearer) => {
            Err(refused(403, "Invalid Azure resource or management token."))
        }
        Err(_) | Ok(Holder { credential: true, .. }) => Err(refused(403, "Invalid access token.")),
        // A real workspace says 403 here, not 401 (databricks-sdk-go#1061).
        Ok(holder) if holder.expires_at <= shared.now() => Err(refused(403, "JWT has expired")),
        Ok(holder) => Ok(holder.subject),
    }
}

fn me(shared: &Shared, request: &Request) -> Response {
    if request.method != "GET" {
        return wrong_method("GET");
    }
    let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    match bearer(shared, request) {
        Err(refusal) => refusal,
        Ok(_) if issuers::is_of_group(shared, token) => Response::json(
            404,
            &json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"], "detail": "User not found.", "status": "404",
                "error_code": "SCIM_404"}),
        ),
        Ok(subject) => Response::json(
            200,
            &json!({
                "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
                "id": "7418291375501184",
                "userName": subject,
                "displayName": subject,
                "active": true,
            }),
        ),
    }
}
