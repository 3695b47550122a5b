//! Whether a proxy may be asked again: what it has refused is not offered to it over and over, since proxies lock the account of who
//! keeps coming with a wrong password.
//!
//! It holds for the whole process, whatever is reached by the proxy. Invariant: one that nobody has been let through by of late is
//! asked by one request first, and by the others once that has come through. No one waits for that longer than [`PATIENCE`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::OwnedMutexGuard;

use crate::proxies::Proxy;

/// The same user and password are offered again after this: a proxy may be mended, or may have lost its directory for a while. Locks
/// count failures within 10 to 30 minutes, and allow three or more.
const HOLD: Duration = Duration::from_secs(15 * 60);

/// Who was let through is so for this time.
const TRUST: Duration = Duration::from_secs(60);

/// How long the first request through a proxy is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

static PROXIES: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// What is known of one address, with the user and password in it: with another password it is another one.
struct Known {
    address: SecretString,
    last: Option<(Word, Instant)>,
    first: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Refused,
    LetThrough,
}

/// Held by who asks first.
pub(super) type Turn = Option<OwnedMutexGuard<()>>;

/// Whether the proxy has refused this user and password, and they are not to be tried again yet.
pub(super) fn is_closed(proxy: &Proxy) -> bool {
    with(proxy, |known| known.says(Word::Refused, HOLD))
}

/// Waits until it is known whether the proxy lets through, for a moment.
pub(super) async fn enter(proxy: &Proxy) -> Turn {
    if is_open(proxy) {
        return None;
    }
    let first = with(proxy, |known| Arc::clone(&known.first));
    let turn = tokio::time::timeout(PATIENCE, first.lock_owned()).await.ok();
    // Whoever was first has come through: then all may go side by side.
    turn.filter(|_| !is_open(proxy))
}

/// Whether it has let through of late, with this user and password.
pub(super) fn is_open(proxy: &Proxy) -> bool {
    with(proxy, |known| known.says(Word::LetThrough, TRUST))
}

pub(super) fn refused(proxy: &Proxy) {
    with(proxy, |known| known.last = Some((Word::Refused, Instant::now())));
}

/// Forgets that it has let through.
pub(super) fn close(proxy: &Proxy) {
    with(proxy, |known| known.last = known.last.filter(|(word, _)| *word == Word::Refused));
}

pub(super) fn let_through(proxy: &Proxy) {
    with(proxy, |known| known.last = Some((Word::LetThrough, Instant::now())));
}

impl Known {
    fn says(&self, wanted: Word, of_late: Duration) -> bool {
        self.last.is_some_and(|(word, at)| word == wanted && at.elapsed() < of_late)
    }
}

fn with<T>(proxy: &Proxy, look: impl FnOnce(&mut Known) -> T) -> T {
    let address = proxy.address();
    let mut all: MutexGuard<'_, Vec<Known>> = PROXIES.lock().unwrap_or_else(PoisonError::into_inner);
    let index = all.iter().position(|known| known.address.expose_secret() == *address).unwrap_or_else(|| {
        // A setting that is gone is not needed any more; of one that was refused its word is kept.
        all.retain(|known| known.says(Word::Refused, HOLD) || Arc::strong_count(&known.first) > 1);
        all.push(Known { address: SecretString::from(address.as_str()), last: None, first: Arc::default() });
        all.len() - 1
    });
    look(&mut all[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(password: &str) -> Proxy {
        Proxy::parse(&format!("http://ada:{password}@gate.example:3128"), "$HTTPS_PROXY").unwrap()
    }

    #[tokio::test]
    async fn what_was_refused_is_not_offered_again_until_the_setting_changes() {
        let (wrong, right) = (proxy("wrong-one"), proxy("right-one"));
        assert!(!is_closed(&wrong));
        refused(&wrong);
        assert!(is_closed(&wrong) && !is_closed(&right));
        let_through(&right);
        assert!(is_closed(&wrong) && enter(&right).await.is_none());
        let_through(&wrong);
        assert!(!is_closed(&wrong));
    }

    #[tokio::test]
    async fn one_asks_first_and_the_others_wait_but_not_for_long() {
        let proxy = proxy("first-one");
        let first = enter(&proxy).await;
        assert!(first.is_some());
        // The first one hangs.
        assert!(enter(&proxy).await.is_none());
        let others = async { (enter(&proxy).await.is_none(), is_closed(&proxy)) };
        let answer = async {
            refused(&proxy);
            drop(first);
        };
        let ((_, is_closed), ()) = tokio::join!(others, answer);
        assert!(is_closed, "who has waited hears of it");
    }
}
