//! The Lease of a daemon that is one of several replicas: by it one alone writes Secrets.

use std::sync::Arc;

use crate::config::Config;
use crate::kubernetes::{Leadership, Standing};
use crate::rotation::Rotation;

/// The Lease that this configuration asks for; none where there are no Secrets, or but one replica.
pub(super) fn of(config: &Config) -> Option<Arc<Leadership>> {
    let name = config.cluster.lease.as_ref().filter(|_| config.has_secrets())?;
    match Leadership::start(name, &config.cluster, &config.environment) {
        Ok(leadership) => Some(Arc::new(leadership)),
        // The same failure is that of each Secret, and is said there.
        Err(failure) => {
            tracing::debug!("no Lease is kept: {failure}");
            None
        }
    }
}

/// The same with another Lease, or none, where the new configuration asks for that. The old one ends by itself.
pub(super) fn follow(rotation: Rotation, config: &Config) -> Rotation {
    let asked = |config: &Config| config.has_secrets().then(|| config.cluster.clone());
    if asked(config) == asked(rotation.config()) { rotation } else { rotation.led_by(of(config)) }
}

/// Who writes the Secrets, where that is another replica.
pub(super) fn holder(rotation: &Rotation) -> String {
    match rotation.leadership().map(|leadership| leadership.standing()) {
        Some(Standing::Others(holder)) => holder,
        _ => "not known yet".to_owned(),
    }
}

/// Waits until this replica stands otherwise than `known`; for ever where there is no Lease.
pub(super) async fn changes(rotation: &Rotation, known: Option<&Standing>) {
    match (rotation.leadership(), known) {
        (Some(leadership), Some(known)) => leadership.changes(known).await,
        _ => std::future::pending().await,
    }
}
