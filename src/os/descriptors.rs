//! How many files and sockets may be open at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Allows so many, as far as the system lets us. Returns how many are allowed if those are fewer.
///
/// The usual limit of 1,024 is there for programs that use select(2), which this one does not, and may be raised by everybody.
pub(crate) fn allow(wanted: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current?;
    if current >= wanted {
        return None;
    }
    let raised = limit.maximum.map_or(wanted, |most| most.min(wanted));
    let is_set = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).is_ok();
    let allowed = if is_set { raised } else { current };
    (allowed < wanted).then_some(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes_and_never_lowered() {
        let before = getrlimit(Resource::Nofile);
        let Some(current) = before.current else { return };
        assert_eq!(allow(1), None);
        assert_eq!(getrlimit(Resource::Nofile), before);
        if let Some(most) = before.maximum {
            assert_eq!(allow(most), None);
            assert_eq!(allow(most + 1), Some(most));
            assert_eq!(getrlimit(Resource::Nofile).current, Some(most));
        }
        assert!(getrlimit(Resource::Nofile).current >= Some(current));
    }
}
