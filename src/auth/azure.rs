//! What the ways to sign in at Azure have in common: for whom a token is, and which headers a workspace wants with it.

use secrecy::SecretString;

use super::SignedIn;
use crate::failure::{Code, Failure};
use crate::model::Workspace;
use crate::model::token::Token;

/// The application that all workspaces at Azure are to Microsoft Entra ID (databricks-sdk-go, common/environment).
pub(super) const DATABRICKS: &str = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d";

const RESOURCE_ID: &str = "X-Databricks-Azure-Workspace-Resource-Id";
const MANAGEMENT: &str = "X-Databricks-Azure-SP-Management-Token";

/// Where the cloud of the workspace signs in, and what its management is called.
///
/// # Errors
/// Permanent: it is in no cloud of Azure's.
pub(super) fn cloud_of(workspace: &Workspace) -> Result<(&'static str, &'static str), Failure> {
    workspace.cloud.at_azure().ok_or_else(|| {
        let message = format!("{} is not at Azure", workspace.host.origin());
        Failure::permanent(Code::Configuration, message)
            .hint("set auth to a method of the cloud that the workspace is in")
    })
}

/// The sign-in with a token for the workspace; where it is named by its resource id, with the one for Azure's management, by which an
/// identity is let in that the workspace does not know yet.
pub(super) fn signed_in(workspace: &Workspace, token: Token, management: Option<Token>) -> SignedIn {
    let resource = workspace.azure_resource_id.as_ref().map(|id| (RESOURCE_ID, SecretString::from(id.as_str())));
    let management = management.map(|token| (MANAGEMENT, token.secret));
    let headers = resource.into_iter().chain(management).collect();
    SignedIn { headers, ..SignedIn::of(token.of_another_issuer()) }
}
