//! Sign-in as a person who has logged in with the browser: `dbx-rotator login` keeps a refresh token, and this brings access tokens for
//! it (RFC 6749, sections 4.1 and 6; the vendor's SDKs call it `external-browser`).
//!
//! A refresh token may be of single use: the account's policy decides. So a login's refreshes are made one after the other, whatever
//! process they are in; the token that is used is the one that is read under the lock; its successor is durable before the access token
//! is handed out; and a refresh that has begun comes to its end although nobody waits for it any more.

mod consent;
mod logins;
mod loopback;
mod refresh;
mod vault;

use std::time::Duration;

use secrecy::SecretString;

pub(crate) use consent::{Consent, Redirected};
pub(crate) use logins::{Login, Place};
pub(crate) use loopback::{Loopback, PORTS, Page, Visitor};

use super::endpoint::KnownEndpoints;
use super::exchange::{Asked, read_token};
use super::{Needs, SignedIn};
use crate::failure::{Code, Failure};
use crate::http::{Answer, WorkspaceClient};
use crate::model::token::Token;
use crate::model::{AuthMethod, Workspace};
use crate::os::child::keep_going;
use crate::os::dirs::Environment;
use refresh::Refresh;
use vault::Tokens;

/// The vendor's own public client, which every account knows (databricks-sdk-go, u2m/persistent_auth.go, `appClientID`).
const CLIENT_ID: &str = "databricks-cli";

/// What helps where the login is refused.
const HINT: &str = "log in again: dbx-rotator login";

/// The least and the longest time for a refresh, whatever its caller has: it must not be broken off.
const SHORTEST: Duration = Duration::from_secs(15);
const LONGEST: Duration = Duration::from_secs(30);

/// Signs in with the login that is kept for this workspace.
///
/// # Errors
/// Permanent: nobody has logged in, or the login has ended. Transient: the network, the keyring.
pub(crate) async fn sign_in(
    workspace: &Workspace,
    environment: &Environment,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    let login = Login::of(workspace, environment);
    let tokens = login.tokens().await?;
    let warnings: Vec<String> = login.warning().into_iter().collect();
    let signed_in = |token: Token, anchor| SignedIn { anchor, warnings: warnings.clone(), ..SignedIn::of(token) };
    let present = tokens.access_token();
    if let Some(token) = present.as_ref().filter(|token| !(needs.is_due)(token.issued_at, token.expires_at)) {
        return Ok(signed_in(token.clone(), None));
    }
    let refresh = Refresh {
        login,
        workspace: workspace.clone(),
        endpoints: needs.endpoints.clone(),
        limit: needs.limit.clamp(SHORTEST, LONGEST),
        rejected: present.map(|token| token.secret),
        now: needs.now,
    };
    let running = keep_going(refresh.run());
    match tokio::time::timeout(needs.limit, running).await {
        Ok(Ok(refreshed)) => refreshed.map(|(token, anchor)| signed_in(token, anchor)),
        Ok(Err(_)) => Err(Failure::transient(Code::Unavailable, "the refresh of the login ended unexpectedly")
            .hint("report it, with what the log says before this")),
        Err(_) => {
            let message = format!("the login is not refreshed within {} s", needs.limit.as_secs_f32().ceil());
            Err(Failure::transient(Code::Unavailable, message)
                .hint("what it brings is used when it is asked for again"))
        }
    }
}

/// What a token endpoint answered to a person's code or refresh token.
///
/// # Errors
/// As [`read_token`], with what a person can do.
fn read_tokens(answer: &Answer, to: &str) -> Result<(Token, Tokens), Failure> {
    let asked = Asked { to, method: AuthMethod::ExternalBrowser, hint: HINT, is_workspace: true };
    let token = read_token(answer, &asked).map_err(|failure| explained(failure, to))?;
    let tokens = Tokens::of(answer, &token);
    Ok((token, tokens))
}

fn explained(failure: Failure, to: &str) -> Failure {
    match failure.code {
        Code::SignInRefused if !failure.is_transient() => failure.hint(format!(
            "check in a browser that you can open {to}, and ask an administrator whether the account lets people sign in with the \
             Databricks CLI"
        )),
        _ => failure,
    }
}

/// Exchanges the code of a consent for tokens, and keeps them. Returns whose they are.
///
/// # Errors
/// The workspace refuses the code, or gives no refresh token; or they cannot be kept.
pub(crate) async fn finish(
    login: &Login,
    consent: &Consent,
    http: &WorkspaceClient<'_>,
    code: &SecretString,
    place: Place,
) -> Result<Option<String>, Failure> {
    let (token, tokens) = consent.exchange(http, code, LONGEST).await?;
    let user = token.subject().map(str::to_owned);
    if !tokens.can_be_refreshed() {
        let message = format!("{} gives no refresh token, so that this login would end within the hour", http.origin());
        return Err(Failure::permanent(Code::SignInRefused, message)
            .hint("ask an administrator of the account to allow the scope offline_access for the Databricks CLI"));
    }
    login.keep(&tokens, user.as_deref(), place).await?;
    Ok(user)
}

/// Begins a consent: asks where people sign in, and makes the address to be opened.
///
/// # Errors
/// The workspace is out of reach, or names a place that nobody should sign in at.
pub(crate) async fn begin(
    workspace: &Workspace,
    http: &WorkspaceClient<'_>,
    loopback: &Loopback,
) -> Result<Consent, Failure> {
    let endpoints = KnownEndpoints::default();
    let endpoint = endpoints.find(http, workspace.account_id.as_deref(), LONGEST).await?;
    Consent::new(endpoint, loopback.redirect(), workspace.group_id.as_deref())
}
