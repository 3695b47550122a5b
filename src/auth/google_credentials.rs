//! The key of a service account at Google: an assertion that is signed with it is exchanged for a token that names the account to
//! the workspace (Google, "Using OAuth 2.0 for Server to Server Applications"; databricks-sdk-py, `google_credentials`).
//!
//! The vendor's SDKs send a second token with every request, which opens all of the account's things at Google. The workspace needs it
//! only to manage accounts, so it is neither asked for nor sent.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::elsewhere::Elsewhere;
use super::exchange::{Asked, Form, read_token, with_form};
use super::{Needs, SignedIn};
use crate::failure::{Code, Failure};
use crate::foreign::secrets;
use crate::model::token::Token;
use crate::model::{AuthMethod, GOOGLE_KEY, SecretSource, Workspace};
use crate::os::files::read_text_up_to;
use crate::words;

/// The one place that gets an assertion, whatever a key file says.
const GOOGLE: &str = "https://oauth2.googleapis.com/token";

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The longest that Google takes.
const LIFE: SignedDuration = SignedDuration::from_hours(1);

/// More than any key file has.
const LARGEST: u64 = 64 * 1024;

const HINT: &str = "give the whole JSON file that Google made for the key of the service account";

/// A key file; only the fields that are used here.
#[derive(Deserialize)]
pub(super) struct KeyFile {
    pub(super) client_email: Option<String>,
    pub(super) private_key: Option<SecretString>,
    pub(super) private_key_id: Option<String>,
    pub(super) token_uri: Option<String>,
}

/// What kind of file it is.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// What an assertion asks for.
#[derive(Clone, Copy)]
pub(super) enum Asking<'a> {
    /// A token that names the account to this audience.
    Name(&'a str),
    /// An access token with this scope at Google.
    Access(&'a str),
}

/// Signs in.
///
/// # Errors
/// Permanent: the key cannot be used, or Google refuses it. Transient: Google does not answer.
pub(super) async fn sign_in(
    workspace: &Workspace,
    source: &SecretSource,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    let key = read(source)?;
    let asking = Asking::Name(workspace.host.origin());
    let token = by_key(workspace, &key, asking, AuthMethod::GoogleCredentials, needs).await?;
    let warnings = source.loose_mode(GOOGLE_KEY).into_iter().collect();
    Ok(SignedIn { warnings, ..SignedIn::of(token.of_another_issuer()) })
}

/// What a key brings.
///
/// # Errors
/// As [`sign_in`].
pub(super) async fn by_key(
    workspace: &Workspace,
    key: &KeyFile,
    asking: Asking<'_>,
    method: AuthMethod,
    needs: &Needs<'_>,
) -> Result<Token, Failure> {
    key.private_key.iter().for_each(secrets::keep);
    if key.token_uri.as_deref().is_some_and(|address| address != GOOGLE) {
        return Err(unusable(&format!("it wants to be sent to another place than {GOOGLE}")));
    }
    let assertion = assertion(key, asking, needs)?;
    let form: Form<'_> = vec![("grant_type", GRANT), ("assertion", assertion.expose_secret())];
    let hint = "check that the key is not deleted or disabled, and this machine's clock";
    ask_google(workspace, &form, method, hint, needs).await
}

/// Sends a form to the one place that gets secrets of Google's.
///
/// # Errors
/// Permanent: Google refuses it. Transient: Google does not answer.
pub(super) async fn ask_google(
    workspace: &Workspace,
    form: &Form<'_>,
    method: AuthMethod,
    hint: &str,
    needs: &Needs<'_>,
) -> Result<Token, Failure> {
    let at = Elsewhere::at(GOOGLE, method.word())?;
    let http = at.client(workspace);
    let answer = http.exchange(with_form(http.request(Method::POST, at.url.clone())?, form), needs.limit).await?;
    read_token(&answer, &Asked { to: at.origin(), method, hint, is_workspace: false })
}

fn unusable(why: &str) -> Failure {
    Failure::permanent(Code::Configuration, format!("cannot use the key of the service account at Google: {why}"))
        .hint(HINT)
}

fn read(source: &SecretSource) -> Result<KeyFile, Failure> {
    let text = match source {
        SecretSource::Given(text) | SecretSource::InProfile(text, _) => Zeroizing::new(text.expose_secret().to_owned()),
        SecretSource::File(path) => read_text_up_to(path, LARGEST)
            .map_err(|error| unusable(&format!("{}: {}", path.display(), words::of_io(&error))))?,
        SecretSource::Keychain(_) => return Err(unusable("it cannot be in the keychain")),
    };
    let fault = |_| unusable("it is not the JSON of a key");
    let Kind { kind } = serde_json::from_str(&text).map_err(fault)?;
    if kind.as_deref() != Some("service_account") {
        return Err(unusable("its type is not service_account"));
    }
    serde_json::from_str(&text).map_err(fault)
}

/// Who it is, for whom, and until when, signed with the key (RFC 7523).
fn assertion(key: &KeyFile, asking: Asking<'_>, needs: &Needs<'_>) -> Result<SecretString, Failure> {
    let (Some(email), Some(pem)) = (&key.client_email, &key.private_key) else {
        return Err(unusable("it lacks client_email or private_key"));
    };
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.expose_secret().as_bytes());
    let der = der.map_err(|_| unusable("its private_key is not in PEM form"))?;
    let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| unusable("its private_key is no RSA key"))?;
    let now = needs.now;
    let end = now.checked_add(LIFE).unwrap_or(now);
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": key.private_key_id});
    let (claim, wanted) = match asking {
        Asking::Name(audience) => ("target_audience", audience),
        Asking::Access(scope) => ("scope", scope),
    };
    let claims = json!({"iss": email, "aud": GOOGLE, claim: wanted, "iat": now.as_second(), "exp": end.as_second()});
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
        .map_err(|_| unusable("it cannot sign"))?;
    let assertion = SecretString::from(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)));
    secrets::keep_until(&assertion, end);
    Ok(assertion)
}
