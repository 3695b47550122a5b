//! Room for as many sessions as there may be: each takes two descriptors, and a process may usually have 1,024.

use crate::os::descriptors;

const OF_A_SESSION: u64 = 2;

/// For all the rest together: sockets, the journal, files that are read.
const OTHERS: u64 = 100;

/// Lets this process have the descriptors that so many sessions take, and those clients that are only told that there are too many.
pub(super) fn make(sessions: usize, turned_away: usize) {
    let clients = u64::try_from(sessions + turned_away).unwrap_or(u64::MAX);
    let wanted = clients.saturating_mul(OF_A_SESSION).saturating_add(OTHERS);
    if let Some(allowed) = descriptors::allow(wanted) {
        tracing::warn!(
            "proxy_max_sessions is {sessions}, but this process may have only {allowed} open files, which is enough for {}: raise that limit \
             (LimitNOFILE= in the unit)",
            allowed.saturating_sub(OTHERS) / OF_A_SESSION
        );
    }
}
