//! `dbx-rotator run`.

use std::io::IsTerminal;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Fault, block_on};
use crate::config::{Config, ConfigError, Overrides};
use crate::daemon;
use crate::failure::{Code, Failure, Kind};
use crate::logging::{self, announce};
use crate::os::child::{LAST_WAIT, finish_all};
use crate::os::watch::{self, Stamps};
use crate::rotation::Rotation;
use crate::words;

/// The hint below a configuration error under launchd.
const WAITING: &str = "waiting until this is fixed; `dbx-rotator service stop` ends the wait";

pub(super) fn run(rotation: Rotation, overrides: &Overrides) -> Result<u8, Fault> {
    block_on(async {
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hangup = listen(SignalKind::hangup())?;
        let mut closed = listen(SignalKind::hangup())?;
        tracing::info!("{}", rotation.config().summary());
        // For a service, the signal means: read the configuration again. In a terminal: the terminal was closed.
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
        daemon::serve(rotation, &|| Config::load_for_service(overrides), reload, stop).await;
        if !finish_all(Duration::ZERO).await {
            tracing::info!("Waiting for what has been started: up to {} s", LAST_WAIT.as_secs());
        }
        tokio::select! {
            _ = finish_all(LAST_WAIT) => {}
            // A second signal means that nobody wants to wait.
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("Stopped");
        Ok(0)
    })?
}

/// Waits until there is a usable configuration. Reports each error once.
pub(super) fn configuration(overrides: &Overrides, error: &ConfigError) -> Result<Config, Failure> {
    let say = |fault: &str| {
        logging::before_start(|| announce::refused(fault, Some(WAITING), Code::Configuration, Kind::Permanent));
    };
    let mut said = error.sentence();
    say(&said);
    block_on(async {
        loop {
            let files = Config::files_to_come(overrides);
            let before = Stamps::of(&files);
            match Config::load_for_service(overrides) {
                Ok(config) => return Ok(config),
                Err(error) if error.sentence() != said => {
                    said = error.sentence();
                    say(&said);
                }
                Err(_) => {}
            }
            // A file may have changed before the watch began.
            watch::changed(&files, || Stamps::of(&files) != before).await;
        }
    })?
}

pub(super) fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| {
        Failure::transient(Code::Unavailable, format!("cannot listen for signals: {}", words::of_io(&error)))
    })
}
