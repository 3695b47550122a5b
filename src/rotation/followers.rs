//! What follows the password file by itself, one task a connection: nothing waits for the tasks, and their ends are noted when there is
//! time for it.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

/// The tasks, each with its connection's index, and what they came to.
pub(super) struct Followers<T> {
    running: JoinSet<(usize, T)>,
    busy: BTreeSet<usize>,
    /// Ends that the record does not have yet.
    ends: Vec<(usize, T)>,
}

impl<T> Default for Followers<T> {
    fn default() -> Self {
        Followers { running: JoinSet::new(), busy: BTreeSet::new(), ends: Vec::new() }
    }
}

impl<T: Send + 'static> Followers<T> {
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether there is a task of this connection.
    pub(super) fn is_busy(&self, index: usize) -> bool {
        self.busy.contains(&index)
    }

    /// Whether there are ends to note.
    pub(super) fn has_ends(&self) -> bool {
        !self.ends.is_empty()
    }

    pub(super) fn start(&mut self, index: usize, task: impl Future<Output = T> + Send + 'static) {
        self.busy.insert(index);
        self.running.spawn(async move { (index, task.await) });
    }

    /// Of a task that could not even begin.
    pub(super) fn ends_at_once(&mut self, index: usize, end: T) {
        self.ends.push((index, end));
    }

    /// Waits for one to end; for ever if none runs.
    pub(super) async fn one_ends(&mut self) {
        match self.running.join_next().await {
            Some(Ok(end)) => {
                self.busy.remove(&end.0);
                self.ends.push(end);
            }
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }

    /// The ends, to be noted.
    pub(super) fn take_ends(&mut self) -> Vec<(usize, T)> {
        std::mem::take(&mut self.ends)
    }
}
