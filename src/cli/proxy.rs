//! `dbx-rotator proxy`.

use std::io::IsTerminal;

use tokio::signal::unix::SignalKind;

use super::run::listen;
use super::{Fault, block_on};
use crate::config::{Config, Overrides};
use crate::failure::{Code, Failure};
use crate::os::activation;
use crate::os::child::{LAST_WAIT, finish_all};
use crate::proxy;
use crate::words;

pub(super) fn run(config: Config, overrides: &Overrides) -> Result<u8, Fault> {
    config.check_for_service()?;
    let handed_over = activation::sockets().map_err(|error| {
        Failure::permanent(Code::Unavailable, format!("the sockets cannot be used: {}", words::of_io(&error)))
            .hint("see the unit of the socket: `systemctl --user cat dbx-rotator-proxy.socket`")
    })?;
    block_on(async {
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hangup = listen(SignalKind::hangup())?;
        let mut closed = listen(SignalKind::hangup())?;
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
        proxy::serve(config, handed_over, &|| Config::load_for_service(overrides), reload, stop).await?;
        finish_all(LAST_WAIT).await;
        tracing::info!("Stopped");
        Ok(0)
    })?
}
