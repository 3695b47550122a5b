//! Where people sign in: a page that asks for consent, and the codes that it gives (RFC 6749, section 4.1; RFC 7636). Whoever opens it is
//! the workspace's user, signed in already.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use super::endpoints::CLI_CLIENT_ID;
use super::http::{Request, Response, form_fields};
use super::tokens::random_hex;
use super::{Shared, Workspace};

/// Where the page's buttons lead.
pub const DECISION: &str = "/oidc/v1/decision";

/// What happens on the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decision {
    /// It waits for a click.
    #[default]
    Open,
    /// A script of the page clicks at once, as a person would.
    Allow,
    Deny,
}

/// Consents, by their tickets, and codes, each for one exchange.
#[derive(Default)]
pub struct Consents {
    decision: Decision,
    asked: HashMap<String, Asked>,
    codes: HashMap<String, Asked>,
    groups: Vec<Option<String>>,
}

#[derive(Clone)]
struct Asked {
    redirect: String,
    state: String,
    challenge: String,
}

impl Workspace {
    /// What the page does from now on.
    pub fn decide(&self, decision: Decision) {
        self.shared.state().consents.decision = decision;
    }

    /// The group of each consent that was asked for.
    pub fn groups_assumed(&self) -> Vec<Option<String>> {
        self.shared.state().consents.groups.clone()
    }
}

pub fn answer(shared: &Shared, request: &Request) -> Response {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", DECISION) => Response::html(405, "<h1>Method not allowed</h1>"),
        ("GET", _) => page(shared, request),
        ("POST", DECISION) => decided(shared, request),
        _ => Response::html(405, "<h1>Method not allowed</h1>"),
    }
}

/// The page, or what is wrong with the request: that must not be sent back to an address that is not the client's.
fn page(shared: &Shared, request: &Request) -> Response {
    let field = |name: &str| request.query(name).unwrap_or_default();
    let redirect = field("redirect_uri");
    let port = redirect.strip_prefix("http://localhost:").and_then(|port| port.parse::<u16>().ok());
    for (name, is_right) in [
        ("redirect_uri", port.is_some_and(|port| (1024..=65535).contains(&port))),
        ("client_id", field("client_id") == CLI_CLIENT_ID),
        ("response_type", field("response_type") == "code"),
        (
            "scope",
            field("scope").split(' ').collect::<std::collections::BTreeSet<_>>()
                == ["all-apis", "offline_access"].into(),
        ),
        ("code_challenge_method", field("code_challenge_method") == "S256"),
        ("code_challenge", field("code_challenge").len() == 43),
        ("state", field("state").len() >= 16),
    ] {
        if !is_right {
            return Response::html(400, &format!("<h1>{name} is not as it is registered</h1>"));
        }
    }
    let ticket = random_hex(16);
    let asked = Asked { redirect, state: field("state"), challenge: field("code_challenge") };
    let mut state = shared.state();
    state.consents.asked.insert(ticket.clone(), asked);
    state.consents.groups.push(request.query("assume_group"));
    let script = match state.consents.decision {
        Decision::Open => "",
        Decision::Allow => "<script>document.getElementById('allow').click()</script>",
        Decision::Deny => "<script>document.getElementById('deny').click()</script>",
    };
    Response::html(
        200,
        &format!(
            "<!DOCTYPE html>\n<html><head><title>Databricks CLI</title></head><body>\
             <p>Databricks CLI asks for access to your workspace</p>\
             <form method=\"post\" action=\"{DECISION}\"><input type=\"hidden\" name=\"ticket\" value=\"{ticket}\">\
             <button id=\"allow\" name=\"decision\" value=\"allow\">Allow</button>\
             <button id=\"deny\" name=\"decision\" value=\"deny\">Deny</button></form>{script}</body></html>\n"
        ),
    )
    .with("Referrer-Policy", "no-referrer")
}

fn decided(shared: &Shared, request: &Request) -> Response {
    let fields = request.body().and_then(form_fields).unwrap_or_default();
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let mut state = shared.state();
    let Some(asked) = field("ticket").and_then(|ticket| state.consents.asked.remove(ticket)) else {
        return Response::html(400, "<h1>Nobody has asked for this</h1>");
    };
    let Asked { redirect, state: theirs, .. } = asked.clone();
    let answer = if field("decision") == Some("allow") {
        let code = format!("stand-in-code-{}", random_hex(16));
        state.consents.codes.insert(code.clone(), asked);
        format!("code={code}")
    } else {
        "error=access_denied&error_description=The+user+has+cancelled".to_owned()
    };
    Response::html(302, "").with("Location", format!("{redirect}/?{answer}&state={theirs}"))
}

/// The user whose code it is; each code is good once, for who asked for it.
pub fn redeemed<'f>(shared: &Shared, field: &dyn Fn(&str) -> Option<&'f str>) -> Result<String, &'static str> {
    let code = field("code").unwrap_or_default();
    let asked = shared.state().consents.codes.remove(code).ok_or("The code is not known")?;
    if field("redirect_uri") != Some(&asked.redirect) {
        return Err("The redirect_uri is another one");
    }
    let verifier = field("code_verifier").unwrap_or_default();
    if URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()).as_ref()) != asked.challenge {
        return Err("The code_verifier does not fit");
    }
    Ok(shared.user.clone())
}
