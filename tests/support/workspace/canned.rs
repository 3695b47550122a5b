//! Refusals of real workspaces, and of what is in front of them, in the observed words.

use serde_json::{Value, json};

use super::Fault;
use super::endpoints::LOGIN_PAGE;

const REQUEST_ID: &str = "d326a0e7-36b8-4972-85c0-f75a17f7d175";

impl Fault {
    /// An expired access token: 403, not 401, and the code is a number (databricks-sdk-go#1061).
    pub fn expired_bearer() -> Self {
        refusal(403, &json!({"error_code": 403, "message": "JWT has expired"})).and_reason("JWT has expired")
    }

    /// The same from other services at the same address.
    pub fn invalid_access_token() -> Self {
        let message = format!("Invalid access token. [ReqId: {REQUEST_ID}]");
        refusal(403, &json!({"error_code": 403, "message": message}))
    }

    /// An IP access list blocks this client.
    pub fn ip_blocked(workspace_id: &str) -> Self {
        let message = format!(
            "Source IP address: 203.0.113.9 is blocked by Databricks IP ACL for workspace: {workspace_id} \
             [ReqId: {REQUEST_ID}]"
        );
        refusal(403, &json!({"error_code": 403, "message": message}))
    }

    /// A workspace that can only be reached by private link.
    pub fn private_link(workspace_id: &str) -> Self {
        Self::Redirect(format!("/login.html?error=private-link-validation-error:{workspace_id}"))
    }

    /// A host of many workspaces: the request does not say which one is meant.
    pub fn which_workspace() -> Self {
        let headers = vec![("Content-Type".to_owned(), "text/html; charset=utf-8".to_owned())];
        Self::StatusWith { status: 200, body: LOGIN_PAGE.to_owned(), headers }
    }

    /// The same from its sign-in.
    pub fn no_oauth_config() -> Self {
        text(400, "text/plain", "Unable to load OAuth Config")
    }

    /// The form of the API's version 1.2.
    pub fn older(status: u16, message: &str) -> Self {
        refusal(status, &json!({"error": message}))
    }

    /// The form of the user directory (RFC 7644 section 3.12).
    pub fn scim(status: u16, kind: &str, detail: &str) -> Self {
        let schema = "urn:ietf:params:scim:api:messages:2.0:Error";
        let status_text = status.to_string();
        refusal(status, &json!({"schemas": [schema], "status": status_text, "scimType": kind, "detail": detail}))
    }

    /// `CODE: message` without JSON.
    pub fn plain(status: u16, code: &str, message: &str) -> Self {
        text(status, "text/plain", &format!("{code}: {message}"))
    }

    /// A Java server's own page.
    pub fn preformatted(status: u16, message: &str) -> Self {
        let page = format!(
            "<html>\n<head>\n<title>Error {status}</title>\n</head>\n<body><h2>HTTP ERROR {status}</h2>\n\
             <p>Problem accessing /api/2.0. Reason:\n<pre>    {message}</pre></p></body>\n</html>\n"
        );
        text(status, "text/html; charset=iso-8859-1", &page)
    }

    /// No permission, in the API's words.
    pub fn permission_denied(message: &str) -> Self {
        refusal(403, &json!({"error_code": "PERMISSION_DENIED", "message": message}))
    }

    fn and_reason(mut self, reason: &str) -> Self {
        if let Self::StatusWith { headers, .. } = &mut self {
            headers.push(("X-Databricks-Reason-Phrase".to_owned(), reason.to_owned()));
        }
        self
    }
}

fn refusal(status: u16, body: &Value) -> Fault {
    text(status, "application/json; charset=utf-8", &body.to_string())
}

fn text(status: u16, content_type: &str, body: &str) -> Fault {
    let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
    Fault::StatusWith { status, body: body.to_owned(), headers }
}
