//! The sessions there are, by the keys with which their clients may cancel (PostgreSQL, "Canceling Requests in Progress").

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::Connection;

/// How long the secret is that is put in place of one that another session has: what every version of the protocol allows.
const OWN_SECRET: usize = 4;

/// The sessions that can be cancelled.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<Vec<u8>, Session>>);

/// Where a session runs.
#[derive(Clone)]
pub(super) struct Session {
    /// What the server knows it by: the number of the process, and the secret.
    pub(super) key: Vec<u8>,
    pub(super) connection: Connection,
    /// Its server. The host may have other addresses, and other servers there.
    pub(super) address: SocketAddr,
}

/// A session is known for as long as this is kept.
pub(super) struct Known<'s> {
    sessions: &'s Sessions,
    key: Vec<u8>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a session. Its client gets the server's key, unless a session of another server has the very same: then another secret,
    /// made by `random`, so that each request reaches one session only.
    pub(super) fn add(&self, session: Session, mut random: impl FnMut(&mut [u8]) -> bool) -> Option<Known<'_>> {
        let mut all = self.lock();
        let mut key = session.key.clone();
        while all.contains_key(&key) {
            let at = key.len().checked_sub(OWN_SECRET)?;
            random(&mut key[at..]).then_some(())?;
        }
        all.insert(key.clone(), session);
        Some(Known { sessions: self, key })
    }

    /// The session that a client means.
    pub(super) fn find(&self, key: &[u8]) -> Option<Session> {
        self.lock().get(key).cloned()
    }
}

impl Known<'_> {
    /// What the client knows the session by.
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.key);
    }
}
