//! `dbx-rotator run`.

use std::time::Duration;

use super::{Fault, block_on, signalled};
use crate::config::{Config, ConfigError, Overrides};
use crate::daemon;
use crate::failure::{Code, Failure, Kind};
use crate::logging::{self, announce};
use crate::os::child::{LAST_WAIT, finish_all};
use crate::os::watch::{self, Stamps};
use crate::rotation::Rotation;

/// The hint below a configuration error under launchd.
const WAITING: &str = "waiting until this is fixed; `dbx-rotator service stop` ends the wait";

pub(super) fn run(rotation: Rotation, overrides: &Overrides) -> Result<u8, Fault> {
    block_on(async {
        let (mut stop, mut reload) = signalled::listen()?;
        tracing::info!("{}", rotation.config().summary());
        daemon::serve(rotation, &|| Config::load_for_service(overrides), async || reload.asked().await, stop.asked())
            .await;
        if !finish_all(Duration::ZERO).await {
            tracing::info!("Waiting for what has been started: up to {} s", LAST_WAIT.as_secs());
        }
        tokio::select! {
            _ = finish_all(LAST_WAIT) => {}
            () = stop.insisted() => {}
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
