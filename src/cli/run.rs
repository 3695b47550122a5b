//! `dbx-rotator run`.

use tokio::signal::unix::{SignalKind, signal};

use super::{Fault, block_on};
use crate::failure::{Code, Failure};
use crate::rotation::Rotator;

pub(super) fn run(rotator: &Rotator) -> Result<u8, Fault> {
    block_on(async {
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let count = rotator.config().connections().len();
        let what = if count == 1 { "1 connection".to_owned() } else { format!("{count} connections") };
        tracing::info!("Keeping {what} alive in {}", rotator.config().password_file().display());
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        rotator.run(stop).await;
        tracing::info!("Stopped");
        Ok(0)
    })?
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::transient(Code::Unavailable, format!("cannot listen for signals: {error}")))
}
