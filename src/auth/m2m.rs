//! Sign-in as a service principal: OAuth 2.0 client credentials (RFC 6749, section 4.4) as Databricks accepts them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use super::{Needs, SignedIn};
use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::foreign::secrets;
use crate::http::{Answer, WorkspaceClient};
use crate::model::token::{Token, is_publishable};
use crate::model::{AuthMethod, Client, OWN_ADDRESS};
use crate::vendor_errors::{Remedy, remedy};

/// The scope that also covers databases (databricks-sdk-go, auth_m2m.go).
const FORM: &str = "grant_type=client_credentials&scope=all-apis";

/// Signs in, and returns a token that is live by the workspace's clock.
///
/// # Errors
/// Permanent where the client, its secret or a setting must be changed, else transient.
pub(crate) async fn sign_in(
    http: &WorkspaceClient<'_>,
    account_id: Option<&str>,
    client: &Client,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    let (secret, warning) = client.secret.read(&client.id)?;
    let endpoint = needs.endpoints.find(http, account_id, needs.limit).await?;
    let request = endpoint
        .request(http)?
        .header(AUTHORIZATION, basic(&client.id, &secret))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(FORM);
    let to = endpoint.origin();
    let answer = http.exchange_with(&to, request, needs.limit).await?;
    let token = read_token(&answer, &to).map_err(|failure| {
        if !failure.is_transient() {
            needs.endpoints.forget(http);
        }
        endpoint.explained(&answer, failure)
    })?;
    Ok(SignedIn {
        token,
        anchor: answer.anchor(),
        warnings: warning.into_iter().collect(),
        instead_of: None,
        trouble: None,
        repeated: false,
    })
}

/// RFC 6749, section 2.3.1: both parts form-encoded, then joined and encoded as RFC 7617 says.
fn basic(id: &str, secret: &SecretString) -> HeaderValue {
    let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Zeroizing::new(format!("{}:{}", encode(id), encode(secret.expose_secret())));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    let mut value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Basic"));
    value.set_sensitive(true);
    value
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<SecretString>,
    expires_in: Option<Seconds>,
    error: Option<String>,
    error_description: Option<String>,
    // The proxies of some identity providers use their own key (databricks-sdk-py, oauth.py).
    #[serde(rename = "errorCode")]
    error_code: Option<String>,
    #[serde(rename = "errorSummary")]
    error_summary: Option<String>,
    // The REST API's key, if a gateway answers for the token endpoint.
    message: Option<String>,
}

impl TokenAnswer {
    fn complaint(&self) -> Option<(String, String)> {
        // An error's text may repeat the token that comes with it.
        self.access_token.iter().for_each(|token| secrets::keep_until(token, Timestamp::now()));
        let code = self.error.as_ref().or(self.error_code.as_ref());
        let text = self.error_description.as_ref().or(self.error_summary.as_ref()).or(self.message.as_ref());
        (code.is_some() || text.is_some())
            .then(|| (quoted(code.map_or("", String::as_str)), quoted(text.map_or("", String::as_str))))
    }
}

/// `expires_in` is a number, or a string with one (golang/oauth2, internal/token.go).
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

impl Seconds {
    fn after(&self, now: Timestamp) -> Option<Timestamp> {
        let seconds = match self {
            Seconds::Number(number) => *number,
            Seconds::Text(text) => text.trim().parse().ok()?,
        };
        now.checked_add(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()
    }
}

/// What a token endpoint's answer means.
pub(super) fn read_token(answer: &Answer, to: &str) -> Result<Token, Failure> {
    if answer.status.is_redirection() {
        return Err(redirected(answer, to));
    }
    let parsed = serde_json::from_slice::<TokenAnswer>(&answer.body);
    if !answer.status.is_success() {
        return Err(refused(answer, to, parsed.ok().and_then(|parsed| parsed.complaint())));
    }
    let nonsense = |what: &str| Failure::transient(Code::Unavailable, format!("{to} answered the sign-in {what}"));
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(_) if answer.is_html() => {
            return Err(nonsense("with a page for people (HTML) instead of a token")
                .hint("check that the host is a workspace, and the proxy"));
        }
        Err(fault) if fault.is_eof() => return Err(nonsense("with JSON that is cut off")),
        Err(_) => return Err(nonsense("with something that is no token answer")),
    };
    if let (Some((code, text)), None) = (parsed.complaint(), &parsed.access_token) {
        return Err(rejected(to, &code, &text, answer.status));
    }
    let Some(secret) = parsed.access_token else {
        return Err(nonsense("without an access_token"));
    };
    if let Some(error) = &parsed.error {
        return Err(rejected(to, &quoted(error), "", answer.status));
    }
    if !is_publishable(secret.expose_secret()) {
        return Err(nonsense("with a token that cannot stand in a password file"));
    }
    let now = answer.time();
    let told = parsed.expires_in.as_ref().and_then(|seconds| seconds.after(now));
    let token = Token::new(secret, told, now, AuthMethod::OauthM2m)
        .ok_or_else(|| nonsense("with a token that does not say when it expires"))?;
    if token.expires_at <= now {
        return Err(
            nonsense("with a token that has already expired").hint("if it stays so, the workspace's clock is wrong")
        );
    }
    Ok(token)
}

fn redirected(answer: &Answer, to: &str) -> Failure {
    let place = answer.location().unwrap_or_else(|| "elsewhere".to_owned());
    Failure::permanent(Code::Configuration, format!("{to} redirects the sign-in to {place}"))
        .hint("check that the host is the workspace's own address, and that private link or an IP access list does not block this machine")
}

fn refused(answer: &Answer, to: &str, complaint: Option<(String, String)>) -> Failure {
    if let Some(trouble) = answer.trouble(to) {
        return trouble;
    }
    let status = answer.status;
    match complaint {
        Some((code, text)) => rejected(to, &code, &text, status).retry_after(answer.retry_after()),
        None if status == StatusCode::NOT_FOUND => {
            Failure::permanent(Code::Configuration, format!("{to} has no sign-in for service principals (404)"))
                .hint(OWN_ADDRESS)
        }
        None => Failure::permanent(Code::SignInRefused, format!("{to} refused the sign-in ({})", status.as_u16()))
            .hint("check the service principal's access to this workspace and the workspace's IP access list"),
    }
}

/// An error of RFC 6749, section 5.2, with what Databricks adds to it.
fn rejected(to: &str, code: &str, text: &str, status: StatusCode) -> Failure {
    let said = match (code.is_empty(), text.is_empty()) {
        (false, false) => format!("{code}: {text}"),
        (false, true) => code.to_owned(),
        _ => text.to_owned(),
    };
    if remedy(status.as_u16(), code, text) == Some(Remedy::Wait) {
        return Failure::transient(Code::Unavailable, format!("{to} cannot sign in now: {said}"))
            .hint("it is tried again; if it stays so for hours, look at the workspace's status page");
    }
    let message = format!("{to} refused the sign-in: {said}");
    match code {
        "invalid_client" | "unauthorized_client" | "invalid_grant" => Failure::permanent(Code::SignInRefused, message).hint(
            "check the client id, and whether its secret is right and not expired: make a new one under the service principal's Secrets",
        ),
        "invalid_scope" | "unsupported_grant_type" | "invalid_request" => Failure::permanent(Code::Configuration, message)
            .hint("check that the host is a workspace's address and that OAuth is enabled for it"),
        _ if status == StatusCode::NOT_FOUND => {
            Failure::permanent(Code::Configuration, message).hint(OWN_ADDRESS)
        }
        _ => Failure::permanent(Code::SignInRefused, message)
            .hint("check the service principal's access to this workspace and the workspace's IP access list"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_patience_is_no_refusal() {
        let kind = |status: u16, code: &str, text: &str| {
            let failure = rejected("https://w.example", code, text, StatusCode::from_u16(status).unwrap());
            (failure.is_transient(), failure.code)
        };
        for (code, text) in
            [("invalid_request", "Temporarily throttled"), ("temporarily_unavailable", ""), ("server_error", "")]
        {
            assert_eq!(kind(400, code, text), (true, Code::Unavailable), "{code}: {text}");
        }
        assert_eq!(kind(400, "invalid_request", "grant_type is missing"), (false, Code::Configuration));
        assert_eq!(kind(401, "invalid_client", "expired"), (false, Code::SignInRefused));
    }
}
