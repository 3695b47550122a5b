//! A service principal of Microsoft Entra ID, with its secret (databricks-sdk-go, config/auth_azure_client_secret.go).

use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};

use super::azure::{self, DATABRICKS};
use super::elsewhere::Elsewhere;
use super::exchange::{Asked, Form, read_token, with_form};
use super::{Needs, SignedIn};
use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::http::WorkspaceClient;
use crate::model::token::Token;
use crate::model::{AZURE_CLIENT_SECRET, AuthMethod, Client, Workspace};

/// Where a workspace sends people who sign in, which names its tenant.
const SIGN_IN: &str = "/aad/auth";

const HINT: &str = "check azure_client_id and azure_tenant_id, and whether the secret is right and not expired: App registrations, \
    Certificates & secrets";

/// Signs in.
///
/// # Errors
/// Permanent: the client or its secret is refused, or no tenant is known. Transient: somebody does not answer.
pub(super) async fn sign_in(
    workspace: &Workspace,
    (client, tenant): (&Client, Option<&str>),
    http: &WorkspaceClient<'_>,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    let (secret, warning) = client.secret.read_as(AZURE_CLIENT_SECRET)?;
    let (login, management) = azure::cloud_of(workspace)?;
    let tenant = match tenant {
        Some(tenant) => tenant.to_owned(),
        None => tenant_of(http, needs).await?,
    };
    if !is_tenant(&tenant) {
        let message = format!("`{}` is no tenant of Microsoft Entra ID", quoted(&tenant));
        return Err(
            Failure::permanent(Code::Configuration, message).hint("write the id of the directory, or its domain")
        );
    }
    let at = Elsewhere::at(&format!("{login}/{tenant}/oauth2/token"), "azure_environment")?;
    let there = at.client(workspace);
    let token = token_for(&at, &there, client, &secret, DATABRICKS, needs).await?;
    let management = match &workspace.azure_resource_id {
        Some(_) => Some(token_for(&at, &there, client, &secret, management, needs).await?),
        None => None,
    };
    Ok(SignedIn { warnings: warning.into_iter().collect(), ..azure::signed_in(workspace, token, management) })
}

async fn token_for(
    at: &Elsewhere,
    http: &WorkspaceClient<'_>,
    client: &Client,
    secret: &SecretString,
    resource: &str,
    needs: &Needs<'_>,
) -> Result<Token, Failure> {
    let form: Form<'_> = vec![
        ("grant_type", "client_credentials"),
        ("client_id", &client.id),
        ("client_secret", secret.expose_secret()),
        ("resource", resource),
    ];
    let request = http.request(Method::POST, at.url.clone())?;
    let answer = http.exchange(with_form(request, &form), needs.limit).await?;
    let asked = Asked { to: at.origin(), method: AuthMethod::AzureClientSecret, hint: HINT, is_workspace: false };
    read_token(&answer, &asked)
}

/// The tenant of the workspace, as the address shows to which it sends people. Nothing goes to that address: only the tenant is taken.
async fn tenant_of(http: &WorkspaceClient<'_>, needs: &Needs<'_>) -> Result<String, Failure> {
    let answer = http.exchange(http.request(Method::GET, http.url(SIGN_IN)?)?, needs.limit).await?;
    if let Some(trouble) = answer.trouble(http.origin()) {
        return Err(trouble);
    }
    let place = answer.location().and_then(|place| url::Url::parse(&place).ok());
    let tenant = place.as_ref().and_then(|place| place.path_segments()?.next().map(str::to_owned));
    tenant.filter(|tenant| is_tenant(tenant)).ok_or_else(|| {
        let message = format!("{} does not say to which tenant of Microsoft Entra ID it belongs", http.origin());
        Failure::permanent(Code::Configuration, message).hint("set azure_tenant_id or ARM_TENANT_ID")
    })
}

/// The id of a tenant, or its domain: what can be a part of a path as it stands.
fn is_tenant(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    (1..=253).contains(&text.len()) && text.bytes().all(is_part) && !text.starts_with('.')
}
