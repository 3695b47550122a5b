//! `dbx-rotator run`.

use std::io::IsTerminal;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Fault, block_on};
use crate::config::{Config, Overrides};
use crate::daemon;
use crate::failure::{Code, Failure};
use crate::rotation::Rotator;

pub(super) fn run(rotator: Rotator, overrides: &Overrides) -> Result<u8, Fault> {
    block_on(async {
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hangup = listen(SignalKind::hangup())?;
        let mut closed = listen(SignalKind::hangup())?;
        tracing::info!("{}", rotator.config().summary());
        // To a service it means: read the configuration again. To a program in a terminal: that has been closed.
        let in_terminal = std::io::stderr().is_terminal();
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = closed.recv(), if in_terminal => {}
            }
        };
        let reload = async || {
            hangup.recv().await;
        };
        daemon::serve(rotator, &|| Config::load(overrides), reload, stop).await;
        tracing::info!("Stopped");
        Ok(0)
    })?
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::transient(Code::Unavailable, format!("cannot listen for signals: {error}")))
}
