//! Ways in for [`crate::fuzzing`].

use std::time::Duration;

use secrecy::SecretString;

use super::api::Api;
use super::meaning::{About, meaning};
use crate::config::Workspace;
use crate::failure::Failure;
use crate::http::{Answer, Line};

pub(crate) fn meaning_of(answer: &Answer) -> Failure {
    let workspace = Workspace::for_fuzzing();
    let (line, token) = (Line::to(&workspace), SecretString::from("token"));
    let api = Api { line: &line, token: &token, subject: Some("ada@example.com"), limit: Duration::ZERO };
    meaning(answer, &api, &About { verb: "find", object: "the instance orders".to_owned() })
}
