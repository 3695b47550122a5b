//! The token of a GitHub workflow, which GitHub issues for whom it is asked (GitHub, "OpenID Connect reference").

use std::time::Duration;

use reqwest::Method;
use secrecy::SecretString;
use serde::Deserialize;

use super::elsewhere::{Elsewhere, bearer};
use super::subject::{self, Subject};
use crate::failure::{Code, Failure};
use crate::foreign::secrets;
use crate::model::Workspace;
use crate::os::dirs::Environment;

#[derive(Deserialize)]
struct Answer {
    value: Option<SecretString>,
}

/// Asks for one.
///
/// # Errors
/// Permanent: this is no workflow, or it may not have a token. Transient: GitHub does not answer.
pub(super) async fn request(
    workspace: &Workspace,
    environment: &Environment,
    audience: &str,
    limit: Duration,
) -> Result<Subject, Failure> {
    let (Some(address), Some(token)) =
        (environment.get("ACTIONS_ID_TOKEN_REQUEST_URL"), environment.secret("ACTIONS_ID_TOKEN_REQUEST_TOKEN"))
    else {
        let message = "github-oidc signs in within a workflow of GitHub, and this is none";
        return Err(Failure::permanent(Code::Configuration, message)
            .hint("give the job `permissions: id-token: write`, and run this as one of its steps"));
    };
    secrets::keep(token);
    let at = Elsewhere::at(address, "ACTIONS_ID_TOKEN_REQUEST_URL")?;
    let mut url = at.url.clone();
    url.query_pairs_mut().append_pair("audience", audience);
    let http = at.client(workspace);
    let request = http.request(Method::GET, url)?.headers(bearer(token));
    let answer: Answer = at.json(&http, request, limit, "give the job `permissions: id-token: write`").await?;
    subject::of_answer(answer.value.as_ref(), "GitHub's answer")
}
