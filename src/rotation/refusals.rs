//! The credentials that PostgreSQL has refused to this process: a new one takes their place, however long they would live.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};

use crate::model::token::fingerprint;

/// More than are refused in a token's life; then all are forgotten.
const MOST: usize = 1_000;

static REFUSED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

pub(crate) fn note(password: &SecretString) {
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    if refused.len() >= MOST {
        refused.clear();
    }
    refused.insert(fingerprint(password.expose_secret()));
}

pub(super) fn know(password: &SecretString) -> bool {
    let refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    !refused.is_empty() && refused.contains(&fingerprint(password.expose_secret()))
}
