//! The parts of the Database API and the Postgres API that concern credentials and what they are for.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::endpoints::{api_error, bearer, not_found, wrong_method};
use super::super::http::{Request, Response, segment_decoded};
use super::super::tokens::Claims;
use super::super::{Endpoint, Fault, Shared};
use super::{Branch, LARGEST_PAGE, Lakebase, Project};

/// The scope of a credential, which tells it from a token that opens the API.
pub const CREDENTIAL_SCOPE: &str = "postgres";
const SHORTEST_LIFE: Duration = Duration::from_secs(300);
const LONGEST_LIFE: Duration = Duration::from_secs(3600);

const INSTANCES: &str = "/api/2.0/database/instances";
const POSTGRES: &str = "/api/2.0/postgres/";

/// A success or a refusal; both are sent.
type Answered = Result<Response, Response>;

/// Lakebase's endpoint at this path.
pub fn endpoint_at(path: &str) -> Option<Endpoint> {
    match path {
        "/api/2.0/database/credentials" => return Some(Endpoint::DatabaseCredentials),
        INSTANCES => return Some(Endpoint::DatabaseInstances),
        "/api/2.0/database/instances:findByUid" => return Some(Endpoint::DatabaseInstance),
        "/api/2.0/postgres/credentials" => return Some(Endpoint::PostgresCredentials),
        _ => {}
    }
    if let Some(name) = path.strip_prefix(INSTANCES).and_then(|rest| rest.strip_prefix('/')) {
        return (!name.is_empty() && !name.contains('/')).then_some(Endpoint::DatabaseInstance);
    }
    let parts: Vec<&str> = path.strip_prefix(POSTGRES)?.split('/').collect();
    match parts[..] {
        ["projects"] | ["projects", _] => Some(Endpoint::PostgresProjects),
        ["projects", _, "branches"] | ["projects", _, "branches", _] => Some(Endpoint::PostgresBranches),
        ["projects", _, "branches", _, "endpoints"] | ["projects", _, "branches", _, "endpoints", _] => {
            Some(Endpoint::PostgresEndpoints)
        }
        _ => None,
    }
}

pub fn answer(shared: &Shared, endpoint: Endpoint, request: &Request, twist: Option<&Fault>) -> Response {
    answered(shared, endpoint, request, twist).unwrap_or_else(|refusal| refusal)
}

fn answered(shared: &Shared, endpoint: Endpoint, request: &Request, twist: Option<&Fault>) -> Answered {
    let lakebase = shared.state().lakebase.clone();
    if !lakebase.speaks(endpoint) {
        return Err(not_found(request));
    }
    let asking = Asking { shared, request, caller: bearer(shared, request)?, lakebase };
    let mints = matches!(endpoint, Endpoint::DatabaseCredentials | Endpoint::PostgresCredentials);
    let method = if mints { "POST" } else { "GET" };
    if request.method != method {
        return Err(wrong_method(method));
    }
    match endpoint {
        Endpoint::DatabaseCredentials => asking.database_credential(twist),
        Endpoint::PostgresCredentials => asking.postgres_credential(twist),
        Endpoint::DatabaseInstances => asking.instances(),
        Endpoint::DatabaseInstance => asking.instance(),
        _ => asking.postgres(),
    }
}

/// A request by a known identity.
struct Asking<'a> {
    shared: &'a Shared,
    request: &'a Request,
    caller: String,
    lakebase: Lakebase,
}

impl Asking<'_> {
    // Credentials.

    fn database_credential(&self, twist: Option<&Fault>) -> Answered {
        let body = self.body()?;
        let names = match &body["instance_names"] {
            Value::Null => Vec::new(),
            Value::Array(names) => {
                let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
                names.ok_or_else(|| malformed("instance_names"))?
            }
            _ => return Err(malformed("instance_names")),
        };
        if names.is_empty() && body["claims"].as_array().is_none_or(Vec::is_empty) {
            return Err(invalid("At least one of instance_names or claims must be specified."));
        }
        self.may_mint()?;
        for name in names {
            self.may_see("database instance", name)?;
            let instance = self.lakebase.instance(name).ok_or_else(|| no_instance(name))?;
            if instance.upgraded {
                return Err(invalid(&format!(
                    "Database instance '{name}' has been upgraded to a Lakebase Autoscaling project. Use the Postgres \
                     API to generate credentials for its endpoints."
                )));
            }
        }
        Ok(self.mint("expiration_time", self.lakebase.credential_life, twist))
    }

    fn postgres_credential(&self, twist: Option<&Fault>) -> Answered {
        let body = self.body()?;
        let text = |field: &str| match &body[field] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            _ => Err(malformed(field)),
        };
        let endpoint = text("endpoint")?.ok_or_else(|| invalid("Field 'endpoint' is required."))?;
        let life = match (text("ttl")?, text("expire_time")?) {
            (Some(_), Some(_)) => return Err(invalid("Only one of 'ttl' and 'expire_time' may be set.")),
            (Some(ttl), None) => duration(&ttl).ok_or_else(|| malformed("ttl"))?,
            (None, Some(at)) => {
                let at: Timestamp = at.parse().map_err(|_| malformed("expire_time"))?;
                let ahead = at.as_second() - self.shared.now();
                Duration::from_secs(u64::try_from(ahead).unwrap_or(0))
            }
            (None, None) => LONGEST_LIFE,
        };
        if !(SHORTEST_LIFE..=LONGEST_LIFE).contains(&life) {
            return Err(invalid("The credential must expire between 300 and 3600 seconds from now."));
        }
        self.may_mint()?;
        let parts: Vec<&str> = endpoint.split('/').collect();
        if !matches!(parts[..], ["projects", _, "branches", _, "endpoints", _]) {
            return Err(invalid(&format!("'{endpoint}' is not the resource name of an endpoint.")));
        }
        self.resource(&parts)?;
        Ok(self.mint("expire_time", life.min(self.lakebase.credential_life), twist))
    }

    fn mint(&self, expiry_field: &str, life: Duration, twist: Option<&Fault>) -> Response {
        let claims = Claims { scope: CREDENTIAL_SCOPE, ..Claims::of(&self.caller) };
        let granted = self.shared.grant(self.request, claims, life, twist);
        let mut body = json!({});
        if let Some(token) = granted.token {
            body["token"] = json!(token);
        }
        if let Some(at) = granted.told_expiry {
            body[expiry_field] = json!(Timestamp::from_second(at).expect("a time within reason").to_string());
        }
        self.shared.state().lakebase.minted += 1;
        self.shared.happened.notify_all();
        Response::json(200, &body)
    }

    /// The request's object, which is remembered.
    fn body(&self) -> Result<Value, Response> {
        let body: Option<Value> = self.request.body().and_then(|body| serde_json::from_str(body).ok());
        let body = body.filter(Value::is_object).ok_or_else(|| malformed("the body"))?;
        self.shared.state().lakebase.requests.push(body.clone());
        Ok(body)
    }

    // Objects.

    fn instances(&self) -> Answered {
        let all = self.lakebase.instances.iter().map(|instance| (instance.name.as_str(), instance.json()));
        self.page("database_instances", all.collect())
    }

    /// By name in the path, or by `uid` in the query.
    fn instance(&self) -> Answered {
        let name = self.request.path.strip_prefix(INSTANCES).and_then(|rest| rest.strip_prefix('/'));
        let found = match name {
            Some(name) => {
                let name = segment_decoded(name).ok_or_else(|| malformed("the name"))?;
                self.may_see("database instance", &name)?;
                self.lakebase.instance(&name).ok_or_else(|| no_instance(&name))?
            }
            None => {
                let uid = self.request.query("uid").ok_or_else(|| invalid("Field 'uid' is required."))?;
                let found = self.lakebase.instances.iter().find(|instance| instance.uid == uid);
                let found = found.ok_or_else(|| no_instance(&uid))?;
                self.may_see("database instance", &found.name)?;
                found
            }
        };
        Ok(Response::json(200, &found.json()))
    }

    fn postgres(&self) -> Answered {
        let path = self.request.path.strip_prefix(POSTGRES).unwrap_or_default();
        let parts: Option<Vec<String>> = path.split('/').map(segment_decoded).collect();
        let parts = parts.ok_or_else(|| malformed("the name"))?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts[..] {
            ["projects"] => {
                let all = self.lakebase.projects.iter().map(|project| (project.name.as_str(), project.json()));
                self.page("projects", all.collect())
            }
            ["projects", project, "branches"] => {
                let project = self.project(project)?;
                let all = project.branches.iter().map(|branch| (project.name.as_str(), branch.json(project)));
                self.page("branches", all.collect())
            }
            ["projects", project, "branches", branch, "endpoints"] => {
                let project = self.project(project)?;
                let branch = found_branch(project, branch)?;
                let all = branch.endpoints.iter();
                let all = all.map(|endpoint| (project.name.as_str(), endpoint.json(branch, project)));
                self.page("endpoints", all.collect())
            }
            _ => Ok(Response::json(200, &self.resource(&parts)?)),
        }
    }

    /// The project, branch or endpoint of that name.
    fn resource(&self, parts: &[&str]) -> Result<Value, Response> {
        let [_, project, rest @ ..] = parts else { return Err(not_found(self.request)) };
        let project = self.project(project)?;
        let [_, branch, rest @ ..] = rest else { return Ok(project.json()) };
        let branch = found_branch(project, branch)?;
        let [_, endpoint] = rest else { return Ok(branch.json(project)) };
        let found = branch.endpoints.iter().find(|known| known.name == *endpoint);
        let found = found.ok_or_else(|| missing(&format!("Endpoint '{endpoint}' not found.")))?;
        Ok(found.json(branch, project))
    }

    fn project(&self, name: &str) -> Result<&Project, Response> {
        self.may_see("project", name)?;
        self.lakebase.project(name).ok_or_else(|| missing(&format!("Project '{name}' not found.")))
    }

    // Permissions.

    fn may_see(&self, kind: &str, name: &str) -> Result<(), Response> {
        let shown = self.lakebase.shows(&self.caller, name);
        if shown { Ok(()) } else { Err(self.denied(&format!("on {kind} '{name}'"))) }
    }

    fn may_mint(&self) -> Result<(), Response> {
        let may = !self.lakebase.forbidden.contains(&self.caller);
        if may { Ok(()) } else { Err(self.denied("to generate database credentials")) }
    }

    fn denied(&self, what: &str) -> Response {
        let message = format!("User {} does not have permission {what}.", self.caller);
        Response::json(403, &api_error(json!("PERMISSION_DENIED"), &message))
    }

    /// One page of the visible objects. Hidden ones are removed from a page but still counted, so that a page before
    /// the last may be short or even empty. An empty list is omitted, as the real one does.
    fn page(&self, field: &str, all: Vec<(&str, Value)>) -> Answered {
        let asked = match self.request.query("page_size") {
            None => LARGEST_PAGE,
            Some(size) => size.parse().map_err(|_| malformed("page_size"))?,
        };
        if !(1..=LARGEST_PAGE).contains(&asked) {
            return Err(invalid("page_size must be between 1 and 100."));
        }
        let first = match self.request.query("page_token").filter(|token| !token.is_empty()) {
            None => 0,
            Some(token) => opened_page_token(&token).ok_or_else(|| invalid("page_token is invalid."))?,
        };
        let size = asked.min(self.lakebase.page_size);
        let after = first + size;
        let more = after < all.len();
        let seen: Vec<Value> = all
            .into_iter()
            .skip(first)
            .take(size)
            .filter(|(object, _)| self.lakebase.shows(&self.caller, object))
            .map(|(_, json)| json)
            .collect();
        let mut body = json!({});
        if !seen.is_empty() {
            body[field] = json!(seen);
        }
        if more {
            body["next_page_token"] = json!(page_token(after));
        }
        Ok(Response::json(200, &body))
    }
}

fn found_branch<'a>(project: &'a Project, name: &str) -> Result<&'a Branch, Response> {
    let found = project.branches.iter().find(|branch| branch.name == name);
    found.ok_or_else(|| missing(&format!("Branch '{name}' not found.")))
}

fn no_instance(name: &str) -> Response {
    missing(&format!("Database instance '{name}' not found."))
}

fn missing(message: &str) -> Response {
    Response::json(404, &api_error(json!("NOT_FOUND"), message))
}

fn invalid(message: &str) -> Response {
    Response::json(400, &api_error(json!("INVALID_PARAMETER_VALUE"), message))
}

fn malformed(what: &str) -> Response {
    Response::json(400, &api_error(json!("MALFORMED_REQUEST"), &format!("Could not parse request object: {what}")))
}

/// A page token begins with bytes whose base64 is `++//`, so that a client that does not escape it fails.
const TOKEN_MARK: [u8; 3] = [0xfb, 0xef, 0xff];

fn page_token(next: usize) -> String {
    BASE64.encode([&TOKEN_MARK, next.to_string().as_bytes()].concat())
}

fn opened_page_token(token: &str) -> Option<usize> {
    let bytes = BASE64.decode(token).ok()?;
    std::str::from_utf8(bytes.strip_prefix(&TOKEN_MARK)?).ok()?.parse().ok()
}

/// Protobuf's JSON for a duration: seconds, with up to nine decimals, and an `s`.
fn duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (seconds, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(decimals) || decimals.len() > 9 {
        return None;
    }
    Some(Duration::new(seconds.parse().ok()?, format!("{decimals:0<9}").parse().ok()?))
}
