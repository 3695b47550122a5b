//! What an answer other than a success means: every form of error body, with the sentence and the next step for each.
//!
//! 403 means both "not allowed" and "expired" (databricks-sdk-go#1061), so the body decides.

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::http::Answer;
use crate::vendor_errors::{Remedy, is_about_one_database, remedy};

/// What was asked for, for messages: `mint a credential for`, `instance orders`.
pub(super) struct About {
    pub(super) verb: &'static str,
    pub(super) object: String,
}

/// A success with an unusable body.
pub(super) fn nonsense(to: &str, about: &About, what: &str) -> Failure {
    Failure::transient(
        Code::Unavailable,
        format!("{to} was asked to {} {}, and answered {what}", about.verb, about.object),
    )
    .hint("it is tried again; if it stays so, check the host and the proxy")
}

/// The failure that an answer means. `to` is the workspace's address, `subject` the identity of the token.
pub(super) fn classify_error(answer: &Answer, to: &str, subject: Option<&str>, about: &About) -> Failure {
    if let Some(trouble) = answer.trouble(to) {
        return trouble;
    }
    if answer.is_private_link_block() {
        return private_link(to);
    }
    if answer.status.is_redirection() {
        return redirected(to, answer);
    }
    if answer.status.is_success() {
        return page(to, about, answer);
    }
    let said = ApiError::of(answer);
    let words = said.text.to_ascii_lowercase();
    let has = |text: &str| words.contains(text);
    let remedy = remedy(answer.status.as_u16(), &said.code, &said.text);
    if has("ip acl") || has("ip access list") || has("source ip address") {
        Failure::permanent(Code::Unavailable, format!("{to} takes no requests from this network: {said}"))
            .hint("let an administrator add its address to the workspace's IP access list, or use the VPN")
    } else if has("private link") || has("private access") || has("public network access") {
        let failure = private_link(to);
        Failure { message: format!("{}: {said}", failure.message), ..failure }
    } else if remedy == Some(Remedy::Wait) {
        Failure::transient(Code::TryAgain, format!("{to} asks to {} {} later: {said}", about.verb, about.object))
            .hint("it is tried again; if it stays so for hours, look at the workspace's status page")
            .retry_after(answer.retry_after())
    } else if remedy == Some(Remedy::SignInAgain) {
        Failure::transient(
            Code::SignInRefused,
            format!("{to} rejects the access token as expired or issued elsewhere: {said}"),
        )
        .hint("it signs in again; if it stays so, check this machine's clock, or log in again")
    } else if is_other_workspace(&words) {
        Failure::permanent(Code::Configuration, format!("{to} does not know this workspace or account: {said}"))
            .hint("check the host, its ?o=WORKSPACE_ID, and workspace_id and account_id in the profile")
    } else if said.is_not_found(answer.status) {
        not_found(to, about, &said)
    } else if answer.status == StatusCode::FORBIDDEN || said.code == "PERMISSION_DENIED" {
        let who = subject.unwrap_or("this identity");
        Failure::permanent(Code::SignInRefused, format!("{who} may not {} {}: {said}", about.verb, about.object))
            .hint("let an administrator give it CAN USE on the database and the entitlement Workspace access")
    } else if is_about_one_database(&said.text) {
        Failure::transient(Code::Unavailable, format!("{to} cannot {} {} now: {said}", about.verb, about.object))
            .hint("start it in the workspace, or wait until it is up")
    } else {
        // The cause is unknown, so the message names none.
        let status = answer.status.as_u16();
        Failure::permanent(Code::Configuration, format!("{to} refused to {} {}: {said}", about.verb, about.object))
            .hint(format!("it answered with HTTP status {status}; `dbx-rotator connections` lists what there is"))
    }
}

fn private_link(to: &str) -> Failure {
    Failure::permanent(
        Code::Unavailable,
        format!("{to} can only be reached through a private link, not from this network"),
    )
    .hint("run it inside that network, or let an administrator change the workspace's network access")
}

fn redirected(to: &str, answer: &Answer) -> Failure {
    let place = answer.location().unwrap_or_else(|| "elsewhere".to_owned());
    Failure::permanent(Code::Configuration, format!("{to} redirects its API to {place}"))
        .hint("check that the host is the workspace's own address")
}

/// A web page: the workspace's own login page, or one from something on the way.
fn page(to: &str, about: &About, answer: &Answer) -> Failure {
    let is_own = String::from_utf8_lossy(&answer.body).to_ascii_lowercase().contains("databricks");
    if is_own {
        let message = format!("{to} answered with its login page when asked to {} {}", about.verb, about.object);
        Failure::permanent(Code::Configuration, message).hint(format!(
            "where an address serves several workspaces it must say which: host = \"{to}/?o=WORKSPACE_ID\""
        ))
    } else {
        nonsense(to, about, "with a page for people (HTML)")
    }
}

fn not_found(to: &str, about: &About, said: &ApiError) -> Failure {
    let no_api =
        said.code == "ENDPOINT_NOT_FOUND" || said.code == "FEATURE_DISABLED" || said.text.starts_with("No API found");
    if said.code == "SCIM_404" {
        let message =
            format!("{to} knows nobody whom this token names: it was issued with the rights of a group ({said})");
        Failure::permanent(Code::Configuration, message)
            .hint("set the PostgreSQL user to the name of the group's role: user = \"...\" or --pg-username")
    } else if no_api {
        Failure::permanent(Code::Configuration, format!("{to} has no Lakebase API for {}: {said}", about.object))
            .hint("check the host; with credential = \"workspace-token\" and a host that API is not needed")
    } else {
        Failure::permanent(
            Code::Configuration,
            format!("there is no {} that can be seen in {to}: {said}", about.object),
        )
        .hint("`dbx-rotator connections` lists what there is")
    }
}

fn is_other_workspace(words: &str) -> bool {
    let names_it =
        ["workspace id", "workspace_id", "account id", "account_id", "org id"].iter().any(|id| words.contains(id));
    let not_it = ["invalid", "not found", "does not exist", "does not match", "mismatch", "unknown", "wrong"];
    words.contains("unable to load oauth config") || (names_it && not_it.iter().any(|text| words.contains(text)))
}

/// The error code and message, whatever the form of the body.
#[derive(Debug, PartialEq, Eq)]
struct ApiError {
    code: String,
    text: String,
}

/// The forms that the REST API has had over time, and SCIM's (RFC 7644, section 3.12).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    error_code: Option<Value>,
    error: Option<Value>,
    message: Option<String>,
    detail: Option<String>,
    #[serde(rename = "scimType")]
    scim_type: Option<String>,
}

impl ApiError {
    fn of(answer: &Answer) -> Self {
        let status = answer.status.as_u16().to_string();
        let text = String::from_utf8_lossy(&answer.body);
        let found = Self::of_json(&answer.body).or_else(|| Self::of_html(&text)).or_else(|| Self::of_text(&text));
        let ApiError { code, text } = found.unwrap_or(ApiError { code: String::new(), text: String::new() });
        ApiError { code: if code.is_empty() { status } else { code }, text: quoted(&text) }
    }

    fn of_json(body: &[u8]) -> Option<Self> {
        let Body { error_code, error, message, detail, scim_type } = serde_json::from_slice(body).ok()?;
        let word = |value: Value| match value {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let error = error.and_then(word);
        let text = message.or(detail).or_else(|| error.clone())?;
        let code = error_code.and_then(word).or(scim_type).or(error).unwrap_or_default();
        Some(ApiError { code: quoted(&code), text })
    }

    /// The text between `<pre>` and `</pre>`.
    fn of_html(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("<pre>")?;
        let (inner, _) = rest.split_once("</pre>")?;
        Some(ApiError { code: String::new(), text: inner.trim().to_owned() })
    }

    /// `CODE: message`.
    fn of_text(text: &str) -> Option<Self> {
        let is_page = text.trim_start().starts_with('<');
        let (code, message) = text.split_once(": ").filter(|(code, _)| is_code(code)).unwrap_or(("", text));
        (!is_page && !text.trim().is_empty()).then(|| ApiError { code: code.to_owned(), text: message.to_owned() })
    }

    fn is_not_found(&self, status: StatusCode) -> bool {
        status == StatusCode::NOT_FOUND
            || matches!(
                self.code.as_str(),
                "NOT_FOUND" | "RESOURCE_DOES_NOT_EXIST" | "ENDPOINT_NOT_FOUND" | "FEATURE_DISABLED"
            )
    }
}

fn is_code(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code.as_str(), self.text.as_str()) {
            (code, "") => f.write_str(code),
            (code, text) => write!(f, "{text} ({code})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: &str, text: &str) -> Option<ApiError> {
        Some(ApiError { code: code.to_owned(), text: text.to_owned() })
    }

    #[test]
    fn every_form_of_an_error_is_read() {
        let json = |text: &str| ApiError::of_json(text.as_bytes());
        assert_eq!(json(r#"{"error_code":"NOT_FOUND","message":"no x"}"#), said("NOT_FOUND", "no x"));
        assert_eq!(json(r#"{"error_code":403,"message":"JWT has expired"}"#), said("403", "JWT has expired"));
        assert_eq!(json(r#"{"error":"boom"}"#), said("boom", "boom"));
        assert_eq!(json(r#"{"detail":"no","status":"403","scimType":"sensitive"}"#), said("sensitive", "no"));
        assert_eq!(json("[]").or_else(|| json("\"x\"")), None);
        assert_eq!(ApiError::of_html("<html><pre>\nno such thing\n</pre>"), said("", "no such thing"));
        assert_eq!(ApiError::of_text("MALFORMED_REQUEST: no body"), said("MALFORMED_REQUEST", "no body"));
        assert_eq!(ApiError::of_text("something: else"), said("", "something: else"));
        assert_eq!(ApiError::of_text("<html>").or_else(|| ApiError::of_text(" ")), None);
    }

    #[test]
    fn another_workspace_is_told_from_an_unknown_database() {
        for text in ["unable to load oauth config", "invalid workspace id 7", "account_id does not match"] {
            assert!(is_other_workspace(text), "{text}");
        }
        assert!(!is_other_workspace("database instance 'orders' not found."));
    }
}
