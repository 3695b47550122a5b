//! Entry points for [`crate::fuzzing`].

use super::{databricks_cli, m2m};
use crate::failure::Failure;
use crate::http::Answer;
use crate::model::token::Token;

pub(crate) fn token_answer(answer: &Answer) -> Result<Token, Failure> {
    m2m::read_token(answer, "https://workspace.example")
}

pub(crate) fn cli_output(code: u8, stdout: &[u8], stderr: &[u8]) -> Result<Token, Failure> {
    databricks_cli::judge(i32::from(code), stdout, stderr)
}
