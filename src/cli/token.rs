//! `dbx-rotator token`.

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Serialize;
use zeroize::Zeroizing;

use super::arguments::TokenOptions;
use super::choose::{self, ClientAddress};
use super::{Fault, block_on_to_the_end, print};
use crate::failure::Failure;
use crate::model::Connection;
use crate::rotation::{PATIENCE, RotateRequest, Rotation};
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
    // Before a runtime is made: a name that does not exist is told at once.
    let named = match options.address() {
        Some(_) => None,
        None => Some(choose::one(rotation, options.connection.as_deref())?),
    };
    // Whoever reads the token has it before what is left running is waited for.
    block_on_to_the_end(print_one(options, rotation, named))?.map(|()| 0)
}

async fn print_one(options: &TokenOptions, rotation: &Rotation, named: Option<usize>) -> Result<(), Fault> {
    let index = match (named, options.address()) {
        (None, Some(address)) => at(rotation, address).await?,
        (named, _) => named.unwrap_or_default(),
    };
    let name = rotation.config().connections()[index].name();
    let credential = credential_now(rotation, name, options.min_valid).await?;
    Ok(print_out(name, &credential, options.json)?)
}

/// The connection that goes there. Hosts that have not been found yet are looked up by a rotation.
async fn at(rotation: &Rotation, address: ClientAddress<'_>) -> Result<usize, Fault> {
    let snapshot = rotation.snapshot()?;
    if let Some(index) = address.find(&snapshot) {
        return Ok(index);
    }
    let is_open = |connection: &Connection| connection.key().is_none();
    let all = snapshot.connections().iter().enumerate();
    let open: Vec<usize> = all.filter(|(_, connection)| is_open(connection)).map(|(index, _)| index).collect();
    if open.is_empty() {
        return Err(address.unknown(&snapshot).into());
    }
    let report = rotation.rotate(&RotateRequest::Due, Some(&open), PATIENCE).await;
    rotation.settle(&RotateRequest::Due).await;
    let snapshot = rotation.snapshot()?;
    match address.find(&snapshot) {
        Some(index) => Ok(index),
        // What could not be looked up may be the one.
        None => match open.iter().find_map(|index| report.failure_of(*index)) {
            Some(failure) => Err(failure.clone().into()),
            None => Err(address.unknown(&snapshot).into()),
        },
    }
}

impl TokenOptions {
    fn address(&self) -> Option<ClientAddress<'_>> {
        let (host, user) = self.host.as_deref().zip(self.user.as_deref())?;
        Some(ClientAddress { host, user, port: self.port })
    }
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
