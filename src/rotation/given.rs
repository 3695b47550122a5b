//! A token that was got elsewhere and is handed over: published like one that was got here, after the same questions as far as it
//! answers them.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::record::{PublishedRecord, Untold};
use super::report::Outcome;
use super::snapshot::Snapshot;
use super::status::issued_at;
use super::store::Locked;
use super::verify::could_be;
use super::{Rotation, effects};
use crate::failure::{Code, Failure};
use crate::foreign::secrets;
use crate::model::token::{Claims, fingerprint};
use crate::pgpass::Entry;

impl Rotation {
    /// Publishes a token as the password of one connection, writes the files beside the password file, and returns the expiry if it
    /// says one. `limit` is how long to wait for another instance. What `on_rotate` names is told by the next rotation.
    ///
    /// # Errors
    /// It has expired, is another identity's, or cannot be written. Then the present password stays.
    pub(crate) async fn publish_given(
        &self,
        index: usize,
        token: &SecretString,
        limit: Duration,
    ) -> Result<Option<Timestamp>, Failure> {
        let Locked::By(_held) = self.store.lock(limit, || None::<()>).await? else { return Ok(None) };
        let mut snapshot = self.snapshot()?;
        let claims = Claims::of(token.expose_secret()).unwrap_or_default();
        secrets::keep_until(token, claims.expires_at.unwrap_or_else(Timestamp::now));
        refuse_unfit(&snapshot, index, &claims)?;
        let entry = entry(&snapshot, index, token)?;
        refuse_no_token(token)?;
        snapshot.publish(&[entry], &[index])?;
        note_published(&mut snapshot, index, token, &claims);
        self.follow(snapshot, index, token, claims.expires_at)?;
        Ok(claims.expires_at)
    }

    /// What follows the password file, and the record.
    fn follow(
        &self,
        snapshot: Snapshot,
        index: usize,
        token: &SecretString,
        expires_at: Option<Timestamp>,
    ) -> Result<(), Failure> {
        let mut snapshot = self.snapshot_with(snapshot.record)?;
        let has_hook = self.config.connections[index].outputs.on_rotate.is_some();
        let fingerprint = fingerprint(token.expose_secret());
        let past = snapshot.past_mut(index);
        past.succeeded(Timestamp::now(), None);
        past.last_rotation_at = past.last_attempt_at;
        past.untold = has_hook.then_some(Untold { fingerprint, started_at: None });
        let mut outcomes = vec![(index, Outcome::NotDue { expires_at })];
        effects::write(&mut snapshot, &mut outcomes);
        self.keep(&mut snapshot.record);
        match outcomes.pop() {
            Some((_, Outcome::Failed(failure))) => Err(failure),
            _ => Ok(()),
        }
    }
}

/// Keeps in the record which token it is, as of one that was got here: what the entry holds from now on is our own work. One that
/// says no expiry cannot be told from any other text, and nothing is known of it.
fn note_published(snapshot: &mut Snapshot, index: usize, token: &SecretString, claims: &Claims) {
    let Some(expires_at) = claims.expires_at else { return };
    let source = snapshot.connections()[index].credential;
    let past = snapshot.past_mut(index);
    past.holds(PublishedRecord {
        fingerprint: fingerprint(token.expose_secret()),
        issued_at: issued_at(claims, expires_at),
        expires_at,
        subject: claims.subject.clone(),
        auth: None,
        source,
        origin: claims.issuer_origin().filter(|_| !source.is_minted()),
    });
}

/// # Errors
/// It has expired by the workspace's clock, or says that it belongs to an identity which this connection's user is not.
fn refuse_unfit(snapshot: &Snapshot, index: usize, claims: &Claims) -> Result<(), Failure> {
    let (connection, now) = (&snapshot.connections()[index], snapshot.statuses[index].now);
    let stays = "it was not published, and the present password stays";
    if let Some(expires_at) = claims.expires_at.filter(|at| *at <= now) {
        let message = format!("the token has expired at {expires_at}");
        return Err(Failure::permanent(Code::SignInRefused, message).hint(format!("{stays}: get a new one")));
    }
    if !could_be(connection, claims.subject.as_deref()) {
        let whose = claims.subject.as_deref().unwrap_or("another identity");
        let message = format!("the token of {whose} cannot log in as this user (connection {})", connection.name());
        let hint = format!("{stays}; if the user is a role that it may use, set any_identity = true (--any-identity)");
        return Err(Failure::permanent(Code::IdentityMismatch, message).hint(hint));
    }
    Ok(())
}

/// # Errors
/// It is something else that was handed over in its place: a page, an answer of the API, or a personal access token, which PostgreSQL
/// takes for no password.
fn refuse_no_token(token: &SecretString) -> Result<(), Failure> {
    // The characters of RFC 6750, section 2.1.
    let is_of_tokens = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let text = token.expose_secret();
    let why = if !text.bytes().all(is_of_tokens) {
        "this is no token"
    } else if text.starts_with("dapi") {
        "a personal access token is no password"
    } else {
        return Ok(());
    };
    Err(Failure::permanent(Code::Configuration, why)
        .hint("the present password stays: hand over the token alone, as `jq -r .token` prints it"))
}

fn entry(snapshot: &Snapshot, index: usize, token: &SecretString) -> Result<Entry, Failure> {
    let connection = &snapshot.connections()[index];
    let unfit = |why: String| Failure::permanent(Code::Configuration, why);
    let key = connection.key.clone().ok_or_else(|| {
        let why = format!("the host or the user of {} is not known", connection.name());
        unfit(why).hint("name them (--pg-host HOST --pg-username USER), or run `dbx-rotator rotate` to find them")
    })?;
    Entry::new(key, token.clone(), connection.last_copy).map_err(|why| {
        unfit(format!("the token cannot be a password in a password file: {why}")).hint("hand over the token alone")
    })
}
