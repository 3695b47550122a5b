//! Entry points for [`crate::fuzzing`].

use super::exchange::{Asked, read_token};
use super::{databricks_cli, subject};
use crate::failure::Failure;
use crate::http::Answer;
use crate::model::AuthMethod;
use crate::model::token::Token;

pub(crate) fn token_answer(answer: &Answer) -> Result<Token, Failure> {
    let asked = Asked { to: "https://workspace.example", method: AuthMethod::FileOidc, hint: "", is_workspace: true };
    read_token(answer, &asked)
}

/// What a file that should hold the token of another issuer is taken for.
pub(crate) fn subject_token(bytes: &[u8]) -> Result<String, Failure> {
    subject::of_bytes(bytes, "the file").map(|subject| subject.needs_of_policy(Some("an-application")))
}

pub(crate) fn cli_output(code: u8, stdout: &[u8], stderr: &[u8]) -> Result<Token, Failure> {
    databricks_cli::judge(i32::from(code), stdout, stderr)
}
