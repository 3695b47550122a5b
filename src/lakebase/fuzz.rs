//! Entry points for [`crate::fuzzing`].

use super::classify::{About, classify_error};
use crate::failure::Failure;
use crate::http::Answer;

pub(crate) fn api_error(answer: &Answer) -> Failure {
    let about = About { verb: "find", object: "the instance orders".to_owned() };
    classify_error(answer, "https://workspace.example", Some("ada@example.com"), &about)
}
