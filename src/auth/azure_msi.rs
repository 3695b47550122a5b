//! The identity of a virtual machine or an app at Azure, which a service beside it knows: that of the machine (IMDS), or the one
//! that App Service, Functions and Container Apps name in the environment.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::azure::{self, DATABRICKS};
use super::elsewhere::Elsewhere;
use super::exchange::{Asked, read_token};
use super::{Needs, SignedIn};
use crate::failure::{Code, Failure};
use crate::foreign::secrets;
use crate::model::token::Token;
use crate::model::{AuthMethod, Workspace};
use crate::os::dirs::Environment;

/// The service of a virtual machine (Microsoft, "Azure Instance Metadata Service").
const IMDS: &str = "http://169.254.169.254";

/// Where pods that stand between a program and that service are, as Azure's own libraries read it.
const POD: &str = "AZURE_POD_IDENTITY_AUTHORITY_HOST";

/// As the vendor's SDKs wait for it.
const LIMIT: Duration = Duration::from_secs(10);

const HINT: &str = "give the machine or app a managed identity, and the identity access to the workspace; with several, set \
    azure_client_id to that of one";

/// Signs in.
///
/// # Errors
/// Permanent: there is no such identity. Transient: the service does not answer.
pub(super) async fn sign_in(
    workspace: &Workspace,
    client_id: Option<&str>,
    environment: &Environment,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    let (_, management) = azure::cloud_of(workspace)?;
    let service = Service::of(environment)?;
    service.is_there().await?;
    let token = service.token(workspace, client_id, DATABRICKS, needs).await?;
    let management = match &workspace.azure_resource_id {
        Some(_) => Some(service.token(workspace, client_id, management, needs).await?),
        None => None,
    };
    Ok(azure::signed_in(workspace, token, management))
}

struct Service {
    at: Elsewhere,
    version: &'static str,
    headers: HeaderMap,
    /// What to check where it does not answer.
    hint: &'static str,
}

impl Service {
    fn of(environment: &Environment) -> Result<Self, Failure> {
        let header =
            |name: &'static str, value: HeaderValue| HeaderMap::from_iter([(HeaderName::from_static(name), value)]);
        if let (Some(address), Some(secret)) =
            (environment.get("IDENTITY_ENDPOINT"), environment.secret("IDENTITY_HEADER"))
        {
            use secrecy::ExposeSecret;
            secrets::keep(secret);
            let mut value = HeaderValue::from_str(secret.expose_secret()).map_err(|_| {
                Failure::permanent(Code::Configuration, "$IDENTITY_HEADER is no header")
                    .hint("leave it as App Service sets it")
            })?;
            value.set_sensitive(true);
            let (at, headers) = (Elsewhere::near(address, "IDENTITY_ENDPOINT")?, header("x-identity-header", value));
            let hint = "$IDENTITY_ENDPOINT is set, as App Service does: run it there, or unset it";
            return Ok(Service { at, version: "2019-08-01", headers, hint });
        }
        let named = environment.get(POD).map(|address| (address.trim_end_matches('/'), POD));
        let (address, by) = named.unwrap_or((IMDS, "azure-msi"));
        let at = Elsewhere::near(&format!("{address}/metadata/identity/oauth2/token"), by)?;
        let headers = header("metadata", HeaderValue::from_static("true"));
        let hint =
            "azure-msi signs in on virtual machines and apps at Azure: run it there, or use another method elsewhere";
        Ok(Service { at, version: "2018-02-01", headers, hint })
    }

    /// Knocks first, since there may be no such service.
    async fn is_there(&self) -> Result<(), Failure> {
        if self.at.answers().await {
            return Ok(());
        }
        let message = format!("no service for managed identities answers at {}", self.at.origin());
        Err(Failure::transient(Code::Unavailable, message).hint(self.hint))
    }

    async fn token(
        &self,
        workspace: &Workspace,
        client_id: Option<&str>,
        resource: &str,
        needs: &Needs<'_>,
    ) -> Result<Token, Failure> {
        let mut url = self.at.url.clone();
        url.query_pairs_mut().append_pair("api-version", self.version).append_pair("resource", resource);
        if let Some(id) = client_id {
            url.query_pairs_mut().append_pair("client_id", id);
        }
        let http = self.at.client(workspace);
        let request = http.request(Method::GET, url)?.headers(self.headers.clone());
        let answer = http.exchange(request, needs.limit.min(LIMIT)).await?;
        let asked = Asked { to: self.at.origin(), method: AuthMethod::AzureMsi, hint: HINT, is_workspace: false };
        read_token(&answer, &asked)
    }
}
