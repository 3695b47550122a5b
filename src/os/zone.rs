//! This machine's time zone, for times that people read.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

/// tzset(3).
const LOCAL: &str = "/etc/localtime";

/// Where all zones have a file, unless `TZDIR` names another directory (tzset(3)).
const ZONES: &str = "/usr/share/zoneinfo";

/// More than any zone's file has.
const LARGEST: u64 = 256 * 1024;

/// The zone of a running daemon may be set; it is looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What clocks on the wall show.
pub(crate) fn now() -> ZonedDateTime {
    Timestamp::now().to_zoned_datetime(local())
}

/// What `TZ` names, or `/etc/localtime` holds; UTC where neither says anything.
pub(crate) fn local() -> TimeZone {
    static KNOWN: Mutex<Option<(Instant, TimeZone)>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    match &*known {
        Some((read, zone)) if read.elapsed() < LOOK_AGAIN => zone.clone(),
        _ => known.insert((Instant::now(), read())).1.clone(),
    }
}

#[expect(clippy::disallowed_methods, reason = "the only place, for what cannot be read here")]
fn read() -> TimeZone {
    let read = match std::env::var_os("TZ") {
        None => of_file(Path::new(LOCAL)),
        Some(value) => of_variable(&value),
    };
    read.unwrap_or_else(TimeZone::system)
}

/// The zone with the name that `TZ` gives. None where it is something else that `TZ` may be, such as a rule or a path.
fn of_variable(value: &OsStr) -> Option<TimeZone> {
    let name = Path::new(value.to_str().map(|name| name.strip_prefix(':').unwrap_or(name))?);
    let is_name = name.components().all(|part| matches!(part, Component::Normal(_)));
    if !is_name || name.as_os_str().is_empty() || std::env::var_os("TZDIR").is_some() {
        return None;
    }
    of_file(&Path::new(ZONES).join(name))
}

fn of_file(path: &Path) -> Option<TimeZone> {
    let mut data = Vec::new();
    File::open(path).ok()?.take(LARGEST).read_to_end(&mut data).ok()?;
    TimeZone::tzif("localtime", &data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "both must be the same")]
    fn the_machines_zone_is_the_same_as_by_its_name() {
        let at = Timestamp::from_second(1_783_000_000).unwrap();
        assert_eq!(read().to_datetime(at), TimeZone::system().to_datetime(at));
        let Some(berlin) = of_file(Path::new("/usr/share/zoneinfo/Europe/Berlin")) else { return };
        assert_eq!(berlin.to_datetime(at).to_string(), "2026-07-02T15:46:40");
        assert!(of_file(Path::new("/etc/passwd")).is_none() && of_file(Path::new("/nonexistent")).is_none());
        for (value, is_known) in [
            ("Europe/Berlin", true),
            (":Europe/Berlin", true),
            // jiff knows what these are.
            ("", false),
            (":", false),
            ("CET-1CEST", false),
            ("europe/berlin", false),
            ("Europe", false),
            ("../zoneinfo/Europe/Berlin", false),
            ("/usr/share/zoneinfo/Europe/Berlin", false),
        ] {
            let found = of_variable(OsStr::new(value)).map(|zone| zone.to_datetime(at));
            assert_eq!(found, is_known.then(|| berlin.to_datetime(at)), "{value}");
        }
    }
}
