//! `dbx-rotator rotate --token-stdin`: a token that somebody else got.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;

use super::arguments::RotateOptions;
use super::{Fault, block_on_to_the_end, choose, print};
use crate::config::ConfigError;
use crate::foreign::secrets;
use crate::model::token::LONGEST_TOKEN;
use crate::os::streams;
use crate::os::zone;
use crate::rotation::{RotateRequest, Rotation};
use crate::words;

/// How long whoever writes it may take.
const WRITING: Duration = Duration::from_secs(60);

/// Publishes it for the only connection, or the one that is named.
pub(super) fn run(options: &RotateOptions, rotation: &Rotation, is_told: bool) -> Result<u8, Fault> {
    let index = match options.connection.as_slice() {
        [] => choose::one(rotation, None)?,
        [one] => choose::by_name(rotation, one)?,
        _ => return Err(ConfigError::usage("a token is for one connection").hint("name one of them").into()),
    };
    let token = read()?;
    let expires_at = block_on_to_the_end(async {
        let published = rotation.publish_given(index, &token, options.retry_for).await;
        rotation.settle(&RotateRequest::Due).await;
        published
    })??;
    if is_told {
        let until = expires_at.map(|at| format!(" until {}", print::clock(at, Timestamp::now(), &zone::local())));
        print::out(&format!("1 password is published{}\n", until.unwrap_or_default()))?;
    }
    Ok(0)
}

fn read() -> Result<SecretString, ConfigError> {
    let cannot = |why: &str| {
        let error = ConfigError::usage(format!("cannot read a token from standard input: {why}"));
        error.hint("let a program write it there: `... | dbx-rotator rotate --token-stdin`")
    };
    let bytes = streams::read(Path::new("/dev/stdin"), LONGEST_TOKEN, WRITING)
        .map_err(|error| cannot(&words::of_io(&error)))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| cannot("it is not text"))?.trim();
    if text.is_empty() {
        return Err(cannot("there is none"));
    }
    let token = SecretString::from(text);
    secrets::keep(&token);
    Ok(token)
}
