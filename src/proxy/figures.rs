//! What the proxy has done, in a file that `status` reads: one cannot ask a proxy that is not running without starting it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::listeners::serves;
use crate::os::files::{make_directories, read_text_up_to};
use crate::os::identity::try_as_owner_of;
use crate::rotation::{PROXY, Running};

/// The name of the file, in the directory of the record.
const NAME: &str = "proxy.json";

/// The largest that is read, in bytes.
const LARGEST: u64 = 64 * 1024;

const VERSION: u32 = 1;

/// What is told of a proxy. Counters begin anew with each start, as those of Prometheus may.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Figures {
    pub(crate) version: u32,
    pub(crate) started_at: Option<Timestamp>,
    /// Where it listens.
    pub(crate) listening: Vec<String>,
    /// It ends when its sessions have, and opens none.
    pub(crate) stopping: bool,
    /// How many sessions there are now.
    pub(crate) sessions: u64,
    /// How many were opened.
    pub(crate) sessions_opened: u64,
    /// Why clients got none, by PostgreSQL's error codes.
    pub(crate) refused: BTreeMap<String, u64>,
    /// How many bytes came from clients and from servers.
    pub(crate) bytes_from_clients: u64,
    pub(crate) bytes_from_servers: u64,
    /// How often a server had to wake up for a login, and how long that took in all.
    pub(crate) wakes: u64,
    pub(crate) wake_seconds: f64,
    /// How many logins PostgreSQL refused at first, and accepted with another credential.
    pub(crate) second_logins: u64,
}

impl Figures {
    /// Whether it takes what comes to this address.
    pub(crate) fn serves(&self, address: SocketAddr) -> bool {
        self.listening.iter().filter_map(|place| place.parse().ok()).any(|place| serves(place, address))
    }
}

/// The running count of a proxy.
pub(super) struct Counting {
    rare: Mutex<Figures>,
    from_clients: AtomicU64,
    from_servers: AtomicU64,
    is_news: AtomicBool,
    /// Whether the last news could not be written: they are at the next look, and hasten none.
    is_unwritten: AtomicBool,
    path: PathBuf,
}

impl Counting {
    pub(super) fn new(state_dir: &Path) -> Self {
        let rare = Figures { version: VERSION, started_at: Some(Timestamp::now()), ..Figures::default() };
        Counting {
            rare: Mutex::new(rare),
            from_clients: AtomicU64::new(0),
            from_servers: AtomicU64::new(0),
            is_news: AtomicBool::new(true),
            is_unwritten: AtomicBool::new(false),
            path: state_dir.join(NAME),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.rare.lock().unwrap_or_else(PoisonError::into_inner));
        self.is_news.store(true, Ordering::Relaxed);
    }

    pub(super) fn listens(&self, listening: Vec<String>) {
        self.change(|figures| figures.listening = listening);
    }

    pub(super) fn stops(&self) {
        self.change(|figures| figures.stopping = true);
    }

    pub(super) fn opened(&self, tries: u32, took: Duration, is_second: bool) {
        self.change(|figures| {
            figures.sessions += 1;
            figures.sessions_opened += 1;
            figures.second_logins += u64::from(is_second);
            if tries > 1 {
                figures.wakes += 1;
                figures.wake_seconds += took.as_secs_f64();
            }
        });
    }

    pub(super) fn ended(&self) {
        self.change(|figures| figures.sessions = figures.sessions.saturating_sub(1));
    }

    pub(super) fn refused(&self, sqlstate: &str) {
        self.change(|figures| *figures.refused.entry(sqlstate.to_owned()).or_default() += 1);
    }

    pub(super) fn came_from_client(&self, bytes: usize) {
        self.from_clients.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn came_from_server(&self, bytes: usize) {
        self.from_servers.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn sessions(&self) -> u64 {
        self.rare.lock().unwrap_or_else(PoisonError::into_inner).sessions
    }

    /// Whether there is something to write besides bytes.
    pub(super) fn is_news(&self) -> bool {
        self.is_news.load(Ordering::Relaxed)
    }

    /// Writes what has changed. The file is for people who look: nothing depends on it, so that its loss is no failure.
    pub(super) fn write_news(&self) {
        let bytes = (self.from_clients.load(Ordering::Relaxed), self.from_servers.load(Ordering::Relaxed));
        let figures = {
            let mut figures = self.rare.lock().unwrap_or_else(PoisonError::into_inner);
            let before = (figures.bytes_from_clients, figures.bytes_from_servers);
            let is_unwritten = self.is_unwritten.swap(false, Ordering::Relaxed);
            if !self.is_news.swap(false, Ordering::Relaxed) && !is_unwritten && bytes == before {
                return;
            }
            (figures.bytes_from_clients, figures.bytes_from_servers) = bytes;
            figures.clone()
        };
        if let Err(error) = self.write(&figures) {
            tracing::debug!("cannot write {}: {}", self.path.display(), crate::words::of_io(&error));
            self.is_unwritten.store(true, Ordering::Relaxed);
        }
    }

    fn write(&self, figures: &Figures) -> io::Result<()> {
        let Some(directory) = self.path.parent() else { return Ok(()) };
        try_as_owner_of(directory, || {
            make_directories(directory, 0o700)?;
            let mut file = tempfile::Builder::new().prefix(".proxy").tempfile_in(directory)?;
            file.write_all(serde_json::to_string(figures)?.as_bytes())?;
            file.persist(&self.path)?;
            Ok(())
        })
    }
}

/// What the proxy has told that keeps its figures in this directory, and whether it runs. None if there never was one.
pub(crate) fn told(state_dir: &Path) -> Option<(Figures, bool)> {
    let runs = Running::is_marked_as(PROXY, state_dir);
    let text = read_text_up_to(&state_dir.join(NAME), LARGEST).ok();
    let figures = text.and_then(|text| serde_json::from_str::<Figures>(&text).ok());
    match figures.filter(|figures| figures.version == VERSION) {
        Some(figures) if runs => Some((figures, true)),
        // Nobody is left of those that it counted.
        Some(figures) => Some((Figures { sessions: 0, stopping: false, ..figures }, false)),
        None => runs.then(|| (Figures::default(), true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::inherited::until;

    #[test]
    fn what_is_counted_is_told_and_a_proxy_that_has_ended_has_no_sessions() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(told(directory.path()), None);
        let counting = Counting::new(directory.path());
        counting.listens(vec!["/run/s".to_owned()]);
        counting.opened(1, Duration::from_secs(9), false);
        counting.opened(3, Duration::from_secs(2), true);
        counting.refused("28P01");
        counting.stops();
        counting.came_from_client(5);
        counting.came_from_server(7);
        let running = Running::mark_as(PROXY, directory.path());
        counting.write_news();
        let (figures, runs) = told(directory.path()).unwrap();
        assert!(runs && figures.stopping);
        assert_eq!((figures.sessions, figures.sessions_opened, figures.wakes, figures.second_logins), (2, 2, 1, 1));
        assert_eq!((figures.bytes_from_clients, figures.bytes_from_servers, figures.wake_seconds), (5, 7, 2.0));
        assert_eq!(figures.refused.get("28P01"), Some(&1));
        drop(running);
        until(|| told(directory.path()).is_some_and(|(_, runs)| !runs));
        let (figures, runs) = told(directory.path()).unwrap();
        assert_eq!((figures.sessions, figures.stopping, runs), (0, false, false));
    }
}
