//! Room for as many sessions as there may be: each takes two descriptors, and a process may usually have 1,024.

use crate::os::descriptors;

const OF_A_SESSION: u64 = 2;

/// For all the rest together: sockets, the journal, files that are read.
const OTHERS: u64 = 100;

/// Lets this process have the descriptors that so many sessions take, and those clients that are only told that there are too many.
/// Returns for how many sessions there is room.
pub(super) fn make(sessions: usize, turned_away: usize) -> usize {
    let clients = u64::try_from(sessions + turned_away).unwrap_or(u64::MAX);
    let wanted = clients.saturating_mul(OF_A_SESSION).saturating_add(OTHERS);
    let Some(allowed) = descriptors::allow(wanted) else { return sessions };
    let enough = enough_for(allowed);
    if enough < sessions {
        tracing::warn!(
            "proxy_max_sessions is {sessions}, but this process may have only {allowed} open files, which is enough for {enough}: raise that \
             limit (LimitNOFILE= in the unit, `ulimit -n`)"
        );
    }
    enough.min(sessions)
}

/// How many sessions there can be where so many descriptors are allowed. Where there are few, half of them are kept for the rest.
fn enough_for(allowed: u64) -> usize {
    let left = allowed - OTHERS.min(allowed / 2);
    usize::try_from(left / OF_A_SESSION).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_left_for_all_the_rest_however_few_there_are() {
        for (allowed, sessions) in [(1_024, 462), (200, 50), (64, 16), (2, 0)] {
            assert_eq!(enough_for(allowed), sessions, "{allowed}");
        }
        assert_eq!(make(1, 1), 1);
    }
}
