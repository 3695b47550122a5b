//! The text for the service manager's STATUS=: for each connection how long it is valid and when the next try is, or what a
//! person must do. A pure function; `systemctl status` shows the text on one line.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::failure::Failure;

/// Further connections are only counted.
const LONGEST_LIST: usize = 8;

/// The state of one connection.
pub(super) struct Row<'a> {
    pub(super) name: &'a str,
    /// The time until the published credential expires; none if there is no live one.
    pub(super) left: Option<SignedDuration>,
    /// The time until the next rotation or try.
    pub(super) next: SignedDuration,
    /// The time until its Secret is looked at again, where it has one.
    pub(super) look: Option<SignedDuration>,
    /// Its identity is signing in.
    pub(super) in_flight: bool,
    /// Which other replica rotates it.
    pub(super) holder: Option<String>,
    pub(super) failure: Option<&'a Failure>,
}

/// The text for all connections, failing ones first. `refused` is why a new configuration is not in use.
pub(super) fn text(rows: &[Row<'_>], refused: Option<&str>, now: Timestamp, zone: &TimeZone) -> String {
    let mut order: Vec<&Row<'_>> = rows.iter().collect();
    order.sort_by_key(|row| (row.left.is_some() || row.holder.is_some(), row.failure.is_none()));
    let mut parts: Vec<String> =
        refused.iter().map(|why| format!("the new configuration is not in use: {why}")).collect();
    parts.extend(order.iter().take(LONGEST_LIST).map(|row| one(row, now, zone)));
    if let Some(rest @ 1..) = rows.len().checked_sub(LONGEST_LIST) {
        parts.push(format!("and {rest} more"));
    }
    parts.join("; ")
}

fn one(row: &Row<'_>, now: Timestamp, zone: &TimeZone) -> String {
    if let Some(holder) = &row.holder {
        return format!("{}: standing by, the Lease is held by {holder}", row.name);
    }
    let at = |after: SignedDuration| {
        let at = now.saturating_add(after).unwrap_or(now);
        at.to_zoned_datetime(zone.clone()).strftime("%H:%M:%S").to_string()
    };
    let validity = match row.left {
        Some(left) => format!("valid until {} ({})", at(left), rounded(left)),
        None => "no live credential".to_owned(),
    };
    let next = at(row.next.max(SignedDuration::ZERO));
    let then = match row.failure {
        None => format!("next rotation {next}"),
        Some(failure) if failure.is_transient() => format!("next try {next}: {failure}"),
        Some(failure) => {
            format!("needs a person: {} (looked at again {next}, or when a file changes)", failure.sentence())
        }
    };
    format!("{}: {validity}, {then}", row.name)
}

fn rounded(left: SignedDuration) -> String {
    match left.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds => format!("{} min", (seconds + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    const UTC: TimeZone = TimeZone::UTC;

    fn row(name: &'static str, left: i64, failure: Option<&'static Failure>) -> Row<'static> {
        let left = (left > 0).then(|| SignedDuration::from_secs(left));
        let (next, look, holder) = (SignedDuration::from_secs(60), None, None);
        Row { name, left, next, look, in_flight: false, holder, failure }
    }

    fn leaked(failure: Failure) -> Option<&'static Failure> {
        Some(Box::leak(Box::new(failure)))
    }

    #[test]
    fn it_says_how_long_each_is_valid_and_when_the_next_try_is() {
        let said = |rows: &[Row<'_>]| text(rows, None, Timestamp::UNIX_EPOCH, &UTC);
        assert_eq!(said(&[row("a", 3_600, None)]), "a: valid until 01:00:00 (60 min), next rotation 00:01:00");
        let offline = leaked(Failure::transient(Code::Unavailable, "no network"));
        assert_eq!(
            said(&[row("a", 90, offline), row("b", 0, offline)]),
            "b: no live credential, next try 00:01:00: no network; \
             a: valid until 00:01:30 (90 s), next try 00:01:00: no network"
        );
    }

    #[test]
    fn it_says_what_a_person_must_do_and_why_a_new_configuration_is_left_aside() {
        let refused =
            leaked(Failure::permanent(Code::LoginNeeded, "the login is dead").hint("run `databricks auth login`"));
        let said = text(&[row("a", 0, refused)], Some("no host"), Timestamp::UNIX_EPOCH, &UTC);
        assert_eq!(
            said,
            "the new configuration is not in use: no host; a: no live credential, needs a person: the login is dead - \
             run `databricks auth login` (looked at again 00:01:00, or when a file changes)"
        );
    }

    #[test]
    fn of_many_connections_those_in_trouble_are_named() {
        let bad = leaked(Failure::transient(Code::Unavailable, "x"));
        let mut rows: Vec<Row<'_>> = (0..20).map(|_| row("good", 100, None)).collect();
        rows.push(row("bad", 100, bad));
        let said = text(&rows, None, Timestamp::UNIX_EPOCH, &UTC);
        assert!(said.starts_with("bad: ") && said.ends_with("and 13 more"), "{said}");
    }
}
