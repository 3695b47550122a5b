//! This machine's time zone, for times that people read.

use std::fs::File;
use std::io::Read as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

/// tzset(3).
const LOCAL: &str = "/etc/localtime";

/// More than any zone's file has.
const LARGEST: u64 = 256 * 1024;

/// The zone of a running daemon may be set; it is looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What `TZ` names, or `/etc/localtime` holds; UTC where neither says anything.
pub(crate) fn local() -> TimeZone {
    static KNOWN: Mutex<Option<(Instant, TimeZone)>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    match &*known {
        Some((read, zone)) if read.elapsed() < LOOK_AGAIN => zone.clone(),
        _ => known.insert((Instant::now(), read())).1.clone(),
    }
}

fn read() -> TimeZone {
    // jiff would look for the name of the zone first, in a list for which it reads two dozen directories.
    let of_the_machine = if std::env::var_os("TZ").is_none() { of_file(LOCAL) } else { None };
    of_the_machine.unwrap_or_else(TimeZone::system)
}

fn of_file(path: &str) -> Option<TimeZone> {
    let mut data = Vec::new();
    File::open(path).ok()?.take(LARGEST).read_to_end(&mut data).ok()?;
    TimeZone::tzif("localtime", &data).ok()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn the_machines_zone_is_the_same_as_by_its_name() {
        let at = Timestamp::from_second(1_783_000_000).unwrap();
        assert_eq!(read().to_datetime(at), TimeZone::system().to_datetime(at));
        let Some(berlin) = of_file("/usr/share/zoneinfo/Europe/Berlin") else { return };
        assert_eq!(berlin.to_datetime(at).to_string(), "2026-07-02T15:46:40");
        assert!(of_file("/etc/passwd").is_none() && of_file("/nonexistent").is_none());
    }
}
