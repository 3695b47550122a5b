//! One refresh of a login, from the lock to the durable successor.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret, SecretString};
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::logins::{Kept, Lock, Login};
use super::vault::Tokens;
use super::{CLIENT_ID, KnownEndpoints, read_tokens};
use crate::auth::cli_texts::{Meaning, meaning};
use crate::failure::{Code, Failure};
use crate::http::WorkspaceClient;
use crate::model::Workspace;
use crate::model::token::Token;
use crate::os::clock::Anchor;
use crate::os::durable::Prepared;
use crate::os::keyring::Ask;

/// A token of another process's refresh must live for so long to be worth handing out.
const MARGIN: SignedDuration = SignedDuration::from_secs(30);

/// How often keeping a new refresh token is tried, and how long each time is waited: a keyring may just have been locked.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// Tokens that could not be kept, by the login's description, and when their login began: the next refresh of this process keeps them,
/// unless somebody has logged in again. The workspace may take no other refresh token any more.
static UNKEPT: LazyLock<Mutex<HashMap<PathBuf, (Timestamp, Tokens)>>> = LazyLock::new(Mutex::default);

/// What a refresh needs, as its own: it outlives who asked for it.
pub(super) struct Refresh {
    pub(super) login: Login,
    pub(super) workspace: Workspace,
    pub(super) endpoints: KnownEndpoints,
    /// For each request.
    pub(super) limit: Duration,
    /// The access token that will not do.
    pub(super) rejected: Option<SecretString>,
    /// The workspace's time, as far as known.
    pub(super) now: Timestamp,
}

/// An access token, and the workspace's clock if an answer showed it.
type Refreshed = Result<(Token, Option<Anchor>), Failure>;

impl Refresh {
    pub(super) async fn run(self) -> Refreshed {
        let lock = self.login.lock().await?;
        let kept = self.login.live()?;
        self.keep_unkept(&kept).await?;
        // Read anew: another process may have refreshed while this one waited.
        let tokens = self.login.tokens_in(kept.place).await?;
        if let Some(token) = tokens.access_token().filter(|token| self.will_do(token)) {
            return Ok((token, None));
        }
        let room = self.login.prepare(kept.place)?;
        self.exchange(&lock, kept, tokens, room).await
    }

    /// Whether a token that was found under the lock is another than the one before, and lives.
    fn will_do(&self, token: &Token) -> bool {
        let same = self.rejected.as_ref().is_some_and(|old| old.expose_secret() == token.secret.expose_secret());
        !same && token.expires_at.duration_since(self.now) > MARGIN
    }

    async fn exchange(&self, lock: &Lock, kept: Kept, tokens: Tokens, room: Option<Prepared>) -> Refreshed {
        let workspace = &self.workspace;
        let http = WorkspaceClient::new(&workspace.host, workspace.ca_file.as_deref(), workspace.route());
        let endpoint = self.endpoints.find(&http, workspace.account_id.as_deref(), self.limit).await?;
        let (to, cut_off) = (endpoint.origin(), lock.cut_off());
        let request = endpoint
            .request(&http)?
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form(tokens.refresh_token.as_ref()).as_bytes().to_vec());
        lock.mark().map_err(|error| self.login.cannot_lock(&error))?;
        // Where no answer comes, the note stays: the workspace may have taken the token.
        let answer = http.exchange_with(&to, request, self.limit).await?;
        match read_tokens(&answer, &to) {
            Ok((token, new)) => {
                self.keep(&kept, new.or_of(&tokens), room).await?;
                lock.clear();
                Ok((token, answer.anchor()))
            }
            Err(failure) if is_end(&failure) => {
                let failure = self.login.end(kept, explained(&failure, cut_off));
                lock.clear();
                Err(failure)
            }
            Err(failure) => {
                // It has refused, and so it has taken nothing; but what was cut off before still may have been.
                if cut_off.is_none() && !answer.status.is_success() {
                    lock.clear();
                }
                if !failure.is_transient() {
                    self.endpoints.forget(&http);
                }
                Err(endpoint.explained(&answer, failure))
            }
        }
    }

    /// Keeps new tokens. What fails for a while is tried again, and then left to the next refresh of this process.
    async fn keep(&self, kept: &Kept, tokens: Tokens, room: Option<Prepared>) -> Result<(), Failure> {
        let mut put = self.login.put(&tokens, kept.place, room, Ask::Nobody).await;
        for _ in 1..TRIES {
            if put.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
            put = self.login.put(&tokens, kept.place, None, Ask::Nobody).await;
        }
        put.inspect_err(|_| {
            unkept().insert(self.login.description(), (kept.since, tokens));
        })
    }

    async fn keep_unkept(&self, kept: &Kept) -> Result<(), Failure> {
        let key = self.login.description();
        let waiting = unkept().get(&key).cloned();
        if let Some((since, tokens)) = waiting {
            if since == kept.since {
                self.login.put(&tokens, kept.place, None, Ask::Nobody).await?;
            }
            unkept().remove(&key);
        }
        Ok(())
    }
}

fn unkept() -> std::sync::MutexGuard<'static, HashMap<PathBuf, (Timestamp, Tokens)>> {
    UNKEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// RFC 6749, section 6; a public client names itself in the body.
fn form(refresh_token: Option<&SecretString>) -> Zeroizing<String> {
    let token = refresh_token.map_or("", ExposeSecret::expose_secret);
    let mut form = Serializer::new(String::with_capacity(3 * token.len() + 128));
    form.append_pair("grant_type", "refresh_token");
    form.append_pair("refresh_token", token);
    form.append_pair("client_id", CLIENT_ID);
    Zeroizing::new(form.finish())
}

/// Whether a refusal means that the refresh token is dead, in the words that the vendor's tools know.
fn is_end(failure: &Failure) -> bool {
    !failure.is_transient()
        && matches!(failure.code, Code::SignInRefused | Code::Configuration)
        && meaning(&failure.message, "") == Meaning::LoginNeeded
}

fn explained(failure: &Failure, cut_off: Option<Timestamp>) -> String {
    match cut_off {
        Some(at) => format!(
            "{failure}. Perhaps by a refresh that began at {at:.0} and was cut off before its answer could be kept: the policy of an \
             account may let each refresh token be used only once"
        ),
        None => failure.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::logins::Place;
    use super::*;

    #[test]
    fn only_a_refusal_of_the_token_itself_ends_a_login() {
        let refused =
            |code, text: &str| Failure::permanent(code, format!("https://w.example refused the sign-in: {text}"));
        for text in [
            "invalid_request: Refresh token is invalid",
            "invalid_grant: used before",
            "invalid_request: Session has expired",
        ] {
            assert!(is_end(&refused(Code::SignInRefused, text)), "{text}");
        }
        for text in
            ["invalid_client: unknown", "access_denied: blocked by IP access list", "invalid_request: no client_id"]
        {
            assert!(!is_end(&refused(Code::Configuration, text)), "{text}");
        }
        let later = Failure::transient(Code::Unavailable, "invalid_grant: later");
        assert!(!is_end(&later));
    }

    #[tokio::test]
    async fn what_could_not_be_kept_is_kept_later_unless_somebody_has_logged_in_again() {
        let tokens = |refresh: &str| {
            let text = format!(
                r#"{{"version":1,"refresh_token":"{refresh}","access_token":"access-of-{refresh}","issued_at":"2026-01-01T00:00:00Z","expires_at":"2026-01-01T01:00:00Z"}}"#
            );
            Tokens::read(text.as_bytes()).unwrap()
        };
        let home = tempfile::tempdir().unwrap();
        let workspace = Workspace::for_fuzzing();
        let login = Login::of(&workspace, &[("HOME", home.path())].into_iter().collect());
        let (endpoints, limit) = (KnownEndpoints::default(), Duration::from_secs(1));
        let refresh =
            Refresh { login: login.clone(), workspace, endpoints, limit, rejected: None, now: Timestamp::UNIX_EPOCH };
        let is_kept = async |expected: &str| {
            refresh.keep_unkept(&login.live().unwrap()).await.unwrap();
            let kept = login.tokens_in(Place::File).await.unwrap();
            assert_eq!(kept.refresh_token.unwrap().expose_secret(), expected);
            assert!(!unkept().contains_key(&login.description()));
        };
        login.keep(&tokens("refresh-4711-one"), None, Place::File).await.unwrap();
        let since = login.live().unwrap().since;
        unkept().insert(login.description(), (since, tokens("refresh-4711-two")));
        is_kept("refresh-4711-two").await;
        unkept().insert(login.description(), (since, tokens("refresh-4711-three")));
        login.keep(&tokens("refresh-4711-of-another-login"), None, Place::File).await.unwrap();
        is_kept("refresh-4711-of-another-login").await;
    }

    #[test]
    fn whoever_was_cut_off_is_told_that_the_policy_has_ended_the_login() {
        let failure = Failure::permanent(Code::SignInRefused, "Refresh token is invalid");
        assert!(!explained(&failure, None).contains("cut off"));
        let said = explained(&failure, Some(Timestamp::UNIX_EPOCH));
        assert!(said.contains("1970-01-01T00:00:00Z and was cut off") && said.contains("only once"), "{said}");
    }
}
