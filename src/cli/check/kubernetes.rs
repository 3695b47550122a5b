//! Whether each Secret of Kubernetes holds the password that is live, asked of the API server itself.

use super::AT_ONCE;
use crate::cli::finding::{Finding, Id};
use crate::failure::Failure;
use crate::kubernetes::{ApiServer, Wanted};
use crate::rotation::{SideBySide, Snapshot, wanted_secret};

/// One for each connection that has a Secret.
pub(super) async fn findings(snapshot: &Snapshot) -> Vec<Finding> {
    let mut looks = SideBySide::new(AT_ONCE);
    for (index, connection) in snapshot.connections().iter().enumerate() {
        let Some(secret) = &connection.outputs.kubernetes_secret else { continue };
        // Where no password lives, that is said already.
        let Some((wanted, _)) = wanted_secret(snapshot, index) else { continue };
        looks.add(index, look_at(snapshot, connection.name(), format!("the Secret {}", secret.name), wanted));
    }
    looks.all().await
}

async fn look_at(snapshot: &Snapshot, name: &str, what: String, wanted: Wanted) -> Finding {
    let config = &snapshot.config;
    let holds = match ApiServer::of(&config.cluster, &config.environment) {
        Ok(api) => api.holds(&wanted).await,
        Err(failure) => Err(failure),
    };
    match holds {
        Ok(true) => Finding::ok(Id::KubernetesSecret, format!("{name}: {what} holds the live password")),
        Ok(false) => Finding::failed(Id::KubernetesSecret, format!("{name}: {what} does not hold the live password"))
            .hint("`dbx-rotator run` writes it within a minute, `dbx-rotator rotate --if-due` now"),
        Err(failure) => failed(name, &failure),
    }
}

fn failed(name: &str, failure: &Failure) -> Finding {
    Finding::failed(Id::KubernetesSecret, format!("{name}: {failure}")).hint_of(failure)
}
