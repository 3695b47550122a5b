//! A personal access token: it needs no sign-in. It opens the API, where it mints database credentials, and no database.

use jiff::SignedDuration;

use super::{Needs, SignedIn};
use crate::failure::{Code, Failure};
use crate::model::token::Token;
use crate::model::{AuthMethod, PAT, SecretSource};

/// It does not say when it expires; the API does, by refusing it.
const TAKEN_TO_LIVE: SignedDuration = SignedDuration::from_hours(1);

/// Signs in, without asking anybody.
///
/// # Errors
/// Permanent: it cannot be read.
pub(super) fn sign_in(token: &SecretSource, needs: &Needs<'_>) -> Result<SignedIn, Failure> {
    let (secret, warning) = token.read_as(PAT)?;
    let until = needs.now.checked_add(TAKEN_TO_LIVE).ok();
    let token =
        Token::new(secret, until, needs.now, AuthMethod::Pat).map(Token::of_another_issuer).ok_or_else(|| {
            Failure::permanent(Code::Configuration, "the personal access token has no expiry that can be reckoned with")
        })?;
    Ok(SignedIn { warnings: warning.into_iter().collect(), ..SignedIn::of(token) })
}
