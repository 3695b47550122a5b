//! What Google's own tools would use here ("application default credentials"): the key of a service account, a person's login, an account
//! that one of these may act for, or the account of the machine. It asks Google for a token that names another account, the configured
//! one, to the workspace (Google, "AIP-4110" and "Method: serviceAccounts.generateIdToken"; databricks-sdk-py, `google_id`).
//!
//! Invariant: what such a file holds goes to Google's two places that are named here, and to no other that the file names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::elsewhere::{Elsewhere, bearer};
use super::exchange::{Asked, Form, read_token};
use super::google_credentials::{Asking, KeyFile, ask_google, by_key};
use super::{Needs, SignedIn};
use crate::config::keep_if_no_path;
use crate::failure::{Code, Failure};
use crate::foreign::{quoted, secrets};
use crate::model::token::Token;
use crate::model::{AuthMethod, Workspace, is_google_account};
use crate::os::dirs::{Environment, GOOGLE_CREDENTIALS};
use crate::os::files::read_text_up_to;
use crate::words;

/// Where tokens for other accounts are made.
const ACCOUNTS: &str = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/";

/// What may be done with the token that asks for another one.
const SCOPE: &str = "https://www.googleapis.com/auth/iam";

/// The service of a virtual machine, a pod or a job at Google ("About VM metadata").
const MACHINE: &str = "http://169.254.169.254";

/// Names another place for it, as Google's own libraries read it.
const MACHINE_VARIABLE: &str = "GCE_METADATA_HOST";

/// More than any such file has.
const LARGEST: u64 = 64 * 1024;

/// How long a token lives that somebody gets for another account: the longest that Google gives without more.
const LIFE: Duration = Duration::from_secs(3_600);

const HINT: &str = "let it have the role \"Service Account OpenID Connect Identity Token Creator\" on the account that \
    google_service_account names";

/// A file of application default credentials: the fields of the kinds that are known.
#[derive(Deserialize)]
struct Known {
    #[serde(rename = "type")]
    kind: Option<String>,
    client_id: Option<String>,
    client_secret: Option<SecretString>,
    refresh_token: Option<SecretString>,
    source_credentials: Option<Box<Known>>,
    service_account_impersonation_url: Option<String>,
    delegates: Option<Vec<String>>,
    universe_domain: Option<String>,
    token_uri: Option<String>,
    client_email: Option<String>,
    private_key: Option<SecretString>,
    private_key_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccessToken {
    access_token: SecretString,
}

#[derive(Deserialize)]
struct IdToken {
    token: SecretString,
}

/// Signs in.
///
/// # Errors
/// Permanent: there is nothing of Google's here, or it may not act for the account. Transient: Google does not answer.
pub(super) async fn sign_in(
    workspace: &Workspace,
    account: &str,
    environment: &Environment,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    let token = match file(environment)? {
        Some(path) => of_file(workspace, &path, needs).await?,
        None => of_machine(workspace, environment, needs).await?,
    };
    let asked = json!({"audience": workspace.host.origin(), "includeEmail": true, "delegates": []});
    let IdToken { token } = of_account(workspace, account, "generateIdToken", &token, &asked, needs).await?;
    let token = Token::new(token, None, needs.now, AuthMethod::GoogleId).ok_or_else(|| {
        Failure::transient(Code::Unavailable, "Google answered with a token that does not say when it expires")
    })?;
    Ok(SignedIn::of(token.of_another_issuer()))
}

/// Where the credentials are: the file that a variable names, else that of gcloud, if it is there.
fn file(environment: &Environment) -> Result<Option<PathBuf>, Failure> {
    match environment.google_credentials() {
        Some(file) if file.exists() => Ok(Some(file)),
        Some(file) if environment.get_os(GOOGLE_CREDENTIALS).is_some() => {
            keep_if_no_path(&file);
            Err(unusable(&file, "there is no such file"))
        }
        _ => Ok(None),
    }
}

fn unusable(path: &Path, why: &str) -> Failure {
    let message = format!("cannot use Google's credentials in {}: {why}", path.display());
    Failure::permanent(Code::Configuration, message)
        .hint("run `gcloud auth application-default login`, or let $GOOGLE_APPLICATION_CREDENTIALS name a file with usable ones")
}

/// The access token that a file brings.
async fn of_file(workspace: &Workspace, path: &Path, needs: &Needs<'_>) -> Result<SecretString, Failure> {
    let text = read_text_up_to(path, LARGEST).map_err(|error| unusable(path, &words::of_io(&error)))?;
    let text = Zeroizing::new(text);
    let known: Known = serde_json::from_str(&text).map_err(|_| unusable(path, "it is not the JSON of credentials"))?;
    let fault = |why: &str| unusable(path, why);
    if known.kind.as_deref() != Some("impersonated_service_account") {
        return Ok(of_known(workspace, known, &fault, needs).await?.secret);
    }
    let (account, delegates) = acts_for(&known).map_err(|why| fault(&why))?;
    let source = known.source_credentials.ok_or_else(|| fault("it lacks source_credentials"))?;
    let token = of_known(workspace, *source, &fault, needs).await?.secret;
    let asked = json!({"delegates": delegates, "scope": [SCOPE], "lifetime": format!("{}s", LIFE.as_secs())});
    let AccessToken { access_token } =
        of_account(workspace, &account, "generateAccessToken", &token, &asked, needs).await?;
    secrets::keep_until(&access_token, Timestamp::now() + LIFE);
    Ok(access_token)
}

/// The account that another one may act for, and by whom.
fn acts_for(known: &Known) -> Result<(String, Vec<String>), String> {
    let url = known.service_account_impersonation_url.as_deref().unwrap_or_default();
    let account = url.strip_prefix(ACCOUNTS).and_then(|rest| rest.strip_suffix(":generateAccessToken"));
    match account.filter(|account| is_google_account(account)) {
        Some(account) => Ok((account.to_owned(), known.delegates.clone().unwrap_or_default())),
        None => Err(format!("service_account_impersonation_url is no place below {ACCOUNTS}")),
    }
}

/// What the key of a service account or the login of a person brings.
async fn of_known(
    workspace: &Workspace,
    known: Known,
    fault: &impl Fn(&str) -> Failure,
    needs: &Needs<'_>,
) -> Result<Token, Failure> {
    if known.universe_domain.as_deref().is_some_and(|domain| domain != "googleapis.com") {
        return Err(fault("it is for another cloud than googleapis.com"));
    }
    match known.kind.as_deref() {
        Some("service_account") => {
            let Known { client_email, private_key, private_key_id, token_uri, .. } = known;
            let key = KeyFile { client_email, private_key, private_key_id, token_uri };
            by_key(workspace, &key, Asking::Access(SCOPE), AuthMethod::GoogleId, needs).await
        }
        Some("authorized_user") => {
            let (Some(id), Some(secret), Some(refresh)) = (known.client_id, known.client_secret, known.refresh_token)
            else {
                return Err(fault("it lacks client_id, client_secret or refresh_token"));
            };
            [&secret, &refresh].into_iter().for_each(secrets::keep);
            let form: Form<'_> = vec![
                ("grant_type", "refresh_token"),
                ("client_id", &id),
                ("client_secret", secret.expose_secret()),
                ("refresh_token", refresh.expose_secret()),
            ];
            let hint = "log in again: `gcloud auth application-default login`";
            ask_google(workspace, &form, AuthMethod::GoogleId, hint, needs).await
        }
        Some("external_account" | "external_account_authorized_user") => {
            let failure =
                fault("its type is external_account, which names the places that secrets are sent to by itself");
            Err(failure.hint("exchange that issuer's token at the workspace instead: auth = \"file-oidc\""))
        }
        Some(other) => Err(fault(&format!("its type is {}, which is not known here", quoted(other)))),
        None => Err(fault("it has no type")),
    }
}

/// The access token of the machine that this runs on.
async fn of_machine(
    workspace: &Workspace,
    environment: &Environment,
    needs: &Needs<'_>,
) -> Result<SecretString, Failure> {
    let named = environment.get(MACHINE_VARIABLE).map(|host| format!("http://{host}"));
    let by = if named.is_some() { MACHINE_VARIABLE } else { "google-id" };
    let address = named.as_deref().unwrap_or(MACHINE);
    let mut at = Elsewhere::near(&format!("{address}/computeMetadata/v1/instance/service-accounts/default/token"), by)?;
    if !at.answers().await {
        let message = format!(
            "there are no credentials of Google's here: no file, and no service of a machine at Google at {}",
            at.origin()
        );
        return Err(Failure::transient(Code::Unavailable, message).hint(
            "run `gcloud auth application-default login`, or run it on a machine at Google with a service account",
        ));
    }
    at.url.query_pairs_mut().append_pair("scopes", SCOPE);
    let http = at.client(workspace);
    let flavor = (HeaderName::from_static("metadata-flavor"), HeaderValue::from_static("Google"));
    let request = http.request(Method::GET, at.url.clone())?.header(flavor.0, flavor.1);
    let answer = http.exchange(request, needs.limit).await?;
    let hint = "give the machine a service account, with the scope cloud-platform";
    let asked = Asked { to: at.origin(), method: AuthMethod::GoogleId, hint, is_workspace: false };
    Ok(read_token(&answer, &asked)?.secret)
}

/// Asks for something that only an account's own name may have.
async fn of_account<T: DeserializeOwned>(
    workspace: &Workspace,
    account: &str,
    what: &str,
    token: &SecretString,
    asked: &Value,
    needs: &Needs<'_>,
) -> Result<T, Failure> {
    let at = Elsewhere::at(&format!("{ACCOUNTS}{account}:{what}"), "google-id")?;
    let http = at.client(workspace);
    let request = http.request(Method::POST, at.url.clone())?.headers(bearer(token));
    let request = request.header(CONTENT_TYPE, "application/json").body(asked.to_string());
    at.json(&http, request, needs.limit, HINT).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_googles_own_place_makes_tokens_for_other_accounts() {
        let acts_for = |url: &str| {
            let json = json!({"service_account_impersonation_url": url, "delegates": ["x"]});
            acts_for(&serde_json::from_value(json).unwrap()).ok()
        };
        let (account, good) = ("a-b@p.iam.gserviceaccount.com", format!("{ACCOUNTS}a-b@p.iam.gserviceaccount.com"));
        let wanted = Some((account.to_owned(), vec!["x".to_owned()]));
        assert_eq!(acts_for(&format!("{good}:generateAccessToken")), wanted);
        for bad in [
            "",
            &good,
            "https://evil.example/v1/projects/-/serviceAccounts/a@b:generateAccessToken",
            &format!("{ACCOUNTS}../x:generateAccessToken"),
            &format!("{ACCOUNTS}a@b/../c?x=:generateAccessToken"),
            &format!("{ACCOUNTS}:generateAccessToken"),
        ] {
            assert_eq!(acts_for(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_the_variable_names_comes_before_the_login_of_gcloud() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path();
        let of = |more: &[(&str, &Path)]| {
            let all = [&[("HOME", home)], more].concat();
            file(&all.into_iter().collect())
        };
        assert_eq!(of(&[]).unwrap(), None);
        let (usual, other) = (
            home.join(".config/gcloud").join("application_default_credentials.json"),
            home.join("gcloud").join("application_default_credentials.json"),
        );
        for file in [&usual, &other] {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "{}").unwrap();
        }
        assert_eq!(of(&[]).unwrap(), Some(usual));
        assert_eq!(of(&[("CLOUDSDK_CONFIG", &home.join("gcloud"))]).unwrap(), Some(other.clone()));
        assert_eq!(of(&[(GOOGLE_CREDENTIALS, &other)]).unwrap(), Some(other));
        assert_eq!(of(&[(GOOGLE_CREDENTIALS, &home.join("none"))]).unwrap_err().code, Code::Configuration);
    }
}
