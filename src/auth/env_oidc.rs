//! The token of another issuer in a variable of the environment.

use secrecy::ExposeSecret;

use super::subject::{self, Subject};
use crate::failure::{Code, Failure};
use crate::os::dirs::Environment;

/// Reads it.
///
/// # Errors
/// Permanent: it is not set, or holds no token.
pub(super) fn read(name: &str, environment: &Environment) -> Result<Subject, Failure> {
    let what = format!("${name}");
    let token = environment.secret(name).ok_or_else(|| {
        Failure::permanent(
            Code::Configuration,
            format!("{what}, which should hold the token to sign in with, is not set"),
        )
        .hint("set it to a token of the issuer that the federation policy names, or use a file (file-oidc)")
    })?;
    subject::of_text(token.expose_secret(), &what)
}
