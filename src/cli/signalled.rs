//! What tells a long-running command to stop, or to read its configuration again.

use std::io::IsTerminal;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Code, Failure};
use crate::os::signals;
use crate::words;

/// What tells it to stop.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// In a terminal, that means: the terminal was closed.
    closed: Option<Signal>,
}

/// What tells it to read its configuration again. (In a terminal nothing comes of that, since it stops.)
pub(super) struct Reload(Signal);

/// Listens from now on.
///
/// # Errors
/// Transient: the system has nothing left to listen with.
pub(super) fn listen() -> Result<(Stop, Reload), Failure> {
    let hangup = || on(SignalKind::hangup());
    let closed = std::io::stderr().is_terminal().then(hangup).transpose()?;
    let stop = Stop { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())?, closed };
    let reload = Reload(hangup()?);
    signals::are_listened_for();
    Ok((stop, reload))
}

fn on(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| {
        Failure::transient(Code::Unavailable, format!("cannot listen for signals: {}", words::of_io(&error)))
    })
}

impl Stop {
    /// Waits until it is told to stop.
    pub(super) async fn asked(&mut self) {
        let Stop { terminate, interrupt, closed } = self;
        let closed = async {
            match closed {
                Some(closed) => drop(closed.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = closed => {}
        }
    }

    /// Waits for a second signal: nobody wants to wait for the end of what goes on.
    pub(super) async fn insisted(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Reload {
    /// Waits until it is told to.
    pub(super) async fn asked(&mut self) {
        self.0.recv().await;
    }
}
