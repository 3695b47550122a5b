//! Sign-in with Azure's command line tool, after a person has logged in: `az account get-access-token`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::azure::{self, DATABRICKS};
use super::runs::Login;
use super::{Needs, SignedIn};
use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::model::token::{Token, is_publishable};
use crate::model::{AuthMethod, Workspace};
use crate::os::child::{self, Ran, candidates, is_executable};
use crate::os::dirs::Environment;
use crate::os::zone;
use crate::words;

const HINT: &str = "run `az login`";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    access_token: SecretString,
    /// In the time of this machine's zone (azure-cli, `get-access-token`).
    expires_on: Option<String>,
    /// Seconds since 1970, of newer versions.
    #[serde(rename = "expires_on")]
    since_1970: Option<Value>,
}

/// Where it is installed.
pub(super) fn program(environment: &Environment) -> Option<PathBuf> {
    candidates(environment, Path::new("az")).into_iter().find(|path| is_executable(path))
}

/// Signs in.
///
/// # Errors
/// Permanent: it is not installed, or nobody has logged in. Transient: it fails or hangs.
pub(super) async fn sign_in(
    workspace: &Workspace,
    tenant: Option<&str>,
    environment: &Environment,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    let (_, management) = azure::cloud_of(workspace)?;
    let program = program(environment).ok_or_else(|| {
        Failure::permanent(Code::Configuration, "Azure's CLI (az) is not installed, or not on PATH")
            .hint("install it and run `az login`, or sign in as a service principal")
    })?;
    let tool = Tool { program, workspace, environment, limit: needs.limit, now: needs.now };
    let token = tool.token(DATABRICKS, tenant).await?;
    // A person may have access to the workspace and none to its management.
    let management = match &workspace.azure_resource_id {
        Some(_) => tool.token(management, tenant).await.ok(),
        None => None,
    };
    Ok(azure::signed_in(workspace, token, management))
}

struct Tool<'a> {
    program: PathBuf,
    workspace: &'a Workspace,
    environment: &'a Environment,
    limit: Duration,
    now: Timestamp,
}

impl Tool<'_> {
    /// A token for this, by the tenant or the subscription first, as far as either is known: the login may be for another one, or know
    /// none (databricks-sdk-go, config/auth_azure_cli.go).
    async fn token(&self, resource: &str, tenant: Option<&str>) -> Result<Token, Failure> {
        let narrower = tenant.map(|tenant| ["--tenant", tenant]);
        let narrower = narrower.or_else(|| Some(["--subscription", self.subscription()?]));
        if let Some(narrower) = narrower
            && let Ok(token) = self.run(resource, &narrower).await
        {
            return Ok(token);
        }
        self.run(resource, &[]).await
    }

    fn subscription(&self) -> Option<&str> {
        let id = self.workspace.azure_resource_id.as_deref()?;
        id.split('/').nth(2).filter(|part| !part.is_empty() && !part.starts_with('-'))
    }

    async fn run(&self, resource: &str, more: &[&str]) -> Result<Token, Failure> {
        let fixed = ["account", "get-access-token", "--output", "json", "--resource", resource];
        let arguments = fixed.iter().chain(more).map(OsString::from).collect();
        let environment = child::inherited(self.environment, &[]);
        let login = Login { program: self.program.clone(), arguments, environment };
        let ended = login.run(false, self.limit).await.map_err(|waited| {
            let message =
                format!("Azure's CLI has not answered within {} s; it may still finish", waited.as_secs_f32().ceil());
            Failure::transient(Code::Unavailable, message).hint("what it brings is used when it is asked again")
        })?;
        match &ended.ran {
            Ok(Some(ran)) if ran.status.success() => self.read(&ran.stdout),
            Ok(Some(ran)) => Err(failed(ran)),
            Ok(None) => {
                let message = format!("Azure's CLI did not finish within {} s and was ended", ended.limit.as_secs());
                Err(Failure::transient(Code::Unavailable, message).hint("run `az account get-access-token` by hand"))
            }
            Err(error) => {
                let message = format!("cannot run {}: {}", self.program.display(), words::of_io(error));
                Err(Failure::transient(Code::Unavailable, message).hint("check how Azure's CLI is installed"))
            }
        }
    }

    fn read(&self, stdout: &[u8]) -> Result<Token, Failure> {
        let nonsense = |what: &str| {
            Failure::transient(Code::Unavailable, format!("Azure's CLI printed {what}"))
                .hint("run `az account get-access-token` by hand")
        };
        let answer: Answer = serde_json::from_slice(stdout).map_err(|_| nonsense("something that is no token"))?;
        if !is_publishable(answer.access_token.expose_secret()) {
            return Err(nonsense("a token with characters that no token has"));
        }
        let told = expiry(&answer);
        let token = Token::new(answer.access_token, told, self.now, AuthMethod::AzureCli)
            .ok_or_else(|| nonsense("a token that does not say when it expires"))?;
        if token.expires_at <= self.now {
            return Err(nonsense("a token that has already expired").hint("run `az login`; check this machine's clock"));
        }
        Ok(token)
    }
}

fn expiry(answer: &Answer) -> Option<Timestamp> {
    let seconds = answer.since_1970.as_ref().and_then(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok()));
    let local = || {
        let time: DateTime = answer.expires_on.as_deref()?.trim().replacen(' ', "T", 1).parse().ok()?;
        zone::local().to_timestamp(time).ok()
    };
    seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).or_else(local)
}

fn failed(ran: &Ran) -> Failure {
    let stderr = String::from_utf8_lossy(&ran.stderr);
    let said = quoted(stderr.trim().trim_start_matches("ERROR: "));
    let said = if said.is_empty() { format!("it ended with {}", words::of_end(ran.status)) } else { said };
    let needs_a_person = ["az login", "No subscription found", "AADSTS"].iter().any(|text| stderr.contains(text));
    if needs_a_person {
        return Failure::permanent(Code::LoginNeeded, format!("Azure's CLI has no live login: {said}")).hint(HINT);
    }
    Failure::transient(Code::Unavailable, format!("Azure's CLI failed: {said}")).hint(HINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_is_read_in_both_forms() {
        let read = |text: &str| expiry(&serde_json::from_str(text).unwrap()).map(|at| at.as_second());
        assert_eq!(
            read(r#"{"accessToken":"x","expires_on":1700000000,"expiresOn":"1999-01-01 00:00:00"}"#),
            Some(1_700_000_000)
        );
        assert_eq!(read(r#"{"accessToken":"x","expires_on":"1700000000"}"#), Some(1_700_000_000));
        assert!(read(r#"{"accessToken":"x","expiresOn":"2026-01-01 12:00:00.123456"}"#).is_some());
        assert_eq!(read(r#"{"accessToken":"x","expiresOn":"soon"}"#), None);
    }
}
