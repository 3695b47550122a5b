//! Reports to the service manager (sd_notify(3)), if one listens.

use std::time::Duration;

#[cfg(all(target_os = "linux", feature = "cli"))]
use sd_notify::NotifyState;

#[cfg(all(target_os = "linux", feature = "cli"))]
use crate::foreign;

/// How much longer the start-up may take from each report of it.
#[cfg(all(target_os = "linux", feature = "cli"))]
const LONGER: Duration = Duration::from_secs(3 * 60);

/// The longest status that is sent; `systemctl status` shows it on one line.
#[cfg(all(target_os = "linux", feature = "cli"))]
const LONGEST_STATUS: usize = 1_000;

/// What the service manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News<'a> {
    /// The service is up: whoever waits for it may go on.
    Ready(&'a str),
    /// The service is still starting, and may take longer than its start-up time limit.
    StillStarting(&'a str),
    /// The configuration is being read again.
    Reloading,
    /// The service is stopping.
    Stopping,
    /// A status for people.
    Status(&'a str),
}

/// The service manager that started this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manager {
    listens: bool,
    /// How long the manager waits for a ping before it considers the process hung.
    patience: Option<Duration>,
}

impl Manager {
    /// No manager: reports go nowhere.
    pub(crate) const NONE: Manager = Manager { listens: false, patience: None };

    /// As the environment says (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`).
    #[cfg(all(target_os = "linux", feature = "cli"))]
    pub(crate) fn of_this_process() -> Self {
        let listens = std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty());
        Manager { listens, patience: sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero()) }
    }

    /// launchd neither listens nor watches, and an application that embeds the loop watches itself.
    #[cfg(not(all(target_os = "linux", feature = "cli")))]
    pub(crate) fn of_this_process() -> Self {
        Manager::NONE
    }

    /// How long the manager waits for a ping, if it watches and can receive pings.
    pub(crate) fn patience(self) -> Option<Duration> {
        self.patience.filter(|_| self.listens)
    }

    /// The same if it watches but cannot receive pings.
    pub(crate) fn unheard_patience(self) -> Option<Duration> {
        self.patience.filter(|_| !self.listens)
    }

    #[cfg(all(target_os = "linux", feature = "cli"))]
    pub(crate) fn tell(self, news: News<'_>) {
        let longer = u32::try_from(LONGER.as_micros()).unwrap_or(u32::MAX);
        match news {
            News::Ready(status) => self.send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]),
            News::StillStarting(status) => {
                self.send(&[NotifyState::ExtendTimeoutUsec(longer), NotifyState::Status(&one_line(status))]);
            }
            News::Status(status) => self.send(&[NotifyState::Status(&one_line(status))]),
            News::Stopping => self.send(&[NotifyState::Stopping]),
            // Type=notify-reload needs the time, to tell one reload from another.
            News::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => self.send(&[NotifyState::Reloading, now]),
                Err(_) => self.send(&[NotifyState::Reloading]),
            },
        }
    }

    /// Tells the manager that this process is alive. Only for the loop that rotates: pings from elsewhere would prove
    /// nothing.
    #[cfg(all(target_os = "linux", feature = "cli"))]
    pub(crate) fn ping(self) {
        if self.patience.is_some() {
            self.send(&[NotifyState::Watchdog]);
        }
    }

    #[cfg(all(target_os = "linux", feature = "cli"))]
    fn send(self, state: &[NotifyState<'_>]) {
        if self.listens
            && let Err(error) = sd_notify::notify(state)
        {
            tracing::debug!("the service manager could not be told: {}", crate::words::of_io(&error));
        }
    }

    #[cfg(not(all(target_os = "linux", feature = "cli")))]
    pub(crate) fn tell(self, _: News<'_>) {}

    #[cfg(not(all(target_os = "linux", feature = "cli")))]
    pub(crate) fn ping(self) {}
}

/// A line break would begin another assignment.
#[cfg(all(target_os = "linux", feature = "cli"))]
fn one_line(text: &str) -> String {
    foreign::line(text).chars().take(LONGEST_STATUS).collect()
}

#[cfg(all(test, target_os = "linux", feature = "cli"))]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_whatever_it_quotes() {
        assert_eq!(one_line("a\nWATCHDOG=trigger\u{1b}"), "a\\nWATCHDOG=trigger\\u001b");
    }

    #[test]
    fn a_watchdog_that_cannot_hear_is_kept_apart_from_one_that_can() {
        let patience = Some(Duration::from_secs(3));
        let (hears, deaf) = (Manager { listens: true, patience }, Manager { listens: false, patience });
        assert_eq!((hears.patience(), hears.unheard_patience()), (patience, None));
        assert_eq!((deaf.patience(), deaf.unheard_patience()), (None, patience));
    }
}
