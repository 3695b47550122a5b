//! Workload identity federation: the token of another issuer is exchanged for the workspace's (RFC 8693), so that no secret is
//! stored. databricks-sdk-go, config/experimental/auth/oidc, has the same exchange.
//!
//! The token goes where a client's secret would go, and nowhere else.

use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::endpoint::{HostMetadata, TokenEndpoint};
use super::exchange::{ALL_APIS, Asked, Form, read_token, with_form};
use super::subject::Subject;
use super::{Needs, SignedIn, azure_devops_oidc, env_oidc, file_oidc, github_oidc};
use crate::failure::{Code, Failure};
use crate::http::WorkspaceClient;
use crate::model::{Federation, SubjectSource, Workspace};
use crate::os::dirs::Environment;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Signs in.
///
/// # Errors
/// Permanent: the token cannot be used, or the workspace knows no policy for it. Transient: somebody does not answer.
pub(super) async fn sign_in(
    workspace: &Workspace,
    federation: &Federation,
    http: &WorkspaceClient<'_>,
    environment: &Environment,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    // What is at hand is looked at before anybody is asked anything.
    let at_hand = at_hand(federation, environment).transpose()?;
    let endpoint = needs.endpoints.find(http, workspace.account_id.as_deref(), needs.limit).await?;
    let subject = match at_hand {
        Some(subject) => subject,
        None => requested(workspace, federation, http, environment, &endpoint, needs).await?,
    };
    refuse_expired(&subject, federation, http, needs).await?;
    exchange(workspace, federation, http, &endpoint, &subject, needs).await
}

/// The token, where it is on this machine; none where it must be asked for.
pub(super) fn at_hand(federation: &Federation, environment: &Environment) -> Option<Result<Subject, Failure>> {
    match &federation.subject {
        SubjectSource::File(path) => Some(file_oidc::read(path)),
        SubjectSource::Variable(name) => Some(env_oidc::read(name, environment)),
        SubjectSource::Github | SubjectSource::AzureDevops => None,
    }
}

async fn requested(
    workspace: &Workspace,
    federation: &Federation,
    http: &WorkspaceClient<'_>,
    environment: &Environment,
    endpoint: &TokenEndpoint,
    needs: &Needs<'_>,
) -> Result<Subject, Failure> {
    if federation.subject == SubjectSource::AzureDevops {
        return azure_devops_oidc::request(workspace, environment, needs.limit).await;
    }
    let audience = match &federation.audience {
        Some(audience) => audience.clone(),
        None => usual_audience(workspace, http, endpoint, needs).await?,
    };
    github_oidc::request(workspace, environment, &audience, needs.limit).await
}

/// For whom a token is asked, where that is not set: whom the host names, the account where it is no single workspace, else the token
/// endpoint (databricks-sdk-py, config.py, `_resolve_host_metadata`).
async fn usual_audience(
    workspace: &Workspace,
    http: &WorkspaceClient<'_>,
    endpoint: &TokenEndpoint,
    needs: &Needs<'_>,
) -> Result<String, Failure> {
    let metadata = HostMetadata::ask(http, needs.limit).await?.unwrap_or_default();
    let by_account = || metadata.account_of_many(workspace.account_id.as_deref());
    Ok(metadata.first_audience().or_else(by_account).unwrap_or_else(|| endpoint.address()))
}

/// What the source of a token is called, and what helps where it brings none that lives.
fn named(federation: &Federation) -> (String, &'static str) {
    match &federation.subject {
        SubjectSource::File(path) => (
            path.display().to_string(),
            "whoever writes the file must write a new one, which is then used at once: look at that program",
        ),
        SubjectSource::Variable(name) => (
            format!("${name}"),
            "start this program anew with a fresh one: a variable cannot change while it runs, but a file can (file-oidc)",
        ),
        SubjectSource::Github => ("GitHub's answer".to_owned(), "check the clock there"),
        SubjectSource::AzureDevops => ("Azure DevOps' answer".to_owned(), "check the clock there"),
    }
}

async fn refuse_expired(
    subject: &Subject,
    federation: &Federation,
    http: &WorkspaceClient<'_>,
    needs: &Needs<'_>,
) -> Result<(), Failure> {
    let (what, hint) = named(federation);
    let Err(failure) = subject.check_at(needs.now, &what, hint) else { return Ok(()) };
    // This machine's clock may be wrong: the workspace's counts.
    match http.ask_time(needs.limit).await {
        Some(anchor) => subject.check_at(anchor.server, &what, hint),
        None => Err(failure),
    }
}

async fn exchange(
    workspace: &Workspace,
    federation: &Federation,
    http: &WorkspaceClient<'_>,
    endpoint: &TokenEndpoint,
    subject: &Subject,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    let client_id = federation.client_id.as_deref();
    let mut form: Form<'_> = vec![
        ("grant_type", GRANT),
        ("subject_token", subject.token.expose_secret()),
        ("subject_token_type", JWT),
        ("scope", workspace.scopes.as_deref().unwrap_or(ALL_APIS)),
    ];
    form.extend(client_id.map(|id| ("client_id", id)));
    form.extend(workspace.group_id.as_deref().map(|group| ("assume_group", group)));
    let to = endpoint.origin();
    let answer = http.exchange_with(&to, with_form(endpoint.request(http)?, &form), needs.limit).await?;
    let method = federation.subject.method();
    let policy = subject.needs_of_policy(client_id);
    let asked = Asked { to: &to, method, hint: &policy, is_workspace: true };
    let token = read_token(&answer, &asked).map_err(|failure| {
        if !failure.is_transient() {
            needs.endpoints.forget(http);
        }
        let failure = endpoint.explained(&answer, failure);
        if failure.is_transient() { failure } else { explained(failure, policy.clone()) }
    })?;
    Ok(SignedIn { anchor: answer.anchor(), ..SignedIn::of(token) })
}

/// A refusal of a token nearly always means that no policy fits it, whatever the word for it.
fn explained(failure: Failure, policy: String) -> Failure {
    let is_about_it = failure.message.contains("refused the sign-in");
    if is_about_it && failure.hint.as_ref() != Some(&policy) {
        return Failure { code: Code::SignInRefused, ..failure }.hint(policy);
    }
    failure
}

/// What is known of a token that is at hand, for who checks the settings: what the policy must have, and when it ends.
///
/// # Errors
/// It cannot be used, or has expired.
pub(crate) fn outlook(
    federation: &Federation,
    environment: &Environment,
    now: Timestamp,
) -> Option<Result<String, Failure>> {
    let (what, hint) = named(federation);
    Some(at_hand(federation, environment)?.and_then(|subject| {
        subject.check_at(now, &what, hint)?;
        let policy = subject.needs_of_policy(federation.client_id.as_deref());
        Ok(format!("{policy}, as the token in {what} does"))
    }))
}
