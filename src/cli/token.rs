//! `dbx-rotator token`.

use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Serialize;
use zeroize::Zeroizing;

use super::arguments::TokenOptions;
use super::choose::{self, ClientAddress};
use super::{Fault, block_on_to_the_end, print};
use crate::model::{Connection, SslMode};
use crate::pgpass::Key;
use crate::rotation::{PATIENCE, RotateRequest, Rotation, Snapshot};
use crate::rotator::{Credential, credential_now};

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    connection: &'a str,
    token: &'a str,
    expires_at: Timestamp,
    expires_in_seconds: i64,
    /// Until it is past the refresh point; not positive where it is.
    due_in_seconds: i64,
    host: Option<&'a str>,
    port: u16,
    /// To log in to.
    database: &'a str,
    user: Option<&'a str>,
    /// Both as libpq has them; none where the environment asks for more, or libpq finds it.
    sslmode: Option<&'static str>,
    sslrootcert: Option<String>,
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
    if options.json {
        return Ok(print::json_with_secrets(&answer(rotation, index, &rotation.snapshot()?, &credential))?);
    }
    let token = credential.password().expose_secret();
    Ok(print::exactly(&Zeroizing::new(format!("{token}\n")))?)
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

/// All that a program needs to connect, and how long it may keep the token.
fn answer<'a>(rotation: &'a Rotation, index: usize, snapshot: &'a Snapshot, credential: &'a Credential) -> Answer<'a> {
    let (config, connection) = (rotation.config(), &snapshot.connections()[index]);
    let key = connection.key();
    Answer {
        version: 1,
        connection: connection.name(),
        token: credential.password().expose_secret(),
        expires_at: credential.expires_at,
        expires_in_seconds: credential.left.as_secs(),
        due_in_seconds: snapshot.statuses[index].until_refresh().map_or(0, |until| until.as_secs()),
        host: key.map(Key::host).or(connection.address.host.as_deref()),
        port: connection.address.port,
        database: connection.login_database(),
        user: key.map(Key::user).or(connection.address.user.as_deref()),
        sslmode: config.sslmode_for_client(connection).map(SslMode::as_str),
        sslrootcert: config.root_for_libpq(connection),
    }
}
