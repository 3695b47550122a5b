//! A request for a token, and what a token endpoint's answer means (RFC 6749, section 5), whoever runs it.

use jiff::{SignedDuration, Timestamp};
use reqwest::header::CONTENT_TYPE;
use reqwest::{RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::form_urlencoded::Serializer;

use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::foreign::secrets;
use crate::http::Answer;
use crate::model::token::{Token, is_publishable};
use crate::model::{AuthMethod, OWN_ADDRESS};
use crate::vendor_errors::{Remedy, remedy};

/// The scope that also covers databases (databricks-sdk-go, auth_m2m.go).
pub(super) const ALL_APIS: &str = "all-apis";

/// What to check where a workspace refuses somebody whom it knows.
const ACCESS: &str = "check the service principal's access to this workspace and the workspace's IP access list";

/// The fields of a form, each with a value.
pub(super) type Form<'f> = Vec<(&'static str, &'f str)>;

/// The request with this form.
pub(super) fn with_form(request: RequestBuilder, form: &Form<'_>) -> RequestBuilder {
    // Never moved while it grows: that would leave secrets behind in memory that is free.
    let longest = form.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let body = Serializer::new(String::with_capacity(longest)).extend_pairs(form).finish();
    request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
}

/// Who was asked for a token, and what helps where the identity is refused.
pub(super) struct Asked<'a> {
    /// The address, as messages have it.
    pub(super) to: &'a str,
    pub(super) method: AuthMethod,
    /// What to check where the identity is refused.
    pub(super) hint: &'a str,
    /// Whether the workspace itself was asked, or its account.
    pub(super) is_workspace: bool,
}

impl Asked<'_> {
    fn elsewhere_or(&self, of_workspace: &'static str) -> &'static str {
        if self.is_workspace { of_workspace } else { "check the settings of this sign-in, see docs/signing-in.md" }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<SecretString>,
    expires_in: Option<Seconds>,
    // Services that hand out tokens on this machine say when, in seconds since 1970 (databricks-sdk-go, auth_azure_msi.go).
    expires_on: Option<Seconds>,
    // Google's answer to a request for a token that names somebody.
    id_token: Option<SecretString>,
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
    fn expiry(&self, now: Timestamp) -> Option<Timestamp> {
        let after = |seconds: &Option<Seconds>, start| seconds.as_ref().and_then(|seconds| seconds.after(start));
        after(&self.expires_in, now).or_else(|| after(&self.expires_on, Timestamp::UNIX_EPOCH))
    }

    fn complaint(&self) -> Option<(String, String)> {
        // An error's text may repeat the token that comes with it.
        self.access_token.iter().chain(&self.id_token).for_each(|token| secrets::keep_until(token, Timestamp::now()));
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
pub(super) fn read_token(answer: &Answer, asked: &Asked<'_>) -> Result<Token, Failure> {
    let to = asked.to;
    if answer.status.is_redirection() {
        return Err(redirected(answer, asked));
    }
    let parsed = serde_json::from_slice::<TokenAnswer>(&answer.body);
    if !answer.status.is_success() {
        return Err(refused(answer, asked, parsed.ok().and_then(|parsed| parsed.complaint())));
    }
    let nonsense = |what: &str| Failure::transient(Code::Unavailable, format!("{to} answered the sign-in {what}"));
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(_) if answer.is_html() => {
            return Err(nonsense("with a page for people (HTML) instead of a token")
                .hint(asked.elsewhere_or("check that the host is a workspace, and the proxy")));
        }
        Err(fault) if fault.is_eof() => return Err(nonsense("with JSON that is cut off")),
        Err(_) => return Err(nonsense("with something that is no token answer")),
    };
    let told = parsed.expiry(answer.time());
    let (complaint, is_error) = (parsed.complaint(), parsed.error.clone());
    let names_somebody = asked.method == AuthMethod::GoogleCredentials;
    let secret = if names_somebody { parsed.id_token } else { parsed.access_token };
    if let (Some((code, text)), None) = (complaint, &secret) {
        return Err(rejected(asked, &code, &text, answer.status));
    }
    let Some(secret) = secret else {
        return Err(nonsense(if names_somebody { "without an id_token" } else { "without an access_token" }));
    };
    if let Some(error) = &is_error {
        return Err(rejected(asked, &quoted(error), "", answer.status));
    }
    if !is_publishable(secret.expose_secret()) {
        return Err(nonsense("with a token that cannot stand in a password file"));
    }
    let now = answer.time();
    let token = Token::new(secret, told, now, asked.method)
        .ok_or_else(|| nonsense("with a token that does not say when it expires"))?;
    if token.expires_at <= now {
        return Err(nonsense("with a token that has already expired").hint("if it stays so, the clock there is wrong"));
    }
    Ok(token)
}

fn redirected(answer: &Answer, asked: &Asked<'_>) -> Failure {
    let to = asked.to;
    let place = answer.location().unwrap_or_else(|| "elsewhere".to_owned());
    Failure::permanent(Code::Configuration, format!("{to} redirects the sign-in to {place}"))
        .hint(asked.elsewhere_or("check that the host is the workspace's own address, and that private link or an IP access list does not block this machine"))
}

fn refused(answer: &Answer, asked: &Asked<'_>, complaint: Option<(String, String)>) -> Failure {
    let to = asked.to;
    if let Some(trouble) = answer.trouble(to) {
        return trouble;
    }
    let status = answer.status;
    match complaint {
        Some((code, text)) => rejected(asked, &code, &text, status).retry_after(answer.retry_after()),
        None if status == StatusCode::NOT_FOUND => {
            Failure::permanent(Code::Configuration, format!("{to} has no sign-in for service principals (404)"))
                .hint(asked.elsewhere_or(OWN_ADDRESS))
        }
        None => Failure::permanent(Code::SignInRefused, format!("{to} refused the sign-in ({})", status.as_u16()))
            .hint(asked.elsewhere_or(ACCESS)),
    }
}

/// An error of RFC 6749, section 5.2, with what Databricks adds to it.
fn rejected(asked: &Asked<'_>, code: &str, text: &str, status: StatusCode) -> Failure {
    let to = asked.to;
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
        "invalid_client" | "unauthorized_client" | "invalid_grant" => {
            Failure::permanent(Code::SignInRefused, message).hint(asked.hint)
        }
        "invalid_scope" | "unsupported_grant_type" | "invalid_request" => {
            Failure::permanent(Code::Configuration, message).hint(
                asked.elsewhere_or("check that the host is a workspace's address and that OAuth is enabled for it"),
            )
        }
        _ if status == StatusCode::NOT_FOUND => {
            Failure::permanent(Code::Configuration, message).hint(asked.elsewhere_or(OWN_ADDRESS))
        }
        _ => Failure::permanent(Code::SignInRefused, message).hint(asked.elsewhere_or(ACCESS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_patience_is_no_refusal() {
        let kind = |status: u16, code: &str, text: &str| {
            let asked = Asked { to: "https://w.example", method: AuthMethod::OauthM2m, hint: "", is_workspace: true };
            let failure = rejected(&asked, code, text, StatusCode::from_u16(status).unwrap());
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
