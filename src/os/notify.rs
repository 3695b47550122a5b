//! Telling the service manager how it goes (sd_notify(3)), where there is one that listens.

use std::time::Duration;

#[cfg(all(target_os = "linux", feature = "cli"))]
use sd_notify::NotifyState;

#[cfg(all(target_os = "linux", feature = "cli"))]
use crate::foreign;

/// The start-up may take this much longer, counted from each time it is said.
#[cfg(all(target_os = "linux", feature = "cli"))]
const LONGER: Duration = Duration::from_secs(3 * 60);

/// The longest status that is sent; `systemctl status` shows it on one line.
#[cfg(all(target_os = "linux", feature = "cli"))]
const LONGEST_STATUS: usize = 1_000;

/// What a service manager is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News<'a> {
    /// It is up: whoever waits for it may go on.
    Ready(&'a str),
    /// It is still coming up, and may take longer than its start-up time limit.
    StillStarting(&'a str),
    /// The configuration is being read again.
    Reloading,
    /// It is going down.
    Stopping,
    /// How it goes, for people.
    Status(&'a str),
}

/// The service manager that started this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manager {
    listens: bool,
    /// How long it goes without a ping before it calls the process hung.
    patience: Option<Duration>,
}

impl Manager {
    /// None: what is told goes nowhere.
    pub(crate) const NONE: Manager = Manager { listens: false, patience: None };

    /// As the environment tells (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`).
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

    /// How long it goes without a ping, where it waits for pings and can hear them.
    pub(crate) fn patience(self) -> Option<Duration> {
        self.patience.filter(|_| self.listens)
    }

    /// The same where it was asked for by somebody who cannot hear pings.
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
            // Type=notify-reload wants to know when, so that it cannot mistake one reload for another.
            News::Reloading => match NotifyState::monotonic_usec_now() {
                Ok(now) => self.send(&[NotifyState::Reloading, now]),
                Err(_) => self.send(&[NotifyState::Reloading]),
            },
        }
    }

    /// Says that this process lives. Only for the loop that rotates: a ping from anybody else would prove nothing.
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
