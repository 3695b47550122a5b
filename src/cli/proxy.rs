//! `dbx-rotator proxy`.

use super::{Fault, block_on, signalled};
use crate::config::{Config, Overrides};
use crate::failure::{Code, Failure};
use crate::os::activation;
use crate::os::child::{LAST_WAIT, finish_all};
use crate::proxy;
use crate::words;

/// Tells the clients that wait at its sockets why it does not start.
pub(super) fn turn_away(failure: &Failure) {
    // What cannot be used is said where it is to be used.
    let Ok(waiting) = activation::sockets() else { return };
    let _ = block_on(proxy::turn_away(waiting, failure));
}

pub(super) fn run(config: Config, overrides: &Overrides) -> Result<u8, Fault> {
    config.check_for_service()?;
    let handed_over = activation::sockets().map_err(|error| {
        Failure::permanent(Code::Unavailable, format!("the sockets cannot be used: {}", words::of_io(&error)))
            .hint("see the unit of the socket: `systemctl --user cat dbx-rotator-proxy.socket`")
    })?;
    block_on(async {
        let (mut stop, mut reload) = signalled::listen()?;
        let load = || Config::load_for_service(overrides);
        let mut is_asked = false;
        let stop = async || match std::mem::replace(&mut is_asked, true) {
            false => stop.asked().await,
            true => stop.insisted().await,
        };
        proxy::serve(config, handed_over, &load, async || reload.asked().await, stop).await?;
        finish_all(LAST_WAIT).await;
        tracing::info!("Stopped");
        Ok(0)
    })?
}
