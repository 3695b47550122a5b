//! Clients of a proxy that cannot start. They wait at its sockets already, and without a word each would only see its connection closed.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::MOST_TURNED_AWAY;
use super::client::Unheard;
use super::first::First;
use super::listeners::{Accepted, Listeners};
use super::message::Rejection;
use super::peer::{Access, Verdict};
use super::session::whose;
use crate::failure::Failure;
use crate::os::activation::Listening;

/// How long they may take, all together, to say what they want.
const LIMIT: Duration = Duration::from_secs(5);

/// How long it waits for another one.
const GRACE: Duration = Duration::from_millis(100);

/// Tells each client that waits at these sockets why there is no session: the proxy's own user and root what has failed, others where
/// that is told.
pub(crate) async fn turn_away(sockets: Vec<Listening>, failure: &Failure) {
    if sockets.is_empty() {
        return;
    }
    let listeners = Listeners::of(sockets);
    let (access, _) = Access::new(rustix::process::geteuid().as_raw(), &[]);
    let mut telling = JoinSet::new();
    let all = async {
        loop {
            tokio::select! {
                biased;
                Ok(accepted) = listeners.accept(), if telling.len() < MOST_TURNED_AWAY => {
                    let is_own = access.verdict(accepted.peer) == Verdict::Welcome;
                    telling.spawn(tell(accepted, reason(failure, is_own)));
                }
                Some(_) = telling.join_next() => {}
                () = tokio::time::sleep(GRACE), if telling.is_empty() => return,
                else => return,
            }
        }
    };
    // Whoever says nothing gets nothing.
    let _ = timeout(LIMIT, all).await;
}

/// What a client is told.
fn reason(failure: &Failure, is_own: bool) -> Rejection {
    let told = Rejection::of_credential(failure.clone());
    let message = "the proxy of dbx-rotator cannot start";
    if is_own {
        return Rejection { message: format!("{message}: {}", told.message), ..told };
    }
    // It may name files and hosts.
    Rejection::new(&told.sqlstate, message).hint("whoever runs the proxy finds the reason in its messages")
}

async fn tell(accepted: Accepted, rejection: Rejection) {
    let client = match accepted.client.first(None).await {
        Ok((client, First::Session(_))) | Err(Unheard::Malformed(client, _)) => client,
        Ok(_) | Err(Unheard::Gone | Unheard::NoTls(_)) => return,
    };
    tracing::warn!("{} got no session, since the proxy cannot start ({})", whose(accepted.peer), rejection.sqlstate);
    client.reject(&rejection).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    #[test]
    fn strangers_are_told_neither_files_nor_hosts() {
        let failure = Failure::permanent(Code::Configuration, "a is wrong (/home/ada/x.toml:1:2)").hint("set a");
        let own = reason(&failure, true);
        assert_eq!(own.message, "the proxy of dbx-rotator cannot start: a is wrong (/home/ada/x.toml:1:2)");
        assert_eq!((own.sqlstate.as_str(), own.hint.as_deref()), ("08001", Some("set a")));
        let other = reason(&failure, false);
        assert!(!format!("{other:?}").contains("ada") && other.hint.is_some(), "{other:?}");
        assert_eq!(other.sqlstate, "08001");
        let passes = Failure::transient(Code::Unavailable, "no room");
        assert_eq!(reason(&passes, true).sqlstate, "57P03");
    }
}
