//! `dbx-rotator token`.

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Serialize;
use zeroize::Zeroizing;

use super::arguments::TokenOptions;
use super::{Fault, block_on, print};
use crate::config::ConfigError;
use crate::failure::Failure;
use crate::os::child::{LAST_WAIT, finish_all};
use crate::rotation::Rotation;
use crate::rotator::{Credential, credential_now};

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    connection: &'a str,
    token: &'a str,
    expires_at: Timestamp,
    expires_in_seconds: i64,
}

pub(super) fn run(options: &TokenOptions, rotation: &Rotation) -> Result<u8, Fault> {
    let name = match (&options.connection, rotation.config().connections()) {
        (Some(name), _) => name.as_str(),
        (None, [only]) => only.name(),
        (None, all) => {
            let names: Vec<&str> = all.iter().map(|connection| connection.name()).take(20).collect();
            let error = ConfigError::usage(format!("which of the {} connections?", all.len()));
            return Err(error.hint(format!("name one: {}", names.join(", "))).into());
        }
    };
    block_on(async {
        let printed = match credential_now(rotation, name, options.min_valid).await {
            Ok(credential) => print_out(name, &credential, options.json).map_err(Fault::from),
            Err(failure) => Err(failure.into()),
        };
        // Whoever reads the token has it by now.
        finish_all(LAST_WAIT).await;
        printed.map(|()| 0)
    })?
}

fn print_out(name: &str, credential: &Credential, json: bool) -> Result<(), Failure> {
    let token = credential.password().expose_secret();
    if json {
        let (expires_at, expires_in_seconds) = (credential.expires_at, credential.left.as_secs());
        print::json_with_secrets(&Answer { version: 1, connection: name, token, expires_at, expires_in_seconds })
    } else {
        print::exactly(&Zeroizing::new(format!("{token}\n")))
    }
}
