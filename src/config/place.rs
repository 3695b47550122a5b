//! Where a connection's database is to be found, and what its password is.

use std::fmt;

use serde::{Deserialize, Serialize};

/// By what the database is known to Lakebase's API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A provisioned instance, by its name.
    Instance(String),
    /// An autoscaling endpoint, by its resource name: `projects/p/branches/b/endpoints/e`.
    Endpoint(String),
    /// Whichever has this host.
    Host(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Instance(name) => write!(f, "instance {name}"),
            Place::Endpoint(name) => write!(f, "endpoint {name}"),
            Place::Host(name) => write!(f, "host {name}"),
        }
    }
}

/// What is published as the password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// The workspace's access token.
    #[default]
    WorkspaceToken,
    /// A credential that Lakebase's API mints: always a new one.
    DatabaseCredential,
}

impl Source {
    /// Its word in config.toml and JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Source::WorkspaceToken => "workspace-token",
            Source::DatabaseCredential => "database-credential",
        }
    }

    pub(crate) fn is_minted(self) -> bool {
        self == Source::DatabaseCredential
    }
}

/// Whether a connection has a section in libpq's connection service file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    No,
    /// Nobody asked, and who has not been told the host needs another name to connect to: written with each rotation.
    ByItself,
    /// What the configuration asks for is looked after as its entry is.
    Asked,
}

/// How a credential is proved before it is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verify {
    /// By what it says of itself.
    #[default]
    Token,
    /// By a login to PostgreSQL.
    Login,
}
