//! Sign-in as a service principal: OAuth 2.0 client credentials (RFC 6749, section 4.4) as Databricks accepts them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use super::exchange::{ALL_APIS, Asked, Form, read_token, with_form};
use super::{Needs, SignedIn};
use crate::failure::Failure;
use crate::http::WorkspaceClient;
use crate::model::{AuthMethod, Client, Workspace};

const HINT: &str = "check the client id, and whether its secret is right and not expired: make a new one under the service \
    principal's Secrets";

/// Signs in, and returns a token that is live by the workspace's clock.
///
/// # Errors
/// Permanent where the client, its secret or a setting must be changed, else transient.
pub(crate) async fn sign_in(
    workspace: &Workspace,
    http: &WorkspaceClient<'_>,
    client: &Client,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    let (secret, warning) = client.secret.read(&client.id)?;
    let endpoint = needs.endpoints.find(http, workspace.account_id.as_deref(), needs.limit).await?;
    let scopes = workspace.scopes.as_deref().unwrap_or(ALL_APIS);
    let mut form: Form<'_> = vec![("grant_type", "client_credentials"), ("scope", scopes)];
    form.extend(workspace.group_id.as_deref().map(|group| ("assume_group", group)));
    let request = endpoint.request(http)?.header(AUTHORIZATION, basic(&client.id, &secret));
    let to = endpoint.origin();
    let answer = http.exchange_with(&to, with_form(request, &form), needs.limit).await?;
    let asked = Asked { to: &to, method: AuthMethod::OauthM2m, hint: HINT, is_workspace: true };
    let token = read_token(&answer, &asked).map_err(|failure| {
        if !failure.is_transient() {
            needs.endpoints.forget(http);
        }
        endpoint.explained(&answer, failure)
    })?;
    Ok(SignedIn { anchor: answer.anchor(), warnings: warning.into_iter().collect(), ..SignedIn::of(token) })
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
