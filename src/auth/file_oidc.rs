//! The token of another issuer in a file, such as Kubernetes projects it: read at each sign-in, never kept.

use std::path::Path;

use zeroize::Zeroizing;

use super::subject::{self, Subject};
use crate::failure::{Code, Failure};
use crate::model::token::LONGEST_TOKEN;
use crate::os::files::read_bytes_up_to;
use crate::words;

/// Reads it.
///
/// # Errors
/// Permanent: the file cannot be read, or holds no token.
pub(super) fn read(path: &Path) -> Result<Subject, Failure> {
    let what = path.display().to_string();
    let bytes = read_bytes_up_to(path, LONGEST_TOKEN as u64).map(Zeroizing::new).map_err(|error| {
        let message = format!("cannot read the token in {what}: {}", words::of_io(&error));
        Failure::permanent(Code::Configuration, message)
            .hint("check oidc_token_filepath, and that the user who rotates may read the file: it is used as soon as it can be read")
    })?;
    subject::of_bytes(&bytes, &what)
}
