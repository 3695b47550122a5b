//! Where to find a connection's database, and what its password is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How Lakebase's API identifies the database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DatabaseRef {
    /// A provisioned instance, by its name.
    Instance(String),
    /// An autoscaling endpoint, by its resource name: `projects/p/branches/b/endpoints/e`.
    Endpoint(String),
    /// The instance or endpoint with this host.
    Host(String),
}

impl fmt::Display for DatabaseRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseRef::Instance(name) => write!(f, "instance {name}"),
            DatabaseRef::Endpoint(name) => write!(f, "endpoint {name}"),
            DatabaseRef::Host(name) => write!(f, "host {name}"),
        }
    }
}

/// What is published as the password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CredentialKind {
    /// The workspace's access token.
    #[default]
    WorkspaceToken,
    /// A credential that Lakebase's API mints: always a new one.
    DatabaseCredential,
}

impl CredentialKind {
    /// The word for it in config.toml and JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            CredentialKind::WorkspaceToken => "workspace-token",
            CredentialKind::DatabaseCredential => "database-credential",
        }
    }

    pub(crate) fn is_minted(self) -> bool {
        self == CredentialKind::DatabaseCredential
    }
}

/// Whether a connection has a section in libpq's connection service file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    No,
    /// Written with each rotation although nobody asked: the configuration does not give the host, so people need a
    /// name to connect to.
    ByItself,
    /// Asked for by the configuration: kept up to date as the entry is.
    Asked,
}

/// How a credential is checked before it is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verify {
    /// By its claims.
    #[default]
    Token,
    /// By a login to PostgreSQL.
    Login,
}

/// Whether the API can be asked for a host: it has the form of a Lakebase host.
pub(crate) fn is_lakebase_host(host: &str) -> bool {
    uid_of(host).is_some() || is_of_endpoint(host)
}

/// Whether a host is an autoscaling endpoint's: `ep-one-two-x.database.REGION.CLOUD`.
pub(crate) fn is_of_endpoint(host: &str) -> bool {
    host.split_once('.').is_some_and(|(label, rest)| label.starts_with("ep-") && rest.starts_with("database."))
}

/// The uid in a provisioned instance's host: `instance-UID.database.CLOUD`, `instance-ro-UID.database.CLOUD`.
pub(crate) fn uid_of(host: &str) -> Option<&str> {
    let (label, rest) = host.split_once('.')?;
    let uid = label.strip_prefix("instance-ro-").or_else(|| label.strip_prefix("instance-"))?;
    (rest.starts_with("database.") && !uid.is_empty()).then_some(uid)
}

/// A suitable name for a connection to an endpoint: its project, with branch and endpoint if those are not the usual ones.
pub(crate) fn short_name(endpoint: &str) -> String {
    let parts: Vec<&str> = endpoint.split('/').collect();
    let usual = |at: usize, usual: &str| parts.get(at).copied().filter(|part| *part != usual);
    let all = [parts.get(1).copied(), usual(3, "production"), usual(5, "primary")];
    all.into_iter().flatten().collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_both_families_are_known_by_their_form() {
        let uid = "0b1c2d3e-0000-4000-8000-00000000cafe";
        assert_eq!(uid_of(&format!("instance-{uid}.database.cloud.databricks.com")), Some(uid));
        assert_eq!(uid_of(&format!("instance-ro-{uid}.database.azuredatabricks.net")), Some(uid));
        assert!(is_of_endpoint("ep-quiet-sun-1.database.eu-west-1.cloud.databricks.com"));
        for host in ["db.example", "ep-1.example.com", "instance-.database.x", "localhost", "instance-x"] {
            assert!(!is_lakebase_host(host), "{host}");
        }
    }

    #[test]
    fn an_endpoint_is_called_by_its_project_and_what_is_unusual() {
        assert_eq!(short_name("projects/shop/branches/production/endpoints/primary"), "shop");
        assert_eq!(short_name("projects/shop/branches/dev/endpoints/primary"), "shop-dev");
        assert_eq!(short_name("projects/shop/branches/production/endpoints/ro"), "shop-ro");
    }
}
