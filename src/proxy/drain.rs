//! The end: idle sessions end at once, the others when they have done what they are doing. Until then what they do can be cancelled,
//! by the same sockets as ever, and others who come are told that the proxy is stopping.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::crowd::Crowd;
use super::listeners::Accepted;
use super::{MOST_TURNED_AWAY, Proxy, TICK, session};
use crate::os::timer;

/// How long sessions may go on with what they are doing after the proxy was told to stop. The units give it 100 s.
const LIMIT: Duration = Duration::from_secs(75);

/// Clients that came while the proxy was stopping.
#[derive(Default)]
struct Late {
    crowd: Crowd,
    tasks: JoinSet<()>,
}

impl Proxy {
    /// Waits for the end of all sessions, up to a limit or until that is `enough`.
    pub(super) async fn drain(&mut self, enough: impl Future) {
        self.shared.stopping.send_replace(true);
        self.shared.counting.stops();
        if self.sessions.is_empty() {
            return;
        }
        tracing::info!("Stopping: {} may end what they are doing, within {} s", self.status(), LIMIT.as_secs());
        tokio::pin!(enough);
        let (mut late, mut told, mut look_at) = (Late::default(), String::new(), Instant::now());
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            self.comes_round();
            // Here, where it cannot be put off by clients that come and go.
            if look_at <= Instant::now() {
                self.look_while_stopping(&mut told);
                look_at = Instant::now() + TICK;
            }
            let pause = look_at.min(until).saturating_duration_since(Instant::now()).min(self.keepalive.pace());
            tokio::select! {
                biased;
                _ = &mut enough => break,
                ended = self.sessions.join_next() => if ended.is_none() { return },
                Some(_) = late.tasks.join_next() => {}
                accepted = self.listeners.accept() => if let Some(accepted) = self.taken(accepted).await {
                    self.admit_late(&mut late, accepted);
                },
                () = timer::sleep(pause) => {}
            }
        }
        tracing::warn!("The sessions that are still busy are cut off");
    }

    fn look_while_stopping(&self, told: &mut String) {
        self.tell(told, format!("stopping, {}", self.status()));
        // Sessions look whether a side was lost.
        self.shared.stopping.send_replace(true);
    }

    fn admit_late(&self, late: &mut Late, accepted: Accepted) {
        let (shared, served) = (Arc::clone(&self.shared), Arc::clone(&self.served));
        let Late { crowd, tasks } = late;
        crowd.add(MOST_TURNED_AWAY, |place| tasks.spawn(session::serve_late(shared, served, accepted, place)));
    }
}
