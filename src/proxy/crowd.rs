//! Clients that have yet to show what they are. There are only so many at once, and when one more comes, one of the older half makes
//! room: the oldest that has said nothing at all, else the oldest. So who says nothing keeps nobody out, and who has just come has time to
//! speak, however many come after.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio::task::AbortHandle;

/// A client's place in the crowd, for as long as it is kept.
#[derive(Debug, Default)]
pub(super) struct Place {
    has_spoken: AtomicBool,
}

impl Place {
    /// Its client has said what it wants.
    pub(super) fn speaks(&self) {
        self.has_spoken.store(true, Ordering::Relaxed);
    }
}

/// All of them, the oldest first.
#[derive(Default)]
pub(super) struct Crowd(Vec<(Weak<Place>, AbortHandle)>);

impl Crowd {
    pub(super) fn len(&mut self) -> usize {
        self.0.retain(|(place, _)| place.strong_count() > 0);
        self.0.len()
    }

    /// Lets one more in, whom `serve` serves, where there may be so many. Returns whether another one had to go for it.
    pub(super) fn add(&mut self, most: usize, serve: impl FnOnce(Arc<Place>) -> AbortHandle) -> bool {
        let is_full = self.len() >= most;
        if is_full {
            let is_silent = |(place, _): &(Weak<Place>, _)| {
                place.upgrade().is_some_and(|one| !one.has_spoken.load(Ordering::Relaxed))
            };
            let leaves = self.0.iter().take(most.div_ceil(2)).position(is_silent).unwrap_or_default();
            self.0.remove(leaves).1.abort();
        }
        let place = Arc::new(Place::default());
        let known = Arc::downgrade(&place);
        self.0.push((known, serve(place)));
        is_full
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn of_the_older_half_who_has_said_nothing_makes_room_else_the_oldest() {
        let (mut crowd, mut tasks) = (Crowd::default(), JoinSet::new());
        let mut enters = |crowd: &mut Crowd, number: usize, speaks: bool, stays: bool| {
            crowd.add(3, |place| {
                if speaks {
                    place.speaks();
                }
                tasks.spawn(async move {
                    let _place = place;
                    if stays {
                        std::future::pending::<()>().await;
                    }
                    number
                })
            })
        };
        assert!(!enters(&mut crowd, 1, false, false));
        tokio::task::yield_now().await;
        assert_eq!(crowd.len(), 0, "who has gone takes no place");
        for (number, speaks, is_full) in
            [(2, true, false), (3, false, false), (4, true, false), (5, true, true), (6, false, true), (7, false, true)]
        {
            assert_eq!(enters(&mut crowd, number, speaks, true), is_full, "{number}");
        }
        assert_eq!(crowd.len(), 3);
        let spoken: Vec<bool> =
            crowd.0.iter().map(|(place, _)| place.upgrade().unwrap().has_spoken.load(Ordering::Relaxed)).collect();
        assert_eq!(spoken, [true, false, false], "5, 6 and 7 are left");
    }
}
