//! The token of an Azure DevOps pipeline, which has one audience whoever asks (databricks-sdk-go, oidc/azuredevops.go).

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use secrecy::SecretString;
use serde::Deserialize;

use super::elsewhere::{Elsewhere, bearer};
use super::subject::{self, Subject};
use crate::failure::{Code, Failure};
use crate::foreign::secrets;
use crate::model::Workspace;
use crate::os::dirs::Environment;

const COLLECTION: &str = "SYSTEM_TEAMFOUNDATIONCOLLECTIONURI";

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "oidcToken")]
    token: Option<SecretString>,
}

/// Asks for one.
///
/// # Errors
/// Permanent: this is no pipeline, or it hands on no token of its own. Transient: Azure DevOps does not answer.
pub(super) async fn request(
    workspace: &Workspace,
    environment: &Environment,
    limit: Duration,
) -> Result<Subject, Failure> {
    let fail = |name: &str| {
        let message = format!("azure-devops-oidc signs in within a pipeline of Azure DevOps, and ${name} is not set");
        Failure::permanent(Code::Configuration, message)
            .hint("give the step `env: SYSTEM_ACCESSTOKEN: $(System.AccessToken)`")
    };
    let get = |name: &'static str| environment.get(name).ok_or_else(|| fail(name));
    let token = environment.secret("SYSTEM_ACCESSTOKEN").ok_or_else(|| fail("SYSTEM_ACCESSTOKEN"))?;
    secrets::keep(token);
    let mut at = Elsewhere::at(get(COLLECTION)?, COLLECTION)?;
    let (project, hub) = (get("SYSTEM_TEAMPROJECTID")?, get("SYSTEM_HOSTTYPE")?);
    let (plan, job) = (get("SYSTEM_PLANID")?, get("SYSTEM_JOBID")?);
    let parts = [project, "_apis", "distributedtask", "hubs", hub, "plans", plan, "jobs", job, "oidctoken"];
    if let Ok(mut path) = at.url.path_segments_mut() {
        path.pop_if_empty().extend(parts);
    }
    at.url.set_query(Some("api-version=7.2-preview.1"));
    let http = at.client(workspace);
    let request = http.request(Method::POST, at.url.clone())?.headers(bearer(token));
    let request = request.header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, "0");
    let answer: Answer =
        at.json(&http, request, limit, "give the step `env: SYSTEM_ACCESSTOKEN: $(System.AccessToken)`").await?;
    subject::of_answer(answer.token.as_ref(), "Azure DevOps' answer")
}
