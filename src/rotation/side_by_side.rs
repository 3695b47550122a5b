//! Several futures at the same time in one task, so that they may borrow, and can be dropped once there is enough.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::task::Poll;

type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Futures, each with a key, of which a limited number runs at once.
pub(crate) struct SideBySide<'a, K, T> {
    at_once: usize,
    running: Vec<(K, Work<'a, T>)>,
    waiting: VecDeque<(K, Work<'a, T>)>,
}

impl<'a, K, T> SideBySide<'a, K, T> {
    pub(crate) fn new(at_once: usize) -> Self {
        SideBySide { at_once, running: Vec::new(), waiting: VecDeque::new() }
    }

    pub(crate) fn add(&mut self, key: K, work: impl Future<Output = T> + Send + 'a) {
        self.waiting.push_back((key, Box::pin(work)));
    }

    /// The next result; none if there are no more. Dropping this future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<(K, T)> {
        std::future::poll_fn(|context| {
            while self.running.len() < self.at_once
                && let Some(one) = self.waiting.pop_front()
            {
                self.running.push(one);
            }
            for at in 0..self.running.len() {
                if let Poll::Ready(done) = self.running[at].1.as_mut().poll(context) {
                    let (key, _) = self.running.swap_remove(at);
                    return Poll::Ready(Some((key, done)));
                }
            }
            if self.running.is_empty() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    /// All results, in the order of their keys.
    pub(crate) async fn all(mut self) -> Vec<T>
    where
        K: Ord,
    {
        let mut all = BTreeMap::new();
        while let Some((key, done)) = self.next().await {
            all.insert(key, done);
        }
        all.into_values().collect()
    }

    /// Drops all unfinished futures and returns their keys.
    pub(crate) fn give_up(&mut self) -> Vec<K> {
        self.running.drain(..).chain(self.waiting.drain(..)).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn so_many_run_at_once_and_each_comes_when_it_is_done() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut all = SideBySide::new(3);
        for key in 0..10 {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            all.add(key, async move {
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let mut keys = Vec::new();
        while let Some((key, ())) = all.next().await {
            keys.push(key);
        }
        keys.sort_unstable();
        assert_eq!((keys, most.load(Ordering::Relaxed)), ((0..10).collect(), 3));
    }

    #[tokio::test]
    async fn all_come_in_the_order_of_their_keys() {
        let mut all = SideBySide::new(2);
        for key in [3, 1, 2] {
            all.add(key, async move { key * 10 });
        }
        assert_eq!(all.all().await, [10, 20, 30]);
    }

    #[tokio::test]
    async fn one_that_hangs_keeps_no_other_from_coming_and_the_rest_can_be_given_up() {
        let mut all = SideBySide::new(2);
        all.add("hangs", std::future::pending());
        all.add("comes", async { 7 });
        all.add("hangs too", std::future::pending());
        all.add("never starts", std::future::pending());
        assert_eq!(all.next().await, Some(("comes", 7)));
        let mut rest = all.give_up();
        rest.sort_unstable();
        assert_eq!(rest, ["hangs", "hangs too", "never starts"]);
        assert_eq!(all.next().await, None);
    }
}
