//! A service of the vendor's on this machine that hands out tokens, as its extensions for editors start it
//! (databricks-sdk-go, config/auth_metadata_service.go).

use std::time::Duration;

use reqwest::Method;
use secrecy::ExposeSecret;

use super::elsewhere::Elsewhere;
use super::exchange::{Asked, read_token};
use super::{Needs, SignedIn};
use crate::failure::Failure;
use crate::model::{AuthMethod, METADATA_SERVICE, SecretSource, Workspace};

/// As the vendor's SDKs wait for it.
const LIMIT: Duration = Duration::from_secs(10);

/// Signs in.
///
/// # Errors
/// Permanent: it is not on this machine, or refuses. Transient: it does not answer.
pub(super) async fn sign_in(
    workspace: &Workspace,
    address: &SecretSource,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    let text = address.text().map_or("", ExposeSecret::expose_secret);
    let at = Elsewhere::on_this_machine(text, "metadata_service_url")?;
    let http = at.client(workspace);
    let request = http
        .request(Method::GET, at.url.clone())?
        .header("X-Databricks-Metadata-Version", "1")
        .header("X-Databricks-Host", workspace.host.origin());
    let answer = http.exchange(request, needs.limit.min(LIMIT)).await?;
    let hint = "look at the program that runs the metadata service: it gives tokens for one workspace, and this may be another";
    let asked = Asked { to: at.origin(), method: AuthMethod::MetadataService, hint, is_workspace: false };
    let warnings = address.loose_mode(METADATA_SERVICE).into_iter().collect();
    Ok(SignedIn { warnings, ..SignedIn::of(read_token(&answer, &asked)?) })
}
