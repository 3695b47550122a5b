//! What a person agrees to in the browser: the address that is opened, what comes back, and the exchange of the code for tokens
//! (RFC 6749, section 4.1; RFC 7636).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::CONTENT_TYPE;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use url::Url;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::vault::Tokens;
use super::{CLIENT_ID, read_tokens};
use crate::auth::endpoint::TokenEndpoint;
use crate::failure::{Code, Failure};
use crate::foreign::{quoted, secrets};
use crate::http::WorkspaceClient;
use crate::model::token::Token;

/// `offline_access` brings the refresh token.
const SCOPES: &str = "all-apis offline_access";

/// Bytes of chance in the state and in the verifier: 43 characters, the least that RFC 7636 allows (section 4.1).
const CHANCE: usize = 32;

/// No code is longer, in bytes.
const LONGEST_CODE: usize = 8 * 1024;

/// A consent that was asked for.
pub(crate) struct Consent {
    endpoint: TokenEndpoint,
    redirect: String,
    state: SecretString,
    verifier: SecretString,
    address: Url,
}

/// What a redirect of the browser says.
pub(crate) enum Redirected {
    Code(SecretString),
    /// The person, or the workspace, has refused.
    Refused(Failure),
    /// It is not the answer to this consent: from another program, or an older login.
    Foreign(&'static str),
}

impl Consent {
    /// # Errors
    /// Permanent: nobody says where people sign in. Transient: no chance to be had from the system.
    pub(super) fn new(endpoint: TokenEndpoint, redirect: String, group_id: Option<&str>) -> Result<Self, Failure> {
        let (state, verifier) = (chance()?, chance()?);
        let address = address(endpoint.authorize()?, &redirect, &state, &challenge(&verifier), group_id);
        Ok(Consent { endpoint, redirect, state, verifier, address })
    }

    /// Where a person signs in and agrees.
    pub(crate) fn address(&self) -> &Url {
        &self.address
    }

    /// What an address says to which the browser was redirected: all of it, or what follows the question mark.
    pub(crate) fn read(&self, redirected: &str) -> Redirected {
        let redirected = redirected.trim();
        let query = redirected.split_once('?').map_or(redirected, |(_, query)| query);
        let query = query.split('#').next().unwrap_or_default();
        let field = |name: &str| {
            let mut all = url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
            // A parameter must not be repeated (RFC 6749, section 3.1).
            let found = all.next().map(|(_, value)| Zeroizing::new(value.into_owned()));
            found.filter(|_| all.next().is_none())
        };
        // By their hashes, so that the time tells nothing.
        let is_ours = |state: &str| hash(state) == hash(self.state.expose_secret());
        if !field("state").is_some_and(|state| is_ours(&state)) {
            return Redirected::Foreign("its state is not that of this login");
        }
        if let Some(error) = field("error") {
            return Redirected::Refused(refused(&error, field("error_description").as_deref().map(String::as_str)));
        }
        match field("code").filter(|code| (1..=LONGEST_CODE).contains(&code.len())) {
            Some(code) => {
                let code = SecretString::from(code.as_str());
                secrets::keep(&code);
                Redirected::Code(code)
            }
            None => Redirected::Foreign("it holds no code"),
        }
    }

    /// Exchanges the code for tokens.
    pub(super) async fn exchange(
        &self,
        http: &WorkspaceClient<'_>,
        code: &SecretString,
        limit: Duration,
    ) -> Result<(Token, Tokens), Failure> {
        let to = self.endpoint.origin();
        let request = self
            .endpoint
            .request(http)?
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(self.form(code).as_bytes().to_vec());
        let answer = http.exchange_with(&to, request, limit).await?;
        read_tokens(&answer, &to).map_err(|failure| self.endpoint.explained(&answer, failure))
    }

    fn form(&self, code: &SecretString) -> Zeroizing<String> {
        let code = code.expose_secret();
        let mut form = Serializer::new(String::with_capacity(3 * code.len() + 512));
        form.append_pair("grant_type", "authorization_code");
        form.append_pair("code", code);
        form.append_pair("redirect_uri", &self.redirect);
        form.append_pair("code_verifier", self.verifier.expose_secret());
        form.append_pair("client_id", CLIENT_ID);
        Zeroizing::new(form.finish())
    }
}

fn address(authorize: &Url, redirect: &str, state: &SecretString, challenge: &str, group_id: Option<&str>) -> Url {
    let mut address = authorize.clone();
    address.set_fragment(None);
    let mut query = address.query_pairs_mut();
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", CLIENT_ID)
        .append_pair("redirect_uri", redirect)
        .append_pair("scope", SCOPES)
        .append_pair("state", state.expose_secret())
        .append_pair("code_challenge", challenge)
        .append_pair("code_challenge_method", "S256");
    if let Some(group) = group_id {
        // The refresh token keeps it (databricks-sdk-go, pull request 1812).
        query.append_pair("assume_group", group);
    }
    drop(query);
    address
}

fn chance() -> Result<SecretString, Failure> {
    let mut bytes = Zeroizing::new([0; CHANCE]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| {
        Failure::transient(Code::Unavailable, "this machine has no random numbers to give").hint("try again")
    })?;
    Ok(SecretString::from(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

/// RFC 7636, section 4.2.
fn challenge(verifier: &SecretString) -> String {
    URL_SAFE_NO_PAD.encode(hash(verifier.expose_secret()))
}

fn hash(text: &str) -> [u8; 32] {
    digest(&SHA256, text.as_bytes()).as_ref().try_into().unwrap_or_default()
}

/// An error of RFC 6749, section 4.1.2.1.
fn refused(code: &str, text: Option<&str>) -> Failure {
    let said = [Some(code), text].into_iter().flatten().map(quoted).collect::<Vec<_>>().join(": ");
    match code {
        "access_denied" => Failure::permanent(Code::SignInRefused, format!("the login was cancelled: {said}"))
            .hint("log in again, and agree on the page that opens"),
        "temporarily_unavailable" | "server_error" => {
            Failure::transient(Code::Unavailable, format!("the workspace cannot log anybody in now: {said}"))
                .hint("try again in a while")
        }
        _ => Failure::permanent(Code::SignInRefused, format!("the workspace refuses the login: {said}"))
            .hint("ask an administrator whether the account lets people sign in with the Databricks CLI, and the group be assumed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consent() -> Consent {
        let endpoint =
            TokenEndpoint::for_test("https://w.example/oidc/v1/token", "https://w.example/oidc/v1/authorize?x=1#y");
        Consent::new(endpoint, "http://localhost:8020".to_owned(), Some("7")).unwrap()
    }

    #[test]
    fn the_address_holds_what_the_vendor_has_in_it_and_not_the_verifier() {
        let (one, other) = (consent(), consent());
        let query: std::collections::BTreeMap<_, _> = one.address().query_pairs().into_owned().collect();
        for (name, value) in [
            ("x", "1"),
            ("response_type", "code"),
            ("client_id", "databricks-cli"),
            ("redirect_uri", "http://localhost:8020"),
            ("scope", "all-apis offline_access"),
            ("code_challenge_method", "S256"),
            ("assume_group", "7"),
            ("state", one.state.expose_secret()),
        ] {
            assert_eq!(query.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!one.address().as_str().contains(one.verifier.expose_secret()) && one.address().fragment().is_none());
        assert_ne!(one.address(), other.address(), "each has its own chance");
        assert_eq!(one.state.expose_secret().len(), 43);
    }

    #[test]
    fn the_challenge_is_that_of_the_specification() {
        // RFC 7636, appendix B.
        let verifier = SecretString::from("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn only_a_redirect_with_our_state_counts_whatever_it_says() {
        let consent = consent();
        let state = consent.state.expose_secret();
        let code = |redirected: &str| match consent.read(redirected) {
            Redirected::Code(code) => code.expose_secret().to_owned(),
            Redirected::Refused(failure) => format!("refused: {failure}"),
            Redirected::Foreign(why) => format!("foreign: {why}"),
        };
        for whole in [
            format!("http://localhost:8020/?code=c%2B1&state={state}"),
            format!("/?state={state}&code=c%2B1&session_state=x#fragment"),
            format!("code=c%2B1&state={state}"),
            format!(" http://localhost:8020/?code=c%2B1&state={state} \r\n"),
        ] {
            assert_eq!(code(&whole), "c+1", "{whole}");
        }
        for foreign in [
            String::new(),
            "/?code=c".to_owned(),
            "/?code=c&state=".to_owned(),
            format!("/?code=c&state={}", &state[1..]),
            format!("/?code=c&state={state}x"),
            format!("/?code=c&state={state}&state=x"),
            format!("/?code=c&state={}", state.to_uppercase()),
            "/?error=access_denied&state=x".to_owned(),
            "/?error=access_denied".to_owned(),
            format!("/?state={state}"),
            format!("/?code=&state={state}"),
            format!("/?code=a&code=b&state={state}"),
            format!("/?code={}&state={state}", "x".repeat(LONGEST_CODE + 1)),
            format!("/#code=c&state={state}"),
        ] {
            assert!(code(&foreign).starts_with("foreign: "), "{foreign}");
        }
        let refused = |error: &str| code(&format!("/?error={error}&error_description=No%0Away&state={state}"));
        assert!(refused("access_denied").starts_with("refused: the login was cancelled"));
        assert!(!refused("access_denied").contains('\n'));
        assert!(refused("invalid_scope").starts_with("refused: the workspace refuses"));
        assert!(refused("server_error").starts_with("refused: the workspace cannot"));
    }
}
