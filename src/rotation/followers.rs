//! What follows the password file by itself, one task a connection: nothing waits for the tasks, and their ends are noted when there is
//! time for it.

use std::collections::HashMap;

use tokio::task::{Id, JoinSet};

/// The tasks, each with its connection's index, and what they came to.
pub(super) struct Followers<T> {
    running: JoinSet<T>,
    /// Whose each is, and the end that it has if it panics.
    busy: HashMap<Id, (usize, T)>,
    /// Ends that the record does not have yet.
    ends: Vec<(usize, T)>,
}

impl<T> Default for Followers<T> {
    fn default() -> Self {
        Followers { running: JoinSet::new(), busy: HashMap::new(), ends: Vec::new() }
    }
}

impl<T: Send + 'static> Followers<T> {
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether there is a task of this connection.
    pub(super) fn is_busy(&self, index: usize) -> bool {
        self.busy.values().any(|(busy, _)| *busy == index)
    }

    /// Whether there are ends to note.
    pub(super) fn has_ends(&self) -> bool {
        !self.ends.is_empty()
    }

    /// `broken_off` is its end if it panics: the connection must not be busy for ever.
    pub(super) fn start(&mut self, index: usize, broken_off: T, task: impl Future<Output = T> + Send + 'static) {
        let id = self.running.spawn(task).id();
        self.busy.insert(id, (index, broken_off));
    }

    /// Of a task that could not even begin.
    pub(super) fn ends_at_once(&mut self, index: usize, end: T) {
        self.ends.push((index, end));
    }

    /// Waits for one to end; for ever if none runs.
    pub(super) async fn one_ends(&mut self) {
        let (id, end) = match self.running.join_next_with_id().await {
            Some(Ok((id, end))) => (id, Some(end)),
            Some(Err(error)) => (error.id(), None),
            None => std::future::pending().await,
        };
        if let Some((index, broken_off)) = self.busy.remove(&id) {
            self.ends.push((index, end.unwrap_or(broken_off)));
        }
    }

    /// The ends, to be noted.
    pub(super) fn take_ends(&mut self) -> Vec<(usize, T)> {
        std::mem::take(&mut self.ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[allow(clippy::panic, reason = "that is what is tested")]
    async fn one_that_panics_has_ended_and_another_may_begin() {
        let mut followers = Followers::default();
        followers.start(3, "broken off", async { panic!("a fault of ours") });
        followers.one_ends().await;
        assert!(!followers.is_busy(3) && followers.is_idle());
        followers.start(3, "broken off", async { "told" });
        followers.one_ends().await;
        assert_eq!(followers.take_ends(), [(3, "broken off"), (3, "told")]);
    }
}
